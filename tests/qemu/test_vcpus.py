"""QEMU brings one request queue per vCPU when nobody says otherwise."""

import unittest

from case import Lab
from workload import Workload


class Vcpus(unittest.TestCase):
    """All the queues that QEMU brings are used, and are enough."""

    def check(self, vcpus):
        lab = Lab(f"{type(self).__name__}{vcpus}", vcpus=vcpus)
        self.addCleanup(lab.close)
        self.assertEqual(lab.guest.run("nproc"), str(vcpus))
        self.assertEqual(len(lab.guest.run("ls /sys/block/sda/mq").split()), vcpus)
        for vcpu in range(vcpus):
            read = f"dd if=/dev/sda of=/dev/null iflag=direct bs=64k count=4 skip={vcpu}"
            lab.guest.run(f"taskset {1 << vcpu:x} {read}")
        Workload(lab.guest, seconds=3).finish()

    def test_one_vcpu_with_qemus_default_queue_count(self):
        self.check(1)

    def test_two_vcpus_with_qemus_default_queue_count(self):
        self.check(2)

    def test_four_vcpus_with_qemus_default_queue_count(self):
        self.check(4)
