"""A small client for QMP, the protocol of QEMU's monitor and of the backend's control socket."""

import errno
import json
import socket
import time


class QmpError(Exception):
    """The other side refused a command."""


class Qmp:
    """A connection, past the greeting. Events are kept until somebody waits for them."""

    def __init__(self, path, timeout=10, alive=lambda: None):
        """Connects to the socket at `path` as soon as it is there; `alive` raises when it never will be."""
        self._buffer = b""
        self._events = []
        self._socket = connect(path, timeout, alive)
        self._socket.settimeout(timeout)
        try:
            self._receive()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self):
        self._socket.close()

    def execute(self, command, **arguments):
        """What `command` returns. Python's `bytes_per_second` is the protocol's `bytes-per-second`."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            self._events.append(answer)

    def wait_event(self, name, timeout=10, **data):
        """The data of the next event `name` whose data has at least these values. Earlier events are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            while self._events:
                event = self._events.pop(0)
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event.get("data", {})
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                self._events.append(self._receive())
            except TimeoutError:
                raise TimeoutError(f"no event {name} {data or ''} within {timeout} s") from None
            finally:
                self._socket.settimeout(timeout)

    def _receive(self):
        while b"\n" not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the monitor closed the connection")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)


def connect(path, timeout=10, alive=lambda: None):
    """A stream to the Unix socket `path`, which may take a moment to appear."""
    deadline = time.monotonic() + timeout
    stream = socket.socket(socket.AF_UNIX)
    while stream.connect_ex(str(path)) in (errno.ENOENT, errno.ECONNREFUSED):
        alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {path} after {timeout} s")
        time.sleep(0.02)
    stream.getpeername() # raises if it was another error
    return stream
