"""A Linux guest on real storage: two iSCSI paths to one disk of tgtd's."""

import shutil
import unittest

import test_boot
from case import DISK_SIZE, LabCase
from iscsi import IscsiLab
from vm import IMAGES
from workload import DISK

needs_tgtd = unittest.skipUnless(shutil.which("tgtd", path="/usr/sbin:/usr/bin"), "no tgtd: tests/install installs it")


@needs_tgtd
class IscsiGuest(LabCase):
    """The guest's disk survives what happens to the network. Workload checks that it saw no error and lost nothing."""

    @classmethod
    def new_lab(cls):
        return IscsiLab(cls.__name__)

    def test_iscsi_disk_is_found_with_its_size_and_wwid(self):
        self.assertEqual(int(self.guest.run(f"blockdev --getsize64 {DISK}")), DISK_SIZE)
        lun = self.backend.control.execute("query-lun")
        self.assertEqual(self.guest.run("cat /sys/block/sda/device/wwid"), lun["wwid"])

    def test_iscsi_path_cut_and_restored_under_load(self):
        wire = self.lab.proxies[0]
        name = next(path["name"] for path in self.backend.control.execute("query-paths")
                    if f":{wire.port}/" in path["address"])
        self.backend.wait_path_state(name, "up")
        workload = self.start_workload(seconds=15)
        wire.cut()
        self.backend.wait_path_state(name, "failed")
        before = workload.completed
        self.wait_until(lambda: workload.completed > before + 500, "the other path serves the guest")
        wire.mend()
        self.backend.wait_path_state(name, "up")
        workload.finish()


@needs_tgtd
class IscsiBoot(test_boot.BiosBoot):
    """The same as from the built-in array."""

    @classmethod
    def new_lab(cls):
        return IscsiLab(cls.__name__, system=IMAGES / "boot.img")
