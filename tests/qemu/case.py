"""What the QEMU tests share: a guest on a backend on emulated ports, and its logs when a test fails."""

import shutil
import sys
import time
import unittest
from pathlib import Path

from backend import Backend, emulated_ports
from process import tail
from vm import GUEST, Vm, vhost_user_disk
from workload import Workload

OUT = Path(__file__).resolve().parent / "out" # git ignores it
DISK_SIZE = 256 << 20


class Lab:
    """A backend with two ports of one image, and a guest on it."""

    def __init__(self, name, vcpus=2, system=None):
        """Returns when the guest is up. With `system`, an image to copy, the guest boots from the backend's LUN."""
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.image = self.directory / "disk.img"
        self.backend = self.vm = None
        try:
            if system:
                shutil.copyfile(system, self.image)
            self.backend = Backend(self.directory, *self._storage(bool(system)))
            self.vm = Vm(self.directory, self._disk(bool(system)), vcpus, system=None if system else GUEST)
            self.guest.wait_ready()
        except BaseException:
            self.show_logs()
            self.close()
            raise

    def _storage(self, filled):
        """The backend's paths to the image, and after them its options. The image is there already if it is `filled`."""
        return [emulated_ports(self.image, None if filled else DISK_SIZE)]

    def _disk(self, boot):
        """What QEMU is told of the backend's LUN."""
        return vhost_user_disk(self.backend.socket, boot)

    @property
    def guest(self):
        return self.vm.guest

    def close(self):
        for part in (self.vm, self.backend):
            if part:
                part.close()
        self.image.unlink(missing_ok=True)

    def show_logs(self):
        # The guest's own words say most, and of a long output often only the beginning is kept.
        for log in sorted(self.directory.glob("*.log"), key=lambda log: (log.name != "console.log", log.name)):
            print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)


class LabCase(unittest.TestCase):
    """Tests that take turns on one lab. A test that fails takes it down, and the next one gets a new one."""

    lab = None

    @classmethod
    def new_lab(cls):
        return Lab(cls.__name__)

    def setUp(self):
        if type(self).lab is None:
            type(self).lab = self.new_lab()
        self.backend, self.vm, self.guest = self.lab.backend, self.lab.vm, self.lab.guest

    @classmethod
    def tearDownClass(cls):
        if cls.lab:
            cls.lab.close()
            cls.lab = None

    def run(self, result=None):
        bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > bad and self.lab:
            self.lab.show_logs()
            self.tearDownClass()
        return result

    def start_workload(self, seconds, **options):
        """A workload that runs: it has done its first few hundred requests."""
        workload = Workload(self.guest, seconds, **options)
        # The disk counts from the guest's start: the first number is where this workload begins.
        self.wait_until(lambda: workload.completed, "the disk's counters have been read")
        before = workload.completed
        self.wait_until(lambda: workload.completed > before + 500, "fio is at work", timeout=90)
        return workload

    def wait_until(self, condition, what, timeout=30):
        deadline = time.monotonic() + timeout
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what}: not within {timeout} s")
            time.sleep(0.1)
