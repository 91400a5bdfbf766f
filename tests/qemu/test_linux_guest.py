"""The main job, with a Linux guest: its disk survives what happens to paths, to the guest and to the backend."""

import time

from case import DISK_SIZE, LabCase
from runner import long
from workload import DISK, Workload


class LinuxGuest(LabCase):
    """One guest for all of these. Workload checks that it saw no error and lost nothing."""

    def test_disk_is_found_with_its_size_and_wwid(self):
        self.assertEqual(int(self.guest.run(f"blockdev --getsize64 {DISK}")), DISK_SIZE)
        lun = self.backend.control.execute("query-lun")
        self.assertEqual(self.guest.run("cat /sys/block/sda/device/wwid"), lun["wwid"])

    def test_path_disconnected_and_back_under_load(self):
        self.lose_and_regain(self.backend.path_names()[:1], "disconnect")

    def test_path_hanging_and_back_under_load(self):
        self.lose_and_regain(self.backend.path_names()[1:], "hang")

    def test_every_path_lost_for_a_minute_under_load(self):
        workload = self.start_workload(seconds=10)
        paths = self.backend.path_names()
        for path in paths:
            self.backend.cut(path)
        for path in paths:
            self.backend.wait_path_state(path, "failed")
        time.sleep(60)
        self.assertFalse(workload.ended, "fio ended without a path")
        for path in paths:
            self.backend.mend(path)
        result = workload.finish()
        self.assertGreater(result.longest_stall, 59)
        self.wait_paths_up()

    def test_guest_paused_while_every_path_is_lost_under_load(self):
        workload = self.start_workload(seconds=10)
        paths = self.backend.path_names()
        for path in paths:
            self.backend.cut(path)
        for path in paths:
            self.backend.wait_path_state(path, "failed")
        for _ in range(3):
            begin = time.monotonic()
            self.vm.qmp.execute("stop")
            self.assertLess(time.monotonic() - begin, 2, "the monitor waited for commands that have no path")
            self.vm.qmp.execute("cont")
        self.assertFalse(workload.ended, "fio ended without a path")
        for path in paths:
            self.backend.mend(path)
        workload.finish()
        self.wait_paths_up()

    @long
    def test_paths_lost_in_turn_for_minutes_under_load(self):
        workload = self.start_workload(seconds=180)
        faults = ("disconnect", "hang", "drop")
        turn = 0
        while not workload.ended:
            path = self.backend.path_names()[turn % 2]
            self.backend.cut(path, faults[turn % len(faults)])
            time.sleep(7)
            self.backend.mend(path)
            self.backend.wait_path_state(path, "up")
            turn += 1
        workload.finish()

    def test_guest_reboots_and_finds_its_data(self):
        self.guest.run(f"mkfs.ext4 -q -F {DISK} && mount {DISK} /mnt && dmesg >/mnt/kept && sync", timeout=60)
        before = self.guest.run("md5sum </mnt/kept; umount /mnt")
        self.guest.start("reboot -f")
        self.guest.wait_ready()
        self.assertEqual(self.guest.run(f"mount {DISK} /mnt && md5sum </mnt/kept; umount /mnt"), before)
        Workload(self.guest, seconds=3).finish()

    def test_backend_restarts_under_an_idle_guest(self):
        self.guest.run(f"mkfs.ext4 -q -F {DISK} && mount {DISK} /mnt && dmesg >/mnt/kept && sync", timeout=60)
        before = self.guest.run("md5sum </mnt/kept")
        self.assertEqual(self.backend.stop(), 0)
        self.backend.start()
        self.wait_until(lambda: self.backend.control.execute("query-lun")["connected"], "the guest is connected again")
        after = self.guest.run("echo 3 >/proc/sys/vm/drop_caches; md5sum </mnt/kept; umount /mnt")
        self.assertEqual(after, before)
        Workload(self.guest, seconds=3).finish()

    def lose_and_regain(self, paths, fault):
        workload = self.start_workload(seconds=15)
        for path in paths:
            self.backend.cut(path, fault)
        for path in paths:
            self.backend.wait_path_state(path, "failed", "shaky")
        before = workload.completed
        self.wait_until(lambda: workload.completed > before + 500, "the other path serves the guest")
        for path in paths:
            self.backend.mend(path)
        self.wait_paths_up()
        workload.finish()

    def start_workload(self, seconds):
        self.wait_paths_up()
        return super().start_workload(seconds)

    def wait_paths_up(self):
        for path in self.backend.path_names():
            self.backend.wait_path_state(path, "up")
