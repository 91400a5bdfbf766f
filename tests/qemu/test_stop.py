"""QEMU resets the guest, unplugs the disk and quits while no path leads to it: its monitor never hangs for that."""

import time

from case import Lab, LabCase
from workload import DISK, Workload

SLOT = ["-device", "pcie-root-port,id=slot1,chassis=1"]
PROMPT = 3 # seconds that the monitor may take for anything; stop_deadline is 5


class PluggedLab(Lab):
    """The disk is in a slot from which it can be taken."""

    def _disk(self, boot):
        chardev, device = super()._disk(boot)[1::2]
        return [*SLOT, "-chardev", chardev, "-device", f"{device},bus=slot1"]


class Stopped(LabCase):
    """All with a load under way and every path lost."""

    @classmethod
    def new_lab(cls):
        return PluggedLab(cls.__name__)

    def test_guest_reset_while_every_path_is_lost(self):
        self.lose_every_path_under_load()
        self.vm.qmp.execute("system_reset")
        self.assert_monitor_is_prompt()
        self.regain_every_path()
        self.guest.wait_ready()
        Workload(self.guest, seconds=3).finish()

    def test_disk_unplugged_while_every_path_is_lost_and_plugged_in_again(self):
        self.lose_every_path_under_load()
        self.vm.qmp.execute("device_del", id="scsi")
        self.assert_monitor_is_prompt()
        # The guest lets go of the disk when what it has under way there has ended.
        self.regain_every_path()
        self.vm.qmp.wait_event("DEVICE_DELETED", 60, device="scsi")
        self.vm.qmp.execute("device_add", driver="vhost-user-scsi-pci", id="scsi", chardev="lun", bus="slot1")
        name = DISK.removeprefix("/dev/")
        self.wait_until(lambda: self.guest.run(f"test -e /sys/block/{name} && echo yes || echo no") == "yes",
                        "the guest has the disk again")
        Workload(self.guest, seconds=3).finish()

    def test_z_quit_while_every_path_is_lost(self):
        """The last one: nothing is left of the machine."""
        self.lose_every_path_under_load()
        begin = time.monotonic()
        self.vm.qmp.execute("quit")
        self.assertEqual(self.vm.process.wait(PROMPT + 2), 0)
        self.assertLess(time.monotonic() - begin, PROMPT)
        self.regain_every_path()
        type(self).lab.close()
        type(self).lab = None

    def lose_every_path_under_load(self):
        self.guest.start(f"fio --name=load --filename={DISK} --direct=1 --rw=randrw --bs=4096 --iodepth=8 --ioengine=libaio"
                         " --time_based --runtime=60 --rate_iops=300")
        self.wait_until(lambda: self.backend.control.execute("query-stats")["lun"]["writes"] > 100, "fio is at work")
        self.paths = self.backend.path_names()
        for path in self.paths:
            self.backend.cut(path)
        for path in self.paths:
            self.backend.wait_path_state(path, "failed")
        self.wait_until(lambda: self.backend.control.execute("query-lun")["queued"] > 0, "commands wait for a path")

    def regain_every_path(self):
        for path in self.paths:
            self.backend.mend(path)
        for path in self.paths:
            self.backend.wait_path_state(path, "up")

    def assert_monitor_is_prompt(self):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            begin = time.monotonic()
            self.vm.qmp.execute("query-status")
            self.assertLess(time.monotonic() - begin, PROMPT, "the monitor hung")
            time.sleep(0.05)
