"""What happens to the LUN itself is seen by a Linux guest, which nobody has told to look."""

from case import DISK_SIZE, LabCase
from workload import DISK, Workload

REMOVAL = 30 # seconds for which a LUN is to be gone before the guest is told to remove it


class LinuxGuestHears(LabCase):
    """The array's own doing: a disk that grows, one that goes and comes back."""

    def test_disk_that_grows_is_seen_without_a_rescan(self):
        # A command fetches the unit attention; an idle guest sends none by itself.
        size = f"dd if={DISK} of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null; blockdev --getsize64 {DISK}"
        before = int(self.guest.run(size))
        with open(self.lab.image, "r+b") as image:
            image.truncate(before + DISK_SIZE)
        self.wait_until(lambda: int(self.guest.run(size)) == before + DISK_SIZE, "the guest sees the new size")
        # In the new part, too.
        self.guest.run(f"dd if=/dev/urandom of=/run/new bs=1M count=1 && dd if=/run/new of={DISK} bs=1M seek={before >> 20}"
                       f" oflag=direct && dd if={DISK} bs=1M skip={before >> 20} count=1 iflag=direct | cmp - /run/new")

    def test_disk_that_is_gone_is_removed_and_back_without_a_rescan(self):
        there = f"test -e /sys/block/{DISK.removeprefix('/dev/')} && echo yes || echo no"
        paths = self.backend.path_names()
        for path in paths:
            self.backend.control.execute("inject-fault", path=path, fault="sense", sense="5/25/00")
        self.wait_until(lambda: self.guest.run(there) == "no", "the guest has removed the disk", REMOVAL + 30)
        for path in paths:
            self.backend.mend(path)
        self.wait_until(lambda: self.guest.run(there) == "yes", "the guest has found it again")
        Workload(self.guest, seconds=3).finish()
