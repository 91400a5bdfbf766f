"""Two arrays, each with disks that are all alike: tgtd, a process; LIO, a virtual machine with two portals."""

import queue
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" # git ignores it
sys.path.insert(0, str(HERE.parent / "qemu"))

from iscsi import TARGET, Tgtd, free_port # noqa: E402
from vm import IMAGES, QEMU # noqa: E402

DISK_MIB = 64


class TgtdArray:
    """tgtd with one disk. Every connection to its portal is a nexus of its own."""

    name = "tgtd"

    def __init__(self, directory):
        self._image = Path(directory, "disk.img")
        with open(self._image, "wb") as image:
            image.truncate(DISK_MIB << 20)
        self._tgtd = Tgtd(directory, self._image)

    def url(self, port=None, portal=0):
        """Where the disk is; through `port` of this host, where something is to stand in between."""
        return f"iscsi://127.0.0.1:{port or self._tgtd.port}/{TARGET}/1"

    def portal_port(self, portal):
        return self._tgtd.port

    def close(self):
        self._tgtd.close()
        self._image.unlink(missing_ok=True)


class BuiltInArray:
    """The backend's own array: its ports are paths, and nothing stands in between."""

    name = "the built-in array"

    def __init__(self, directory):
        self._place = tempfile.TemporaryDirectory(prefix="array-")

    def address(self, port):
        return f"emulated:{self._place.name}/disk.img?port={port + 1}&size={DISK_MIB}M"

    def close(self):
        self._place.cleanup()


class LioArray:
    """LIO with one disk behind two portals, in a machine of its own that is driven by its console."""

    name = "LIO"
    _target = "iqn.2003-01.org.example:reservations"

    def __init__(self, directory):
        self._ports = [free_port(), free_port()]
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{3260 + at}" for at, port in enumerate(self._ports))
        self._log = open(Path(directory, "lio.log"), "wb")
        # Never KVM: some machines have it and it does not work, and the array need not be fast.
        self._machine = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults",
             "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-smp", "2", "-m", "768",
             "-kernel", IMAGES / "vmlinuz", "-initrd", IMAGES / "lio",
             "-append", "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off",
             "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
             "-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._wait("lio: ready", 120)
            self._run(1, f"disk r {DISK_MIB}")
            self._run(2, f"target {self._target} r")
        except BaseException:
            self.close()
            raise

    def _read(self):
        for line in self._machine.stdout:
            self._log.write(line)
            self._log.flush()
            self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _wait(self, wanted, timeout):
        while (line := self._lines.get(timeout=timeout)) != wanted:
            if line is None or re.match(wanted.rsplit(" ", 1)[0] + r" \d+$", line):
                raise RuntimeError(f"the array says '{line}' where '{wanted}' is expected")

    def _run(self, number, command):
        self._machine.stdin.write(f"{number} {command}\n".encode())
        self._machine.stdin.flush()
        self._wait(f"lio: {number} 0", 30)

    def url(self, port=None, portal=0):
        return f"iscsi://127.0.0.1:{port or self._ports[portal]}/{self._target}/0"

    def portal_port(self, portal):
        return self._ports[portal % 2]

    def close(self):
        self._machine.kill()
        self._machine.wait()
        self._log.close()
