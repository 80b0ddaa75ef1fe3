"""The page's tests in a browser, against `tailor serve` with the default model and two label packages fitted for them.

Run: python3 scripts/test_web.py [--totals FILE] [arguments of `playwright test`]
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import test_totals

TREE = Path(__file__).resolve().parents[1]
OUT = TREE / "build" / "web-tests"
TAILOR = TREE / "build" / "release" / "bin" / "tailor"
MODEL = "smollm2-135m-instruct"


def fitted(name, method):
    """A package of the estate agency's example; made once a build."""
    run = OUT / name
    if not (run / "package" / "manifest.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        subprocess.run([TAILOR, "fit", TREE / "examples/estate-agency/inquiries.csv", "--text", "message", "--label", "intent",
                        "--methods", method, "--budget", "60s", "--out", run], check=True, stdout=subprocess.DEVNULL)
    return run / "package"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--totals", help="file to which 'passed failed skipped' is added")
    arguments, rest = parser.parse_known_args()
    if subprocess.run([TREE / "scripts/setup.sh", "--web-tests"], check=False).returncode != 0:
        return finish(arguments, 0, 1, 0)
    OUT.mkdir(parents=True, exist_ok=True)
    tests = TREE / "tests" / "web"
    if subprocess.run([tests / "node_modules/.bin/tsc", "-p", TREE / "web"], check=False).returncode != 0:
        return finish(arguments, 0, 1, 0)
    environment = dict(os.environ)
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    server = subprocess.Popen([TAILOR, "serve", fitted("labels", "tfidf"), fitted("rows", "neighbours"), "--model", MODEL, "--port", "0"], stdout=subprocess.PIPE, text=True,
                              env=environment)
    try:
        line = server.stdout.readline()
        address = re.search(r"https?://\S+", line)
        if not address:
            print(f"test_web: `tailor serve` did not begin: {line.strip() or 'it said nothing'}", file=sys.stderr)
            return finish(arguments, 0, 1, 0)
        environment.update(TAILOR_SERVER=address[0], TAILOR_TEXT_MODEL=MODEL, TAILOR_LABEL_MODEL="labels", TAILOR_ROWS_MODEL="rows", TAILOR_WEB_OUT=str(OUT / "traces"))
        done = subprocess.run([tests / "node_modules/.bin/playwright", "test", *rest], cwd=tests, env=environment, check=False,
                              stdout=subprocess.PIPE, text=True)
    finally:
        server.terminate()
        server.wait(60)
    print(done.stdout)
    passed, failed, skipped = (sum(int(n) for n in re.findall(rf"^ +(\d+) {word}", done.stdout, re.MULTILINE))
                               for word in ("passed", "(?:failed|flaky|interrupted|did not run)", "skipped"))
    return finish(arguments, passed, failed if done.returncode == 0 else max(failed, 1), skipped)


def finish(arguments, passed, failed, skipped):
    print(f"web: {passed} passed, {failed} failed, {skipped} skipped")
    test_totals.add(arguments.totals, passed, failed, skipped)
    return 1 if failed or not passed else 0


sys.exit(main())
