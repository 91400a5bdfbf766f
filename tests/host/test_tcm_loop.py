"""LIO as two hosts of the kernel (tcm_loop): a transport that goes offline, nexus loss, port groups that change."""

import time

from hostcase import HostCase
from machine import Load


class TcmLoop(HostCase):
    """One logical unit on two loopback hosts, each in a target port group of its own."""

    def setUp(self):
        super().setUp()
        self.machine.run("lio_disk disk 64; loop_target disk", timeout=120)
        self.addCleanup(self.machine.run, "remove_loop disk", timeout=120)
        self.names = self.machine.run("loop_nodes").split()
        self.assertEqual(len(self.names), 2)
        self.start_backend(*self.names)
        self.addCleanup(self.machine.stop_backend)
        self.load = Load(self.machine, "--socket /run/lun.sock")
        self.addCleanup(self.load.close)
        time.sleep(1)

    def access_states(self):
        return {name: path["access-state"] for name, path in self.paths().items()}

    def end(self):
        self.assert_clean(self.load.stop())

    def test_transport_offline_and_nexus_loss_are_not_seen_by_the_guest(self):
        self.machine.run("loop_transport 1 offline")
        self.wait_state(self.names[0], "failed")
        time.sleep(1)
        # Back, its first answer is I_T NEXUS LOSS OCCURRED.
        self.machine.run("loop_transport 1 online")
        self.wait_state(self.names[0], "up")
        time.sleep(1)
        self.end()

    def test_port_group_that_is_unavailable_is_not_seen_by_the_guest(self):
        first, other = self.names[:2]
        self.assertEqual(self.access_states(), {first: "active/optimized", other: "active/optimized"})
        self.machine.run("alua disk 1 3")
        self.wait_until(lambda: self.access_states() == {first: "unavailable", other: "active/optimized"},
                        "the group is seen as unavailable")
        time.sleep(1)
        self.machine.run("alua disk 1 1")
        self.wait_until(lambda: self.access_states()[first] == "active/non-optimized", "it is non-optimized")
        self.machine.run("alua disk 1 0")
        self.wait_until(lambda: self.access_states()[first] == "active/optimized", "it is as it was")
        self.wait_state(first, "up")
        time.sleep(1)
        self.end()
