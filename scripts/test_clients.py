"""The server against clients as they come from their registries, and against schemathesis; needs `setup.sh --clients`."""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import test_totals

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "tests" / "contract"
sys.path.insert(0, str(CONTRACT))
sys.dont_write_bytecode = True
CACHE = Path(os.environ.get("TAILOR_CACHE", Path.home() / ".cache" / "tailor"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("--cases", type=int, default=10_000, help="of schemathesis, at least; 0: none")
    parser.add_argument("--totals", type=Path, help="append 'passed failed skipped' to this file")
    arguments = parser.parse_args()
    os.environ.update(TAILOR_BUILD_DIR=str(arguments.build.resolve()), TAILOR_SOURCE_DIR=str(ROOT), PYTHONDONTWRITEBYTECODE="1",
                      TAILOR_NODE_MODULES=str(CACHE / "clients" / "node_modules"),
                      PATH=f"{CACHE / 'clients' / 'bin'}:{os.environ['PATH']}")
    os.environ.setdefault("TAILOR_MODELS_DIR", str(CACHE / "deps" / "models"))
    counts = [tests("clients", "--ignore=test_frameworks.py"), tests("clients-frameworks", "test_openai.py", "test_frameworks.py")]
    if arguments.cases > 0:
        counts.append(fuzz(arguments.cases))
    passed, failed, skipped = map(sum, zip(*counts))
    test_totals.add(arguments.totals, passed, failed, skipped)
    print(f"clients: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def tests(environment, *what):
    run = subprocess.run([CACHE / environment / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *what], cwd=CONTRACT,
                         stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout, flush=True)
    last = run.stdout.strip().rpartition("\n")[2]

    def count(word):
        return sum(map(int, re.findall(rf"(\d+) {word}", last)))

    failed = count("failed") + count("error")
    return count("passed"), failed or int(run.returncode != 0), count("skipped")


def fuzz(least):
    """Cases with right and wrong bodies, in rounds until there are enough. One passed or failed."""
    from server import Server, tiny_model

    # A tiny model: what is tested is what may be asked, not what is answered.
    cases = seed = 0
    with Server("--model", str(tiny_model()), "--max-context", "128") as server, tempfile.TemporaryDirectory() as place:
        while cases < least:
            seed += 1
            run = subprocess.run([CACHE / "clients" / "bin" / "schemathesis", "run", server.url + "/openapi.json", "--checks", CHECKS, "--mode", "all",
                                  "--max-examples", "40", "--seed", str(seed), "--request-timeout", "60", "--continue-on-failure", "--no-color"],
                                 cwd=place, stdout=subprocess.PIPE, text=True, check=False)
            found = re.search(r"([\d,]+) generated", run.stdout)
            if run.returncode != 0 or not found or server.process.poll() is not None:
                print(run.stdout[-20_000:], flush=True)
                return 0, 1, 0
            cases += int(found.group(1).replace(",", ""))
            print(f"schemathesis: {cases} cases", flush=True)
    return 1, 0, 0


if __name__ == "__main__":
    sys.exit(main())
