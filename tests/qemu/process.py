"""Child processes that do not outlive us, however we end."""

import signal
import subprocess
import sys


class ProcessEnded(Exception):
    """A process that should be running is not."""


class Process:
    """One running program, its output in a log file."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "ab") as output:
            # setpriv becomes the program; the kernel kills it when we are gone, even if we are killed ourselves.
            # In a session of its own, Ctrl-C on the terminal is for us alone, and we end it in our own order.
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        self._name = command[0]

    def check(self):
        """Raises if the process has ended, with what it said last."""
        if self._child.poll() is not None:
            raise ProcessEnded(f"{self._name} ended with {self._child.returncode}; its last words:\n{tail(self.log)}")

    def has_ended(self):
        """True once the process has ended by itself."""
        return self._child.poll() is not None

    @property
    def pid(self):
        return self._child.pid

    def wait(self, timeout):
        """The exit code, once the process has ended by itself."""
        return self._child.wait(timeout)

    def stop(self, patience=15):
        """Asks the process to end, kills it if it does not; the exit code."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._child.returncode

    def kill(self):
        """Ends the process without asking."""
        self._child.kill()
        self._child.wait()


def tail(path, lines=25):
    """The last lines of a log."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])
    except FileNotFoundError:
        return ""


def exit_on_sigterm():
    """Makes SIGTERM unwind the stack as Ctrl-C does, so that every `with` block ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
