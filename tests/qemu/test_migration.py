"""A Linux guest moves from one QEMU to another, each with a backend of its own on the same disk of tgtd's."""

import itertools
import sys
import time

from backend import Backend
from case import LabCase
from iscsi import IscsiLab
from test_iscsi import needs_tgtd
from vm import Vm, vhost_user_disk

ROUNDS = 20 if "--all" in sys.argv[1:] else 1
# Longer than the deadline of a stop, by what a busy machine adds.
DOWNTIME_MAX = 8

# A file that nobody changes. Read into the page cache while the guest moves, it lies in pages that the backend has written
# and no processor: one that was not marked has its old content on the other side.
STILL = "/mnt/still"
STILL_MIB = 12
DIRT = "/run/dirt"


class MigrationLab(IscsiLab):
    """A guest, its backend, and a second backend on the same disk, over wires of its own."""

    def __init__(self, *arguments, **options):
        self.other = None
        self._numbers = itertools.count(1)
        super().__init__(*arguments, **options)
        directory = self.directory / "other"
        directory.mkdir()
        here = len(self.proxies)
        self.other = Backend(directory, *self.way_to_array(directory))
        self.wires = {self.backend.socket: self.proxies[:here], self.other.socket: self.proxies[here:]}

    def destination(self):
        """A machine that waits for the guest, on the other backend."""
        directory = self.directory / f"move-{next(self._numbers)}"
        directory.mkdir()
        return Vm(directory, vhost_user_disk(self.other.socket), moves_from=self.vm)

    def moved(self, destination):
        """The guest runs there now."""
        destination.take_guest(self.vm)
        self.vm = destination
        self.backend, self.other = self.other, self.backend

    def close(self):
        if self.other:
            self.other.close()
        super().close()


class Moves(LabCase):
    """Moves a guest from one backend to the other. Workload checks that the guest saw no error and lost nothing."""

    # Writes of fio's, shared among the moves: its file has at most 16 blocks for each.
    writes = 1000
    # Of fio's for each move.
    seconds = 16

    def migration(self):
        return self.vm.qmp.execute("query-migrate")

    def move(self, meanwhile=None):
        """The guest moves to the other backend; seconds for which it stood still. The script `meanwhile` runs in it when
        all of its memory has been copied once, and before it stops."""
        destination = self.lab.destination()
        try:
            if meanwhile:
                self.vm.qmp.execute("migrate-set-parameters", downtime_limit=1, max_bandwidth=32 << 20)
                # A guest that writes to its memory faster than that keeps QEMU from coming to the end.
                dirt = self.guest.start(f"while [ ! -e {DIRT}.stop ]; do"
                                        f" dd if=/dev/vda of={DIRT} bs=1M count=40 conv=notrunc 2>/dev/null; done; rm {DIRT}*")
            self.vm.qmp.execute("migrate", uri=f"unix:{destination.incoming}")
            if meanwhile:
                self.wait_until(lambda: self.migration().get("ram", {}).get("dirty-sync-count", 0) > 1, "it is all copied")
                self.guest.run(meanwhile, timeout=90)
                self.assertEqual(self.migration()["status"], "active", "it was too fast for the test")
                self.guest.run(f"touch {DIRT}.stop")
            self.vm.qmp.execute("migrate-set-parameters", downtime_limit=300, max_bandwidth=1 << 30)
            self.wait_until(lambda: self.migration()["status"] in ("completed", "failed"), "it has ended", timeout=90)
            state = self.migration()
            self.assertEqual(state["status"], "completed", state)
            self.wait_until(lambda: destination.qmp.execute("query-status")["status"] == "running", "it runs there")
        except BaseException:
            destination.close()
            self.guest.stay()
            raise
        self.lab.moved(destination)
        self.backend, self.vm, self.guest = self.lab.backend, self.lab.vm, self.lab.guest
        if meanwhile:
            dirt.wait()
        return state["downtime"] / 1000

    def move_under_load(self, rounds, before=lambda: None, after=lambda: None):
        """Moves the guest so many times while fio runs in it; `before` and `after` are called around each move."""
        workload = self.start_workload(seconds=4 + self.seconds * rounds, writes_per_second=self.writes // (5 + rounds))
        self.guest.run(f"dd if=/dev/urandom of={STILL} bs=1M count={STILL_MIB} oflag=direct 2>/dev/null", timeout=90)
        content = self.guest.run(f"md5sum {STILL}", timeout=90)
        downtimes = []
        for turn in range(rounds):
            self.assertFalse(workload.ended, f"fio ended before move {turn + 1}")
            before()
            downtimes.append(self.move(meanwhile=f"echo 1 >/proc/sys/vm/drop_caches; cat {STILL} >/dev/null"))
            self.assertEqual(self.guest.run(f"md5sum {STILL}", timeout=90), content, "what was read during the move")
            completed = workload.completed
            self.wait_until(lambda: workload.completed > completed + 50, "fio goes on there", timeout=90)
            after()
        result = workload.finish(timeout=60 + (self.seconds + 14) * rounds)
        longest = max(downtimes)
        print(f"(moved {rounds} times, longest downtime {longest:.2f} s, longest stall {result.longest_stall:.2f} s) ",
              end="")
        self.assertLess(longest, DOWNTIME_MAX)


@needs_tgtd
class Migration(Moves):
    """Between two backends on tgtd."""

    @classmethod
    def new_lab(cls):
        return MigrationLab(cls.__name__)

    def test_guest_moves_under_load(self):
        self.move_under_load(ROUNDS)

    def test_guest_moves_from_where_every_path_is_lost(self):
        workload = self.start_workload(seconds=8)
        self.cut_all()
        downtime = self.move()
        print(f"(downtime {downtime:.2f} s) ", end="")
        self.assertLess(downtime, DOWNTIME_MAX)
        workload.finish()
        self.mend_all()

    def test_move_that_is_cancelled_is_not_seen_by_the_guest(self):
        workload = self.start_workload(seconds=10)
        destination = self.lab.destination()
        with destination:
            # So slow that it does not come to its end.
            self.vm.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 20)
            self.vm.qmp.execute("migrate", uri=f"unix:{destination.incoming}")
            self.wait_until(lambda: self.migration()["status"] == "active", "it has begun")
            time.sleep(1)
            self.vm.qmp.execute("migrate_cancel")
            self.wait_until(lambda: self.migration()["status"] == "cancelled", "it is cancelled")
        self.goes_on_here(workload)

    def test_move_whose_destination_dies_is_not_seen_by_the_guest(self):
        workload = self.start_workload(seconds=10)
        destination = self.lab.destination()
        with destination:
            self.vm.qmp.execute("migrate-set-parameters", max_bandwidth=16 << 20)
            self.vm.qmp.execute("migrate", uri=f"unix:{destination.incoming}")
            self.wait_until(lambda: self.migration()["status"] == "active", "it has begun")
            time.sleep(1)
            destination.process.kill()
            self.wait_until(lambda: self.migration()["status"] == "failed", "it has failed")
        self.goes_on_here(workload)

    def goes_on_here(self, workload):
        self.guest.stay()
        self.vm.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 30)
        before = workload.completed
        self.wait_until(lambda: workload.completed > before + 300, "fio goes on here")
        workload.finish()

    def cut_all(self):
        for wire in self.lab.wires[self.backend.socket]:
            wire.cut()
        for path in self.backend.path_names():
            self.backend.wait_path_state(path, "failed")

    def mend_all(self):
        for wire in self.lab.proxies:
            wire.mend()
