"""A guest moves from one libvirtd to another, each as on a host of its own, with a backend of its own on one disk of tgtd's."""

import os
import shutil
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from daemon import OUT, Libvirtd
from domain import ACCESS, DISK_SIZE, Domain, libvirt_backend, libvirt_xml

from case import LabCase
from iscsi import Tgtd
from process import tail
from runner import long
from test_iscsi import needs_tgtd
from workload import Workload

MOVES = 4
HOSTS = (("one.example", "6c2f9f0e-8a55-4a2e-9d6b-1f0d5f1e0001"), ("two.example", "6c2f9f0e-8a55-4a2e-9d6b-1f0d5f1e0002"))
# Both backends are of one machine: to the array they are two.
INITIATOR = '[iscsi]\ninitiator_name = "iqn.2003-01.org.example:{}"\n'


class Host:
    """A libvirtd and a backend. On every host the socket, and the guest's channels, are found at the same place."""

    def __init__(self, stack, lab, number):
        name = HOSTS[number][0]
        paths = [lab.tgtd.url(lab.tgtd.port, 0)]
        self.backend = libvirt_backend(lab.directory, f"backend{number}", ACCESS + INITIATOR.format(number), paths=paths)
        stack.callback(self.backend.close)
        self.channels = stack.enter_context(tempfile.TemporaryDirectory(prefix="vm-"))
        os.chmod(self.channels, 0o777)
        self.daemon = stack.enter_context(closing(Libvirtd(name, HOSTS[number])))

    def looks_like(self, first):
        for mine, place in ((os.path.dirname(self.backend.socket), os.path.dirname(first.backend.socket)),
                            (self.channels, first.channels)):
            self.daemon.put(mine, place)


class MovingLab:
    """A guest on the first host."""

    def __init__(self, name):
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._stack = ExitStack()
        self.hosts, self.vm = [], None
        try:
            image = self.directory / "disk.img"
            with open(image, "wb") as file:
                file.truncate(DISK_SIZE)
            self._stack.callback(image.unlink)
            self.tgtd = self._stack.enter_context(closing(Tgtd(self.directory, image)))
            self.wire = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wire-"))
            os.chmod(self.wire, 0o777)
            for number in range(2):
                self.hosts.append(Host(self._stack, self, number))
            here, there = self.hosts
            there.looks_like(here)
            xml = libvirt_xml("--socket-path", here.backend.socket)
            self.vm = Domain("moves", xml, here.daemon, channels=here.channels, kernel=here.daemon.directory)
            self.vm.start(here.channels)
            self.guest.wait_ready()
        except BaseException:
            self.show_logs()
            self.close()
            raise

    @property
    def backend(self):
        return self.hosts[0].backend

    @property
    def guest(self):
        return self.vm.guest

    def move(self):
        """By `virsh migrate`, as an admin of both hosts."""
        here, there = self.hosts
        wire = f"unix://{self.wire}/migration"
        moving = threading.Thread(target=self._migrate, args=(there.daemon.uri, wire))
        self._error = None
        moving.start()
        self.guest.follow(f"{there.channels}/commands", f"{there.channels}/output", self._check)
        moving.join()
        self._check()
        self.guest.wait_moved()
        self.vm.daemon = there.daemon
        self.hosts.reverse()

    def _migrate(self, uri, wire):
        try:
            self.vm.virsh("migrate", "--live", uri, "--migrateuri", wire, timeout=120)
        except Exception as error: # pylint: disable=broad-exception-caught
            self._error = error

    def _check(self):
        if self._error:
            raise self._error

    def close(self):
        if self.vm:
            self.vm.close()
        self._stack.close()

    def show_logs(self):
        logs = [*self.directory.glob("*/*.log"), *(host.daemon.log for host in self.hosts)]
        if self.vm:
            logs = [Path(OUT, f"{self.vm.name}.console.log"), *(host.daemon.machine_log("moves") for host in self.hosts), *logs]
        for log in logs:
            print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)


@needs_tgtd
class LibvirtMoves(LabCase):
    """Workload checks that the guest saw no error and lost nothing."""

    @classmethod
    def new_lab(cls):
        return MovingLab(cls.__name__)

    @long
    def test_guest_moves_between_two_hosts_under_load(self):
        workload = Workload(self.guest, seconds=25 * MOVES, writes_per_second=80)
        self.wait_until(lambda: workload.completed, "the disk's counters have been read")
        for turn in range(MOVES):
            self.assertFalse(workload.ended, f"fio ended before move {turn + 1}")
            self.lab.move()
            before = workload.completed
            self.wait_until(lambda: workload.completed > before + 50, "fio goes on there")
        result = workload.finish(timeout=60 + 30 * MOVES)
        print(f"(moved {MOVES} times, longest stall {result.longest_stall:.2f} s) ", end="")
