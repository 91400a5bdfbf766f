"""The backend is killed under a Linux guest's load, again and again, and another takes its place."""

import sys
import time

from case import LabCase
from iscsi import IscsiLab
from test_iscsi import needs_tgtd

PAUSE = 2 # seconds from one backend's start to its end
SECONDS = 60 if "--all" in sys.argv[1:] else 12


class BackendKilled(LabCase):
    """On the built-in array. Workload checks that the guest saw no error and lost nothing."""

    def test_backend_killed_every_two_seconds_under_load(self):
        workload = self.start_workload(seconds=SECONDS + 10)
        kills = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            before = workload.completed
            time.sleep(PAUSE)
            self.assertGreater(workload.completed, before, f"nothing was done after {kills} kills")
            self.backend.crash()
            kills += 1
        self.assertFalse(workload.ended, "fio ended before the last kill")
        result = workload.finish()
        print(f"({kills} kills, longest stall {result.longest_stall:.2f} s) ", end="")


@needs_tgtd
class BackendKilledOnIscsi(BackendKilled):
    """The same on two iSCSI paths to tgtd, which goes on with what the dead backend had sent."""

    @classmethod
    def new_lab(cls):
        return IscsiLab(cls.__name__)
