"""Shell scripts in the guest, run from here. The other end, and the protocol, is images/guest/agent."""

import base64
import contextlib
import itertools
import socket
import threading

from qmp import connect


class GuestError(Exception):
    """A script failed, took too long, or the guest went away under it."""


class Script:
    """One shell script that runs, or ran, in the guest."""

    def __init__(self, text, changed, on_line):
        self.text = text
        self.lines = []
        self.code = None
        self.lost = False
        self._changed = changed
        self._on_line = on_line

    def wait(self, timeout=30, check=True):
        """What the script printed, once it has ended; an error if it failed, unless `check` says otherwise."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self.code is not None or self.lost, timeout)
        if self.lost:
            raise GuestError(f"the guest went away while it ran: {self.text}")
        if not ended:
            raise GuestError(f"still running after {timeout} s: {self.text}\n{self.output}")
        if check and self.code != 0:
            raise GuestError(f"exit code {self.code}: {self.text}\n{self.output}")
        return self.output

    @property
    def ended(self):
        return self.code is not None or self.lost

    @property
    def output(self):
        return "\n".join(self.lines)

    def _take(self, line):
        self.lines.append(line)
        if self._on_line:
            self._on_line(line)


class Guest:
    """A guest's agent. One thread reads what it says; `_changed` guards everything that thread touches."""

    def __init__(self, commands, output, alive):
        """Connects to the sockets of the agent's two ports; the guest itself may still be booting."""
        self._changed = threading.Condition()
        self._next = None
        self._boot = None
        self._seen_boot = None
        self._gone = False
        self._scripts = {}
        self._numbers = itertools.count(1)
        self._commands = connect(commands, alive=alive)
        self._output = connect(output, alive=alive)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self):
        for stream in (self._commands, self._output):
            stream.shutdown(socket.SHUT_RDWR) # wakes the reader, as closing would not
            stream.close()
        self._reader.join()

    def follow(self, commands, output, alive):
        """Connects to the sockets of another QEMU, to which the guest moves: they are used when this one has ended."""
        streams = connect(commands, alive=alive), connect(output, alive=alive)
        with self._changed:
            self._next = streams

    def wait_moved(self, timeout=30):
        """Returns when what `follow` has connected is used: the QEMU that the guest has left must have ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._next or self._gone, timeout) or self._gone:
                raise GuestError("the guest is lost on its way")

    def stay(self):
        """The guest did not move."""
        with self._changed:
            streams, self._next = self._next, None
        for stream in streams or ():
            stream.close()

    def wait_ready(self, timeout=120):
        """Waits until the guest is up: after the start, and once more after each reboot."""
        with self._changed:
            self._changed.wait_for(lambda: self._boot != self._seen_boot or self._gone, timeout)
            if self._gone or self._boot == self._seen_boot:
                raise GuestError("the guest is gone" if self._gone else f"the guest is not up after {timeout} s")
            self._seen_boot = self._boot

    def run(self, text, timeout=30, check=True):
        """Runs a script to its end; what it printed."""
        return self.start(text).wait(timeout, check)

    def start(self, text, on_line=None):
        """Starts a script and goes on; `on_line` gets each line that it prints, in the reader's thread."""
        script = Script(text, self._changed, on_line)
        with self._changed:
            number = str(next(self._numbers))
            self._scripts[number] = script
            commands = self._commands
        encoded = base64.b64encode(text.encode()).decode()
        commands.sendall(f"{number} {encoded}\n".encode())
        return script

    def _read(self):
        try:
            for line in self._lines():
                with self._changed:
                    self._take(*line.split(" ", 2))
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._gone = True
                self._lose_scripts()
                self._changed.notify_all()

    def _lines(self):
        """What the agent says, until either side closes and the guest has not moved."""
        rest = b""
        while True:
            with contextlib.suppress(OSError, ValueError):
                while data := self._output.recv(65536):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
            with self._changed:
                if not self._next:
                    return
                (self._commands, self._output), self._next = self._next, None
                self._changed.notify_all()

    def _take(self, word, number="", rest=""):
        if word == "ready":
            self._boot = number
            self._lose_scripts()
        elif word == "out" and number in self._scripts:
            self._scripts[number]._take(rest)
        elif word == "exit" and number in self._scripts:
            self._scripts.pop(number).code = int(rest)

    def _lose_scripts(self):
        for script in self._scripts.values():
            script.lost = True
        self._scripts.clear()
