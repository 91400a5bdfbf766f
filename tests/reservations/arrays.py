"""Two arrays, each with disks that are all alike: tgtd, a process; LIO, a virtual machine with two portals."""

import queue
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" # git ignores it
sys.path.insert(0, str(HERE.parent / "qemu"))

from iscsi import TARGET, Tgtd, free_port # noqa: E402
from vm import IMAGES, QEMU # noqa: E402

DISK_MIB = 64


class TgtdArray:
    """A tgtd for each disk. Every connection to its portal is a nexus of its own."""

    name = "tgtd"

    def __init__(self, directory, disks=1):
        self._images = [Path(directory, f"disk{disk}.img") for disk in range(disks)]
        with ExitStack() as stack:
            self._tgtds = [stack.enter_context(closing(self._begin(directory, image))) for image in self._images]
            self._stack = stack.pop_all()

    @staticmethod
    def _begin(directory, path):
        with open(path, "wb") as image:
            image.truncate(DISK_MIB << 20)
        return Tgtd(directory, path)

    def url(self, port=None, portal=0, disk=0):
        """Where the disk is; through `port` of this host, where something is to stand in between."""
        return f"iscsi://127.0.0.1:{port or self._tgtds[disk].port}/{TARGET}/1"

    def portal_port(self, portal, disk=0):
        return self._tgtds[disk].port

    def close(self):
        self._stack.close()
        for image in self._images:
            image.unlink(missing_ok=True)


class BuiltInArray:
    """The backend's own array: its ports are paths, and nothing stands in between."""

    name = "the built-in array"

    def __init__(self, directory, disks=1):
        self._place = tempfile.TemporaryDirectory(prefix="array-")

    def address(self, port, disk=0):
        return f"emulated:{self._place.name}/disk{disk}.img?port={port + 1}&size={DISK_MIB}M"

    def close(self):
        self._place.cleanup()


class LioArray:
    """LIO with its disks behind two portals, in a machine of its own that is driven by its console. The third path and
    the fourth lead to another target of the same disks: LIO has unit attentions by port and initiator name instead of
    by nexus (SAM-5 5.14), so no two paths may share a port."""

    name = "LIO"
    _targets = [f"iqn.2003-01.org.example:{name}" for name in ("reservations", "others")]

    def __init__(self, directory, disks=1, mib=DISK_MIB):
        self._ports = [free_port(), free_port()]
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{3260 + at}" for at, port in enumerate(self._ports))
        self._log = open(Path(directory, "lio.log"), "wb")
        # Never KVM: some machines have it and it does not work, and the array need not be fast.
        self._machine = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults",
             "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-smp", "2", "-m", "768",
             "-kernel", IMAGES / "vmlinuz", "-initrd", IMAGES / "lio",
             # On a busy host the kernel does not see its timer tick in time, and gives up.
             "-append", "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check",
             "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
             "-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._wait("lio: ready", 120)
            names = [f"r{disk}" for disk in range(disks)]
            for disk, name in enumerate(names):
                self._run(disk, f"disk {name} {mib}")
            for number, target in enumerate(self._targets, disks):
                self._run(number, f"target {target} {' '.join(names)}")
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

    def url(self, port=None, portal=0, disk=0):
        return f"iscsi://127.0.0.1:{port or self._ports[portal % 2]}/{self._targets[portal // 2]}/{disk}"

    def portal_port(self, portal, disk=0):
        return self._ports[portal % 2]

    def close(self):
        self._machine.kill()
        self._machine.wait()
        self._log.close()
