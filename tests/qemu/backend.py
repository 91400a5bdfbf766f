"""Our backend, as one process, with emulated ports as its paths."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from process import Process
from qmp import Qmp

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")) / "release"


def emulated_ports(image, size=None, count=2):
    """Addresses of ports of one emulated array. The first that is opened creates the image, if given its size."""
    return [f"emulated:{image}?port={port}" + (f"&size={size}" if size else "") for port in range(1, count + 1)]


class Backend:
    """The backend process and its control socket. It can be stopped and started again under a running guest."""

    def __init__(self, directory, paths, *options):
        self.log = Path(directory, "backend.log")
        self._sockets = tempfile.TemporaryDirectory(prefix="backend-") # short enough for a socket's name
        self.socket = os.path.join(self._sockets.name, "lun.sock")
        self.control_socket = os.path.join(self._sockets.name, "lun.ctl")
        self.command = [str(PROGRAMS / "vhost-user-scsi-mpath"), "--socket-path", self.socket,
                        "--control", self.control_socket]
        for path in paths:
            self.command += ["--path", path]
        self.command += options
        self._process = None
        self.control = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        """Starts the process; a guest may connect when this returns."""
        self._process = Process(self.command, self.log)
        self.control = Qmp(self.control_socket, alive=self._process.check)

    def stop(self):
        """Ends the process as an init system does; its exit code."""
        self.control.close()
        return self._process.stop()

    def crash(self):
        """Ends the process without a warning, and starts another."""
        self._process.kill()
        self.control.close()
        self.start()

    def hand_over(self):
        """Has another process take the place of this one; true unless that one refuses, for its paths do not answer,
        and this one goes on."""
        successor = Process([*self.command, "--takeover", self.control_socket], self.log)
        deadline = time.monotonic() + 30
        while not self._process.has_ended():
            if successor.has_ended() and not self._process.has_ended():
                return False
            if time.monotonic() > deadline:
                successor.stop()
                raise TimeoutError("the first one does not end")
            time.sleep(0.01)
        first, self._process = self._process, successor
        code = first.wait(0)
        if code:
            raise AssertionError(f"the first one ended with {code}")
        self.control.close()
        self.control = Qmp(self.control_socket, alive=self._process.check)
        return True

    def close(self):
        """Ends the process for good."""
        if self.control:
            self.control.close()
        if self._process:
            self._process.stop()
        self._sockets.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def path_names(self):
        return [path["name"] for path in self.control.execute("query-paths")]

    def path_state(self, name):
        return next(path["state"] for path in self.control.execute("query-paths") if path["name"] == name)

    def wait_path_state(self, name, *states, timeout=20):
        """Waits until a path is in one of these states."""
        deadline = time.monotonic() + timeout
        while (state := self.path_state(name)) not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"path {name} is {state}, not {' or '.join(states)}, after {timeout} s")
            time.sleep(0.1)

    def cut(self, name, fault="disconnect"):
        """Breaks a path until it is mended."""
        self.control.execute("inject-fault", path=name, fault=fault)

    def mend(self, name):
        self.control.execute("clear-faults", path=name)

    def mpathctl(self, *arguments):
        """What our control program prints about this backend."""
        command = [str(PROGRAMS / "mpathctl"), "-s", self.control_socket, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
                              check=True).stdout
