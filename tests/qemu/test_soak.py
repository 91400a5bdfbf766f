"""Everything at once, for long: a guest's verified load, while a seed chooses what its paths, the backend and the guest
itself suffer, and in which order. Each step breaks none, one or all of the paths, then strikes a blow, then mends all.

    SOAK_SECONDS=600 SOAK_SEED=7 python3 -B tests/qemu soak
"""

import os
import random
import sys
import time
from collections import Counter

from case import Lab, LabCase
from iscsi import IscsiLab
from test_iscsi import needs_tgtd

SECONDS = int(os.environ.get("SOAK_SECONDS", 3600 if "--all" in sys.argv[1:] else 75)) # for each of the two labs
SEED = int(os.environ.get("SOAK_SEED", 0)) or random.SystemRandom().randrange(1, 1_000_000)
ROUND = 20 # seconds of load between two verifications of every block


class Soak(LabCase):
    """On the built-in array."""

    # What a port of the built-in array can do to a command, and the guest must not notice.
    FAULTS = ({"fault": "disconnect"}, {"fault": "drop"}, {"fault": "hang"}, {"fault": "drop", "probability": 0.05},
              {"fault": "delay", "milliseconds": 30}, {"fault": "rate", "bytes_per_second": 1 << 20},
              {"fault": "status", "status": 0x08, "probability": 0.3},
              {"fault": "status", "status": 0x28, "probability": 0.3},
              {"fault": "sense", "sense": "06/29/00", "probability": 0.1},
              {"fault": "sense", "sense": "0b/47/03", "probability": 0.1})

    @classmethod
    def new_lab(cls):
        return Lab(cls.__name__)

    def test_soak_random_blows_under_verified_load(self):
        self.random = random.Random(SEED)
        self.diary = open(self.lab.directory / "diary.log", "w", buffering=1, encoding="utf-8")
        self.addCleanup(self.diary.close)
        self.note(f"SOAK_SEED={SEED}")
        blows = (self.nothing, self.crash, self.crash_twice, self.restart, self.hand_over, self.pause_guest,
                 self.change_policy, self.disable_a_path, self.replace_a_path)
        struck, rounds, longest = Counter(), 0, 0.0
        self.started = time.monotonic()
        while rounds == 0 or time.monotonic() < self.started + SECONDS:
            workload = self.start_workload(ROUND)
            while not workload.ended:
                self.step(self.random.choice(blows), workload, struck)
            longest = max(longest, workload.finish().longest_stall)
            rounds += 1
        print(f"(seed {SEED}: {sum(struck.values())} steps, every block verified {rounds} times, "
              f"longest stall {longest:.1f} s) ", end="")
        self.assertGreater(len(struck), 3, f"hardly anything was done: {struck}")

    def step(self, blow, workload, struck):
        names = self.backend.path_names()
        broken = self.random.choice(([], [self.random.choice(names)], names))
        for name in broken:
            self.note(f"break {name}: {self.break_path(name)}")
        self.pause(0.0, 1.5)
        self.note(f"{blow.__name__} with {len(broken)} of {len(names)} paths broken")
        blow()
        struck[blow.__name__] += 1
        self.pause(0.0, 1.5)
        for name in names:
            self.mend_path(name)
        self.note("mended")
        before = workload.completed
        self.wait_until(lambda: workload.ended or workload.completed > before + 100, "the guest's load goes on", 60)

    def break_path(self, name):
        """Breaks it until it is mended; how."""
        fault = self.random.choice(self.FAULTS)
        self.backend.control.execute("inject-fault", path=name, **fault)
        return fault

    def mend_path(self, name):
        self.backend.mend(name)

    def nothing(self):
        pass

    def crash(self):
        self.backend.crash()

    def crash_twice(self):
        self.backend.crash()
        self.pause(0.0, 0.5)
        self.backend.crash()

    def restart(self):
        self.assertEqual(self.backend.stop(), 0)
        self.backend.start()

    def hand_over(self):
        self.assertTrue(self.backend.hand_over(), "the new one refuses")

    def pause_guest(self):
        begin = time.monotonic()
        self.vm.qmp.execute("stop")
        # stop_deadline, and what a loaded machine takes.
        self.assertLess(time.monotonic() - begin, 9, "QEMU's monitor hung while the rings stopped")
        self.pause(0.0, 0.3)
        self.vm.qmp.execute("cont")

    def change_policy(self):
        policies = ("service-time", "queue-depth", "round-robin", "numa")
        self.backend.control.execute("set-iopolicy", iopolicy=self.random.choice(policies))
        self.backend.control.execute("set-failback", failback=self.random.choice(("immediate", "manual", 1)))

    def disable_a_path(self):
        name = self.random.choice(self.backend.path_names())
        self.backend.control.execute("path-fail", name=name)
        self.pause(0.0, 1.0)
        self.backend.control.execute("path-reinstate", name=name)

    def replace_a_path(self):
        path = self.random.choice(self.backend.control.execute("query-paths"))
        self.backend.control.execute("path-remove", name=path["name"])
        self.wait_until(lambda: path["name"] not in self.backend.path_names(), "the path is removed")
        self.pause(0.0, 0.5)
        self.backend.control.execute("path-add", address=path["address"], name=path["name"])

    def pause(self, least, most):
        time.sleep(self.random.uniform(least, most))

    def note(self, what):
        self.diary.write(f"{time.strftime('%H:%M:%S')} {what}\n")


@needs_tgtd
class SoakOnIscsi(Soak):
    """The same on two iSCSI paths to tgtd."""

    @classmethod
    def new_lab(cls):
        return IscsiLab(cls.__name__)

    def break_path(self, name):
        proxy = self.proxy(name)
        kind = self.random.choice((proxy.cut, proxy.silence))
        kind()
        return kind.__name__

    def mend_path(self, name):
        self.proxy(name).mend()

    def proxy(self, name):
        """The wire of a path, by the port in its address."""
        address = next(path["address"] for path in self.backend.control.execute("query-paths") if path["name"] == name)
        return next(proxy for proxy in self.lab.proxies if f":{proxy.port}/" in address)

    def hand_over(self):
        # The new program refuses to take the place of one whose paths it cannot open, also where others keep the
        # machine so busy that none of them answers in time.
        for proxy in self.lab.proxies:
            proxy.mend()
        tries = 1
        while not self.backend.hand_over():
            self.note(f"refused {tries} times")
            tries += 1
            self.assertLessEqual(tries, 3, "the new one refuses again and again")
