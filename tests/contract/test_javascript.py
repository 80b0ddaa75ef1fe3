"""The openai client of npm."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from server import MODEL

HERE = Path(__file__).resolve().parent


def test_openai(url, tmp_path):
    modules = os.environ.get("TAILOR_NODE_MODULES")
    if not modules:
        pytest.skip("TAILOR_NODE_MODULES is not set: `make test-clients` installs the client of npm and sets it")
    # Modules are looked for beside the script.
    shutil.copy(HERE / "openai.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules, target_is_directory=True)
    run = subprocess.run(["node", tmp_path / "openai.mjs", url, MODEL], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0 and run.stdout == "ok\n", run.stdout + run.stderr
