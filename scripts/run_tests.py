"""Runs ctest in a build directory and ends with one line: N passed, N failed, N skipped (with the reasons of skips).

Fails when a test failed, and when there was none to run.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import test_totals


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--exclude-label", default="^(data|soak)$", help="ctest -LE")
    parser.add_argument("--label", default="", help="ctest -L")
    parser.add_argument("--filter", default="", help="ctest -R")
    parser.add_argument("--totals", type=Path, help="append 'passed failed skipped' to this file")
    arguments = parser.parse_args()

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = ["ctest", "--test-dir", str(arguments.build), "--output-on-failure", "--no-tests=error", "-j", arguments.jobs,
                   "--output-junit", str(report), "--progress" if sys.stdout.isatty() else "--no-compress-output"]
        for flag, value in (("-LE", arguments.exclude_label), ("-L", arguments.label), ("-R", arguments.filter)):
            if value:
                command += [flag, value]
        code = subprocess.run(command, check=False).returncode
        try:
            cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError):
            cases = []
    verdicts = [verdict(c) for c in cases]
    passed, failed = verdicts.count("passed"), verdicts.count("failed")
    skipped = [c for c, v in zip(cases, verdicts) if v == "skipped"]
    for reason, count in Counter(map(skip_reason, skipped)).items():
        print(f"SKIPPED {count}: {reason}")
    test_totals.add(arguments.totals, passed, failed or int(code != 0), len(skipped))
    print(f"[test] {arguments.build.name}: {time.monotonic() - begin:.1f} s")
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped", flush=True)
    if not cases:
        print("no tests were found: is the build complete?", file=sys.stderr)
    return 0 if code == 0 and cases and not failed else 1


def verdict(case):
    status, skipped = case.get("status"), case.find("skipped")
    if status == "run":
        return "passed"
    # ctest also says "notrun" where the program is missing or did not start: that is a failure.
    return "skipped" if status == "disabled" or (skipped is not None and "SKIP_" in skipped.get("message", "")) else "failed"


def skip_reason(case):
    """What GTEST_SKIP() said, else the test's name."""
    output = case.findtext("system-out") or ""
    said = re.search(r"\.cpp:\d+: Skipped\n(.+)", output)
    return said.group(1).strip() if said else case.get("name", "?")


if __name__ == "__main__":
    os.environ.setdefault("CTEST_OUTPUT_ON_FAILURE", "1")
    sys.exit(main())
