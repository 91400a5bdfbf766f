"""Runs a folder's tests, says how each one went, and counts."""

import argparse
import sys
import time
import unittest

from process import exit_on_sigterm


# For a test that takes long. What is skipped is decided when the tests are read, which is before `run`.
long = unittest.skipUnless("--all" in sys.argv[1:], "long: tests/run --all runs it")


class Progress(unittest.TestResult):
    """Says which test runs, how it ended and how long it took; counts."""

    def __init__(self):
        super().__init__()
        self.passed = 0

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()
        name = test.id().rsplit(".", 1)[-1].removeprefix("test_").replace("_", " ")
        print(f"  {name} ... ", end="", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1
        print(f"ok ({time.monotonic() - self._started:.0f} s)", flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"skipped: {reason}", flush=True)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        print(f"FAILED\n{self.failures[-1][1]}", flush=True)

    def addError(self, test, error):
        super().addError(test, error)
        print(f"FAILED\n{self.errors[-1][1]}", flush=True)


def chosen(suite, words):
    """The tests of a suite whose names have one of the words in them."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, words)
        elif not words or any(word in test.id() for word in words):
            yield test


def run(folder, needs, close=lambda: None):
    """Runs the tests of `folder` that the command line chooses. `needs` are files and what makes them; `close` is called
    at the end, whatever comes. Ends the process."""
    arguments = argparse.ArgumentParser(prog=f"tests/{folder.name}", description=f"Runs the tests in tests/{folder.name}.")
    arguments.add_argument("--all", action="store_true", help="the long ones too")
    arguments.add_argument("word", nargs="*", help="run the tests whose names have one of these in them")
    options = arguments.parse_args()
    exit_on_sigterm()
    for file, makes in needs.items():
        if not file.exists():
            sys.exit(f"no {file}: {makes} makes it")
    tests = list(chosen(unittest.defaultTestLoader.discover(str(folder)), options.word))
    if not tests:
        sys.exit(f"no test has {' or '.join(options.word)} in its name")
    result = Progress()
    try:
        unittest.TestSuite(tests).run(result)
    finally:
        close()
    failed = len(result.failures) + len(result.errors)
    print(f"{result.passed} passed, {failed} failed, {len(result.skipped)} skipped")
    sys.exit(1 if failed else 0)
