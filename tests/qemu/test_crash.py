"""The backend ends under a Linux guest's load, again and again, in one way or another, and another takes its place."""

import sys
import time

from case import LabCase
from iscsi import IscsiLab
from test_iscsi import needs_tgtd

PAUSE = 2 # seconds from one backend's start to its end
SECONDS = 60 if "--all" in sys.argv[1:] else 8


class BackendKilled(LabCase):
    """On the built-in array. Workload checks that the guest saw no error and lost nothing."""

    def test_backend_killed_every_two_seconds_under_load(self):
        self.again_and_again(self.backend.crash)

    def test_backend_restarted_every_two_seconds_under_load(self):
        self.again_and_again(self.restart)

    def test_backend_replaced_every_two_seconds_under_load(self):
        self.again_and_again(self.backend.hand_over)

    def restart(self):
        self.assertEqual(self.backend.stop(), 0)
        self.backend.start()

    def again_and_again(self, blow):
        workload = self.start_workload(seconds=SECONDS + 10)
        blows = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            before = workload.completed
            time.sleep(PAUSE)
            self.assertGreater(workload.completed, before, f"nothing was done after {blows} of them")
            blow()
            blows += 1
        self.assertFalse(workload.ended, "fio ended before the last one")
        result = workload.finish()
        print(f"({blows} times, longest stall {result.longest_stall:.2f} s) ", end="")


@needs_tgtd
class BackendKilledOnIscsi(BackendKilled):
    """The same on two iSCSI paths to tgtd, which goes on with what the dead backend had sent."""

    @classmethod
    def new_lab(cls):
        return IscsiLab(cls.__name__)
