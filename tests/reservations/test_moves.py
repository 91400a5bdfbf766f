"""A Linux guest moves between two backends on one array, and what it has reserved moves with it."""

import sys

from arrays import LioArray
from scene import SG

from case import DISK_SIZE
from iscsi import Tgtd
from runner import long
from test_iscsi import needs_tgtd
import test_migration # as a module: its tests are tests/qemu's

MOVES = 5 if "--all" in sys.argv[1:] else 1
KEY = "0xa1"
WRITE_EXCLUSIVE = 1
WRITE_EXCLUSIVE_ALL = 7


class Lab(test_migration.MigrationLab):
    """The same with backends that keep what the guest reserves, each an initiator of its own."""

    def _configuration(self, directory):
        return (f'[backend]\nstate_dir = "{directory / "state"}"\n'
                f'[iscsi]\ninitiator_name = "iqn.2003-01.org.example:{directory.name.lower()}"\n')


class LioLab(Lab):
    """On LIO, a machine of its own without KVM: it takes its time."""

    def _configuration(self, directory):
        return super()._configuration(directory) + "[lun]\npath_timeout = 20.0\ncommand_deadline = 120.0\n"

    def _new_array(self):
        return LioArray(self.directory, mib=DISK_SIZE >> 20)


class Moves(test_migration.Moves):
    """Workload checks that no write of the guest's met its own reservation as another's."""

    def persist(self, *words):
        # The unit attentions of before are seen first.
        self.guest.run(f"sg_turs -n 8 {SG} >/dev/null 2>&1; true")
        return self.guest.run(f"sg_persist --no-inquiry {' '.join(words)} {SG}")

    def reserve(self, kind):
        self.persist("--out", "--register", f"--param-sark={KEY}")
        self.persist("--out", "--reserve", f"--param-rk={KEY}", f"--prout-type={kind}")

    def release(self, kind):
        self.persist("--out", "--release", f"--param-rk={KEY}", f"--prout-type={kind}")
        self.persist("--out", "--register", f"--param-rk={KEY}", "--param-sark=0")

    def announce(self):
        """As a migration's hook does it: the other backend is told what is to come."""
        exported = self.lab.backend.control.execute("reservation-export")
        self.lab.other.control.execute("reservation-import", **{"reservation": exported, "at-arrival": True})

    def holds(self):
        """The guest has its reservation where it is now."""
        standing = self.lab.backend.control.execute("query-reservation")
        self.assertEqual((standing["holder"], standing["key"]), ("guest", KEY), standing)

    def move_with_reservation(self, kind):
        self.reserve(kind)
        self.addCleanup(self.release, kind)
        self.move_under_load(MOVES, before=self.announce, after=self.holds)
        self.assertIn(KEY, self.persist("--in", "--read-keys"))
        standing = self.persist("--in", "--read-reservation")
        # Where all registrants hold it there is no one key to name.
        self.assertIn(KEY if kind != WRITE_EXCLUSIVE_ALL else "all registrants", standing)


@needs_tgtd
class MovesOnTgtd(Moves):
    """tgtd leaves the tasks of an old session running."""

    @classmethod
    def new_lab(cls):
        return Lab(cls.__name__)

    def test_guest_with_a_reservation_moves_on_tgtd(self):
        self.move_with_reservation(WRITE_EXCLUSIVE)


class MovesOnLio(Moves):
    """LIO ends the tasks of an old session first."""

    writes = 500
    seconds = 32

    @classmethod
    def new_lab(cls):
        return LioLab(cls.__name__)

    @long
    def test_guest_moves_on_lio(self):
        self.move_under_load(MOVES)

    @long
    def test_guest_with_a_write_exclusive_reservation_moves_on_lio(self):
        self.move_with_reservation(WRITE_EXCLUSIVE)

    @long
    def test_guest_with_a_reservation_of_all_registrants_moves_on_lio(self):
        self.move_with_reservation(WRITE_EXCLUSIVE_ALL)
