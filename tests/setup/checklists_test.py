"""docs/SECURITY_CHECKLIST.md and docs/SERVE_CHECKS.md name tests; each of them must exist, and each rule must have one or
say why not.

Run: python3 tests/setup/checklists_test.py
"""
import re
import unittest
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
CODE = re.compile(r"`([^`]+)`")
LISTS = {"docs/SECURITY_CHECKLIST.md": (100, 40), "docs/SERVE_CHECKS.md": (100, 40)}  # names and rules, at least
GTEST = re.compile(r"^[A-Z]\w+\.[A-Z]\w+$")
REASON = re.compile(r"^(open|by construction|see )")


def rules(checklist):
    """(line number, rule, what holds it) of every row of a table."""
    for number, line in enumerate((TREE / checklist).read_text().splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)][1:-1]
        if len(cells) == 2 and cells[0] not in ("rule", "promise", "---"):
            yield number, cells[0], cells[1]


def named(text):
    return [word for word in CODE.findall(text) if GTEST.match(word) or word.startswith(("fuzz_", "test_")) or word.endswith(".spec.ts")]


def existing():
    found = set()
    for tree in ("src", "tests"):
        for file in (TREE / tree).rglob("*_test.cpp"):
            found.update(".".join(pair) for pair in re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", file.read_text(), re.M))
    for file in [*(TREE / "tests").rglob("*.py"), *(TREE / "scripts").glob("test_*.py")]:
        found.update(re.findall(r"^ *def (test_\w+)\(", file.read_text(), re.M))
    found.update(file.name for file in (TREE / "tests/web").glob("*.spec.ts"))
    targets = re.search(r"foreach\(target ([^)]*)\)", (TREE / "tests/CMakeLists.txt").read_text()).group(1)
    found.update("fuzz_" + target.split(":")[0] for target in targets.split())
    return found


class Checklists(unittest.TestCase):
    def test_every_test_that_is_named_exists(self):
        known = existing()
        for checklist, (names, _) in LISTS.items():
            with self.subTest(checklist=checklist):
                text = (TREE / checklist).read_text()
                self.assertGreater(len(named(text)), names)
                self.assertEqual([name for name in named(text) if name not in known], [])

    def test_every_rule_has_a_test_or_a_reason(self):
        for checklist, (_, least) in LISTS.items():
            rows = list(rules(checklist))
            self.assertGreater(len(rows), least)
            for number, rule, held in rows:
                with self.subTest(checklist=checklist, line=number, rule=rule):
                    self.assertTrue(named(held) or REASON.match(held), held)

    def test_fuzz_targets_have_their_source(self):
        for name in existing():
            if name.startswith("fuzz_"):
                self.assertTrue((TREE / f"tests/fuzz/{name}.cpp").is_file(), name)


if __name__ == "__main__":
    unittest.main()
