"""A guest of libvirt's on our disks, as docs/libvirt.md has it; and the traps that it tells of."""

import os
import shutil
import tempfile
import threading
import unittest
from pathlib import Path
from xml.etree import ElementTree

from daemon import OUT, QEMU_USER, Libvirtd, VirshError
from domain import DISK_SIZE, Domain, DomainLab, libvirt_backend, libvirt_xml
from domain_xml import QEMU_NAMESPACE

from case import LabCase
from process import tail
from vm import IMAGES
from workload import Workload


class LibvirtGuest(LabCase):
    """A guest with two disks, on q35."""

    @classmethod
    def new_lab(cls):
        return DomainLab(cls.__name__, 2, "--queues", "1", "--windows")

    def backend_of(self, name):
        """Whose disk it is: the guest may find them in either order."""
        wwid = self.guest.run(f"cat /sys/block/{name}/device/wwid")
        return next(backend for backend in self.lab.backends if backend.control.execute("query-lun")["wwid"] == wwid)

    def test_both_disks_are_found_with_their_settings(self):
        self.assertIsNot(self.backend_of("sda"), self.backend_of("sdb"))
        for name in ("sda", "sdb"):
            sys = f"/sys/block/{name}"
            self.assertEqual(int(self.guest.run(f"blockdev --getsize64 /dev/{name}")), DISK_SIZE)
            self.assertEqual(len(self.guest.run(f"ls {sys}/mq").split()), 1, "queues")
            self.assertEqual(self.guest.run(f"cat {sys}/queue/max_hw_sectors_kb"), "1024")

    def test_path_cut_and_back_under_load(self):
        backend = self.backend_of("sda")
        path = backend.path_names()[0]
        backend.wait_path_state(path, "up")
        workload = Workload(self.guest, seconds=8, writes_per_second=200)
        # The disk counts from the guest's start: the first number is where this workload begins.
        self.wait_until(lambda: workload.completed, "the disk's counters have been read")
        backend.cut(path)
        backend.wait_path_state(path, "failed")
        before = workload.completed
        self.wait_until(lambda: workload.completed > before + 200, "the other path serves the guest")
        backend.mend(path)
        backend.wait_path_state(path, "up")
        workload.finish()

    def test_disk_that_libvirt_adds_finds_a_place_beside_ours(self):
        image = self.vm.daemon.directory / "further.img"
        with open(image, "wb") as file:
            file.truncate(16 << 20)
        self.vm.virsh("attach-disk", image, "vdb", "--live")
        self.guest.run("until [ -b /dev/vdb ]; do sleep 0.2; done; dd if=/dev/vdb of=/dev/null bs=64k count=4")
        self.vm.virsh("detach-disk", "vdb", "--live")

    def test_snapshot_with_memory_is_made_and_the_guest_goes_on(self):
        memory = self.vm.daemon.directory / "memory"
        self.vm.virsh("snapshot-create-as", "now", "--memspec", f"file={memory},snapshot=external",
                      "--diskspec", "vda,snapshot=no")
        self.vm.check()
        self.guest.run("dd if=/dev/sda of=/dev/null bs=64k count=4 iflag=direct")

    def test_migration_to_itself_is_refused_by_libvirt(self):
        with self.assertRaisesRegex(VirshError, "to the same host"):
            self.vm.virsh("migrate", "--live", self.vm.daemon.uri)
        self.vm.check()

    def test_suspended_guest_goes_on(self):
        self.vm.virsh("suspend")
        self.assertEqual(self.vm.virsh("domstate"), "paused")
        self.vm.virsh("resume")
        self.guest.run("dd if=/dev/sdb of=/dev/null bs=64k count=4 iflag=direct")


class LibvirtBoot(LabCase):
    """A guest whose only disk is ours, on i440fx."""

    @classmethod
    def new_lab(cls):
        return DomainLab(cls.__name__, 1, "--machine", "pc", "--boot", "1", image=IMAGES / "boot.img", kernel=False,
                         machine="pc")

    def test_system_boots_from_the_lun(self):
        self.assertIn("lab.boot=disk", self.guest.run("cat /proc/cmdline"))
        self.assertEqual(self.guest.run("findmnt -n -o SOURCE /"), "/dev/sda1")
        self.assertEqual(len(self.guest.run("ls /sys/block/sda/mq").split()), 2, "a queue for each vCPU")
        self.vm.virsh("destroy")
        self.wait_until(lambda: not self.backend.control.execute("query-lun")["connected"], "the disk is free")


class LibvirtTraps(unittest.TestCase):
    """What goes wrong, and with which words: machines that need no system."""

    def backend(self, **options):
        directory = OUT / self.id().rsplit(".", 1)[-1]
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        backend = libvirt_backend(directory, "disk0", **options)
        self.addCleanup(backend.close)
        return backend

    def domain(self, ours, **options):
        domain = Domain("traps", ours, **options)
        self.addCleanup(domain.close)
        return domain

    def wait_until(self, condition, what):
        LabCase.wait_until(self, condition, what, timeout=60)

    def test_start_waits_until_qemu_may_open_the_socket(self):
        backend = self.backend(access="")
        domain = self.domain(libvirt_xml("--socket-path", backend.socket))
        started = []
        start = threading.Thread(target=lambda: started.append(domain.virsh("start", timeout=120)))
        start.start()
        self.addCleanup(start.join)
        self.wait_until(lambda: "Permission denied" in tail(domain.log), "QEMU says why")
        self.assertEqual(domain.virsh("domstate"), "paused")
        shutil.chown(backend.socket, group=QEMU_USER)
        os.chmod(backend.socket, 0o660)
        self.wait_until(lambda: started, "the start goes on")
        domain.check()
        self.assertTrue(backend.control.execute("query-lun")["connected"])

    def test_plain_device_takes_a_slot_of_libvirts(self):
        backend = self.backend()
        ours = libvirt_xml("--socket-path", backend.socket)
        device = ours.findall(f".//{{{QEMU_NAMESPACE}}}arg")[-1]
        device.set("value", "vhost-user-scsi-pci,chardev=mpath-lun-socket")
        with self.assertRaisesRegex(VirshError, "PCI: slot 1 function 0 not available for pcie-root-port"):
            self.domain(ours).start()

    def test_memory_that_is_not_shared_ends_each_connection(self):
        backend = self.backend()
        ours = libvirt_xml("--socket-path", backend.socket, "--boot", "1")
        ours.remove(ours.find("memoryBacking"))
        self.domain(ours).start()
        # The firmware is the first to use the disk.
        self.wait_until(lambda: "are not in guest memory" in tail(backend.log), "the backend says why")

    def test_boot_number_is_for_one_disk(self):
        backend = self.backend()
        ours = libvirt_xml("--socket-path", backend.socket, "--boot", "1")
        # Without a word on booting, libvirt gives 1 to the first disk of its own.
        domain = self.domain(ours, kernel=Libvirtd.get().directory)
        with self.assertRaisesRegex(VirshError, "The bootindex 1 has already been used"):
            domain.start()

    def test_paths_with_odd_letters_get_through(self):
        with tempfile.TemporaryDirectory(prefix="odd,<&'> ") as place:
            os.chmod(place, 0o711)
            backend = self.backend()
            odd = Path(place, "lun.sock")
            odd.symlink_to(backend.socket)
            domain = self.domain(libvirt_xml("--socket-path", str(odd)))
            domain.start()
            self.assertTrue(backend.control.execute("query-lun")["connected"])
            self.assertIn("&amp;", domain.virsh("dumpxml"))
            ElementTree.fromstring(domain.virsh("dumpxml"))
