"""A backend on four ports of two controllers of the built-in array, and a guest's load on it."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "qemu"))

from backend import PROGRAMS, Backend # noqa: E402
from iscsi import free_port # noqa: E402
from process import Process, tail # noqa: E402

OUT = HERE / "out" # git ignores it
LOAD = PROGRAMS / "examples" / "verified_load"
SIZE = 64 << 20
# Of two controllers: the first one's ports are active/optimized.
PATHS = {"ctl-a:1": "port=1&group=1&state=active/optimized", "ctl-a:2": "port=2&group=1&state=active/optimized",
         "ctl-b:1": "port=3&group=2&state=active/non-optimized", "ctl-b:2": "port=4&group=2&state=active/non-optimized"}
# What each port takes for a command, in milliseconds: an array's times, and a load that leaves the machine to others.
TAKES = 2


def wait_until(condition, what, timeout=30):
    """Returns what `condition` does, once that is true."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.2)
    return result


class Scene:
    """The backend, its metrics on a loopback port, and the load."""

    def __init__(self, name, policy="round-robin"):
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._place = tempfile.TemporaryDirectory(prefix="array-")
        self.image = Path(self._place.name, "disk.img")
        with open(self.image, "wb") as image:
            image.truncate(SIZE)
        self.metrics = f"127.0.0.1:{free_port()}"
        config = self.directory / "config.toml"
        paths = "".join(f'[[path]]\nname = "{path}"\naddress = "emulated:{self.image}?{options}"\n'
                        for path, options in PATHS.items())
        config.write_text(f'[lun]\niopolicy = "{policy}"\n[metrics]\nlisten = "{self.metrics}"\n{paths}',
                          encoding="utf-8")
        self.backend = self._load = None
        try:
            self.backend = Backend(self.directory, [], "--config", str(config))
            for path in PATHS:
                self.delay(path, TAKES)
            self._load = Process([str(LOAD), "--socket", self.backend.socket], self.directory / "load.log")
            wait_until(lambda: self.answered() > 100, "the load begins")
        except BaseException:
            self.show_logs()
            self.close()
            raise

    def delay(self, path, milliseconds, probability=1.0):
        self.backend.control.execute("inject-fault", path=path, fault="delay", milliseconds=milliseconds,
                                     probability=probability)

    def answered(self):
        lun = self.backend.control.execute("query-stats")["lun"]
        return lun["reads"] + lun["writes"]

    def close(self):
        for part in (self._load, self.backend):
            if part:
                part.stop() if part is self._load else part.close()
        self._place.cleanup()

    def show_logs(self):
        for log in sorted(self.directory.glob("*.log")):
            print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.show_logs()
        self.close()
