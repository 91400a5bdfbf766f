"""What an array passes of libiscsi's tests on one path, it passes through us over several."""

import unittest

import conformance
from arrays import LioArray, TgtdArray
from scene import SG, Scene

from runner import long

# SPC-2's reservations, which are refused.
REFUSED = ("Reserve6",)


class Conformance(unittest.TestCase):
    """iscsi-test-cu in a guest, beside iscsi-test-cu on the array itself."""

    def compare(self, array, paths, tests):
        with Scene(self.id().rsplit(".", 1)[-1], array, nodes=1, paths=paths) as scene:
            reference, ours = {}, {}
            for some in tests:
                reference |= conformance.direct(scene.array.url(), some, 600)
                ours |= conformance.in_guest(scene.nodes[0].guest, SG, some, 900)
            print(f"\n    {scene.array.name}: {conformance.count(reference)}; through us over {paths} paths: "
                  f"{conformance.count(ours)}")
            for found in (reference, ours):
                self.assertGreater(len(found), 10, "the tests did not run")
            lost = conformance.lost(reference, ours)
            self.assertEqual([test for test in lost if not test.startswith(REFUSED)], [])

    @long
    def test_all_on_tgtd_over_two_paths(self):
        self.compare(TgtdArray, 2, ["SCSI"])

    @long
    def test_all_on_tgtd_over_four_paths(self):
        self.compare(TgtdArray, 4, ["SCSI"])

    @long
    def test_all_on_lio_over_two_paths(self):
        self.compare(LioArray, 2, ["SCSI"])

    @long
    def test_all_on_lio_over_four_paths(self):
        self.compare(LioArray, 4, ["SCSI"])
