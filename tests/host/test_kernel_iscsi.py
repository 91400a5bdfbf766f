"""The kernel's own iSCSI initiator: its disks as our paths, on two portals of a target in the same machine."""

import time

from hostcase import HostCase
from machine import Load
from runner import long

TARGET = "iqn.2003-01.org.example:lio"


class KernelIscsi(HostCase):
    """Portals fail under verified I/O over the kernel's sessions."""

    line = "iscsi"

    # The kernel keeps a lost session's commands for so long, which here is for longer than any test.
    RECOVERY = 120

    def setUp(self):
        super().setUp()
        self.machine.run(f"""
            lio_disk disk 64; iscsi_target disk
            initiator node.session.timeo.replacement_timeout={self.RECOVERY} 'node.conn[0].timeo.noop_out_interval=1' \\
                'node.conn[0].timeo.noop_out_timeout=1'""", timeout=120)
        self.addCleanup(self.machine.run, "mend; logout; remove_target disk", timeout=120)
        self.disks = [self.machine.run(f"disk_of {portal}") for portal in (1, 2)]
        self.generic = self.machine.run(f"for disk in {' '.join(self.disks)}; do ls /sys/block/$disk/device/scsi_generic;"
                                        " done").split()

    def serve(self, *names):
        self.start_backend(*names)
        self.addCleanup(self.machine.stop_backend)
        self.start_load()

    def start_load(self, options=""):
        self.load = Load(self.machine, "--socket /run/lun.sock", options=options)
        self.addCleanup(self.load.close)
        time.sleep(2)

    def end(self):
        report = self.load.stop()
        self.assert_clean(report)
        return report

    def longest(self, report, kind):
        return max(phase[kind]["longest"] or 0 for phase in report["phases"])

    def lose_session(self, before="true", then="true"):
        """The first portal's session."""
        self.machine.run(f"""
            state=/sys/class/iscsi_session/$(session_of 1)/state
            {before}
            reset 1
            until [ $(cat $state) = FAILED ]; do sleep 0.1; done
            {then}""")

    def test_session_that_is_lost_blocks_its_path_before_any_command_waits(self):
        self.start_backend(*self.generic)
        self.addCleanup(self.machine.stop_backend)
        self.lose_session()
        self.wait_state(self.generic[0], "blocked", timeout=15)
        self.start_load()
        self.machine.run("mend")
        self.wait_state(self.generic[0], "up", timeout=60)
        time.sleep(1)
        self.end()

    def test_write_parked_in_a_blocked_device_lands_under_no_newer_data(self):
        # A backend that has not seen yet that the session is lost, as it is for a moment: it sends to a blocked device.
        self.start_backend(*self.generic, lun='iopolicy = "round-robin"', prefix="blinded 1")
        self.addCleanup(self.machine.stop_backend)
        self.start_load("--wait")
        # It stands still meanwhile, so that no command of its own is under way, which would tell of the loss.
        self.lose_session("kill -STOP $(cat /run/backend.pid); sleep 2",
                          f"{self.load.MARK}; sleep 1; kill -CONT $(cat /run/backend.pid)")
        parked = 12
        time.sleep(parked)
        self.machine.run("mend")
        # The session is made anew, and what was parked goes out.
        self.wait_state(self.generic[0], "up", timeout=60)
        time.sleep(2)
        report = self.end() # it has read everything back
        self.assertGreater(self.longest(report, "writes"), parked,
                           "a write was answered before the kernel had returned its first copy, or none was parked")
        self.assertLess(self.longest(report, "reads"), parked, "reads waited for the device")

    @long
    def test_portal_reset_is_not_seen_by_the_guest(self):
        self.serve(*self.generic)
        self.machine.run("reset 1 once")
        time.sleep(3)
        for name in self.generic:
            self.wait_state(name, "up", timeout=60)
        self.end()

    def test_kernel_disk_and_iscsi_path_serve_one_unit(self):
        names = [self.disks[0], f"iscsi://127.0.1.2/{TARGET}/0"]
        self.serve(*names)
        kernel, ours = self.paths()
        self.machine.control("fail", kernel)
        time.sleep(1)
        self.machine.control("reinstate", kernel)
        self.wait_state(kernel, "up")
        self.machine.control("fail", ours)
        time.sleep(1)
        self.machine.control("reinstate", ours)
        self.wait_state(ours, "up")
        self.end()

    @long
    def test_both_portals_silent_for_a_while_are_not_seen_by_the_guest(self):
        self.serve(*self.generic)
        self.machine.run("silence 1; silence 2")
        time.sleep(15)
        self.machine.run("mend")
        for name in self.generic:
            self.wait_state(name, "up", timeout=90)
        time.sleep(1)
        self.end()
