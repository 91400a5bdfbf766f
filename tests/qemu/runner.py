"""Runs a folder's tests, says how each one went, and counts."""

import argparse
import signal
import sys
import threading
import time
import unittest


# For a test that takes long. What is skipped is decided when the tests are read, which is before `run`.
long = unittest.skipUnless("--all" in sys.argv[1:], "long: tests/run --all runs it")


class Progress(unittest.TestResult):
    """Says which test runs, how it ended and how long it took; counts. A test that runs beside others is named when it
    has ended."""

    def __init__(self, beside_others=False):
        super().__init__()
        self.passed = 0
        self._beside_others = beside_others

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()
        name = test.id().rsplit(".", 1)[-1].removeprefix("test_").replace("_", " ")
        self._head = f"  {name} ... "
        if not self._beside_others:
            print(self._head, end="", flush=True)

    def _say(self, end):
        # In one piece, so that two lines are never mixed.
        print(f"{self._head}{end}\n" if self._beside_others else f"{end}\n", end="", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1
        self._say(f"ok ({time.monotonic() - self._started:.0f} s)")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._say(f"skipped: {reason}")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._say(f"FAILED\n{self.failures[-1][1]}")

    def addError(self, test, error):
        super().addError(test, error)
        self._say(f"FAILED\n{self.errors[-1][1]}")


def chosen(suite, words):
    """The tests of a suite whose names have one of the words in them."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, words)
        elif not words or any(word in test.id() for word in words):
            yield test


def run_lines(tests, line):
    """Runs the tests, one after the other those of which `line` says the same; the results."""
    lines = {}
    for test in tests:
        lines.setdefault(line(test), []).append(test)
    if len(lines) == 1:
        result = Progress()
        unittest.TestSuite(tests).run(result)
        return [result]
    results = [Progress(beside_others=True) for _ in lines]
    # Daemons: when we are ended, their tests end with the machines that are taken from under them.
    threads = [threading.Thread(target=unittest.TestSuite(tests).run, args=(result,), daemon=True)
               for tests, result in zip(lines.values(), results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def run(folder, needs, close=lambda: None, line=lambda test: None):
    """Runs the tests of `folder` that the command line chooses. `needs` are files and what makes them; `close` is called
    at the end, whatever comes. Tests of different `line`s run side by side. Ends the process."""
    arguments = argparse.ArgumentParser(prog=f"tests/{folder.name}", description=f"Runs the tests in tests/{folder.name}.")
    arguments.add_argument("--all", action="store_true", help="the long ones too")
    arguments.add_argument("word", nargs="*", help="run the tests whose names have one of these in them")
    options = arguments.parse_args()
    # As Ctrl-C does: unittest takes any other exception, SystemExit too, for the end of one test and goes on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for file, makes in needs.items():
        if not file.exists():
            sys.exit(f"no {file}: {makes} makes it")
    tests = list(chosen(unittest.defaultTestLoader.discover(str(folder)), options.word))
    if not tests:
        sys.exit(f"no test has {' or '.join(options.word)} in its name")
    try:
        results = run_lines(tests, line)
    except KeyboardInterrupt:
        sys.exit("ended before the tests were")
    finally:
        close()
    failed = sum(len(result.failures) + len(result.errors) for result in results)
    passed, skipped = sum(result.passed for result in results), sum(len(result.skipped) for result in results)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
