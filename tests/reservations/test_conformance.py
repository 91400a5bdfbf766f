"""What an array passes of libiscsi's tests on one path, it passes through us over several."""

import os
import threading
import unittest
from contextlib import contextmanager, nullcontext
from random import Random

import conformance
from arrays import BuiltInArray, LioArray, TgtdArray
from scene import SG, Scene

from runner import long

# SPC-2's reservations, which are refused.
REFUSED = ("Reserve6",)

# What fails on the built-in array by a fault of the test's own: it asks for the status of one block and expects another,
# where a physical block is more than one logical block.
WRONG = ("GetLBAStatus.UnmapSingle",)

# Persistent reservations.
FAMILIES = [f"SCSI.{family}" for family in (
    "PrinReadKeys", "PrinReportCapabilities", "PrinServiceactionRange",
    "ProutClear", "ProutPreempt", "ProutRegister", "ProutReserve")]


@contextmanager
def cut_again_and_again(node):
    """One path at a time is cut for a moment, chosen at random, and comes back before the next one."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"\n    cut as Random({seed}) says", end="", flush=True)
    random, over, cuts = Random(seed), threading.Event(), []

    def cut():
        while not over.wait(random.uniform(0.01, 0.2)):
            proxy = random.choice(node.proxies)
            proxy.cut()
            over.wait(random.uniform(0.01, 0.3))
            proxy.mend()
            node.backend.wait_path_state(f"127.0.0.1:{proxy.port}/1", "up")
            cuts.append(proxy)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        print(f", {len(cuts)} times", end="", flush=True)


class Conformance(unittest.TestCase):
    """iscsi-test-cu in a guest, beside iscsi-test-cu on the array itself."""

    def compare(self, array, paths, tests, rounds=0):
        """`rounds`: so often, while paths are cut; 0 for once, and nothing is cut."""
        with Scene(self.id().rsplit(".", 1)[-1], array, nodes=1, paths=paths) as scene:
            reference, ours = {}, {}
            # First: what fails on the array itself leaves registrations of sessions that are no more.
            with cut_again_and_again(scene.nodes[0]) if rounds else nullcontext():
                for some in tests * max(rounds, 1):
                    found = conformance.in_guest(scene.nodes[0].guest, SG, some, 900)
                    ours |= {test: verdict for test, verdict in found.items()
                             if ours.get(test) != conformance.FAILED}
            for some in tests:
                reference |= conformance.direct(scene.array.url(), some, 600)
            print(f"\n    {scene.array.name}: {conformance.count(reference)}; through us over {paths} paths: "
                  f"{conformance.count(ours)}")
            for found in (reference, ours):
                self.assertGreaterEqual(len(found), 5, "the tests did not run")
            lost = conformance.lost(reference, ours)
            self.assertEqual([test for test in lost if not test.startswith(REFUSED)], [])

    def test_families_on_tgtd_over_two_paths(self):
        self.compare(TgtdArray, 2, FAMILIES)

    @long
    def test_families_on_tgtd_while_a_path_is_cut_again_and_again(self):
        self.compare(TgtdArray, 3, FAMILIES, rounds=20)

    @long
    def test_all_on_tgtd_over_two_paths(self):
        self.compare(TgtdArray, 2, ["SCSI"])

    @long
    def test_all_on_tgtd_over_four_paths(self):
        self.compare(TgtdArray, 4, ["SCSI"])

    def none_fails(self, paths, tests):
        """Of the built-in array, which has no way beside us."""
        with Scene(self.id().rsplit(".", 1)[-1], BuiltInArray, nodes=1, paths=paths) as scene:
            ours = {}
            for some in tests:
                ours |= conformance.in_guest(scene.nodes[0].guest, SG, some, 900)
            print(f"\n    {scene.array.name} over {paths} paths: {conformance.count(ours)}")
            self.assertGreaterEqual(len(ours), 5, "the tests did not run")
            failed = [test for test, verdict in ours.items() if verdict == conformance.FAILED]
            self.assertEqual([test for test in failed if test not in WRONG], [])

    def test_families_on_the_built_in_array(self):
        for paths in (2, 4):
            self.none_fails(paths, FAMILIES)

    @long
    def test_all_on_the_built_in_array(self):
        for paths in (2, 4):
            self.none_fails(paths, ["SCSI"])

    @long
    def test_all_on_lio_over_two_paths(self):
        self.compare(LioArray, 2, ["SCSI"])

    @long
    def test_all_on_lio_over_four_paths(self):
        self.compare(LioArray, 4, ["SCSI"])
