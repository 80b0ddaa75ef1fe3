"""What all test scripts end with: their counts, also added to a file (scripts/test_all.sh sums them up)."""
import unittest


def add(file, passed, failed, skipped):
    """`file`: None, where nobody sums up."""
    if file:
        with open(file, "a") as out:
            out.write(f"{passed} {failed} {skipped}\n")


def run_case(case, name, only, totals):
    """Runs a unittest.TestCase, or those of its tests whose names hold `only`; the exit status."""
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{only}*"] if only else None
    result = unittest.TextTestRunner(verbosity=2).run(loader.loadTestsFromTestCase(case))
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    return tell(name, result.testsRun - failed - skipped, failed, skipped, totals)


def tell(name, passed, failed, skipped, totals):
    print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped")
    add(totals, passed, failed, skipped)
    return 1 if failed else 0
