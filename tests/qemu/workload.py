"""fio on a file system on the guest's disk: it writes at a steady rate, and reads back and checks all it wrote."""

import itertools
import json
from dataclasses import dataclass

DISK = "/dev/sda"
BLOCK = 8192

# What the guest's kernel says when a disk lets it down.
COMPLAINTS = ("I/O error|EXT4-fs (error|warning)|EXT4-fs .*remount|JBD2|blocked for more than"
              "|sd .*(FAILED|Sense|rejecting|offline)|scsi .*(abort|reset|timing out)")

# Each run writes data of its own, so that what an earlier run left on the disk is not taken for it.
_seeds = itertools.count(1)


@dataclass
class Result:
    """What fio found."""
    writes: int
    reads: int
    longest_stall: float # seconds from submitting a request to its completion


class Workload:
    """One run of fio, in the background, on a new ext4."""

    def __init__(self, guest, seconds, writes_per_second=300, on_second=None):
        """Starts. `on_second` gets the number of requests that the disk completed, each second."""
        self.completed = 0
        self._on_second = on_second
        self._guest = guest
        guest.run(f"dmesg -c >/dev/null; mkfs.ext4 -q -F {DISK} && mount {DISK} /mnt", timeout=60)
        self._job = (f"fio --name=work --filename=/mnt/work --size={seconds * writes_per_second * BLOCK} --bs={BLOCK}"
                     f" --rw=randwrite --ioengine=libaio --direct=1 --iodepth=8 --randseed={next(_seeds)}"
                     " --verify=crc32c --verify_backlog=64 --verify_fatal=1")
        # The numbers come out of the kernel's memory: also when no request gets through to the disk.
        guest.start("while grep -q ' /mnt ' /proc/mounts; do cat /sys/block/sda/stat; sleep 1; done", self._count)
        self._fio = guest.start(f"{self._job} --rate_iops=,{writes_per_second} --output-format=json --output=/run/fio")

    @property
    def ended(self):
        return self._fio.ended

    def _count(self, line):
        fields = line.split()
        completed = int(fields[0]) + int(fields[4]) # reads and writes, see Documentation/block/stat.rst
        if self._on_second and self.completed:
            self._on_second(completed - self.completed)
        self.completed = completed

    def finish(self, timeout=120):
        """Waits for the end; an error if the guest got one, or if one byte is not what was written."""
        self._fio.wait(timeout)
        report = json.loads(self._guest.run("cat /run/fio"))["jobs"][0]
        # Once more, from the disk: after a new mount nothing is left in the guest's memory.
        self._guest.run(f"umount /mnt && mount {DISK} /mnt && {self._job} --verify_only && umount /mnt", timeout)
        self._guest.run(f"e2fsck -f -n {DISK}", timeout=60)
        complaints = self._guest.run(f"dmesg | grep -E '{COMPLAINTS}' || true")
        if complaints:
            raise AssertionError(f"the guest's kernel complained:\n{complaints}")
        return Result(report["write"]["total_ios"], report["read"]["total_ios"],
                      max(report[way]["lat_ns"]["max"] for way in ("read", "write")) / 1e9)
