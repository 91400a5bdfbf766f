"""Two guests on two backends and one disk, as a failover cluster uses it: the one that is fenced writes nothing more."""

import threading
import unittest

from arrays import LioArray, TgtdArray
from scene import SG, Scene

from runner import long

GOOD, UNIT_ATTENTION, CONFLICT = 0, 6, 24 # exit codes of sg3-utils (sg3_utils(8))
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
BLOCKS = 400

# Writes block after block, each filled with a letter; says how each one ended.
WRITER = f"""
head -c 512 /dev/zero | tr '\\0' '{{letter}}' >/tmp/{{letter}}
at=0
while [ $at -lt {BLOCKS} ]; do
  sg_raw -s 512 -i /tmp/{{letter}} {SG} 2a 00 00 00 $(printf '%02x %02x' $((at / 256)) $((at % 256))) 00 00 01 00 >/dev/null 2>&1
  echo $at $?
  at=$((at + 1))
done
"""
# The first letter of each block; a block that was never written has none.
READER = f"dd if={SG.replace('sg0', 'sda')} bs=512 count={BLOCKS} iflag=direct 2>/dev/null | tr '\\0' '.' | fold -w 512 | cut -c1"


class Cluster(unittest.TestCase):
    """Register, reserve, re-assert, arbitrate by PREEMPT, fence by PREEMPT AND ABORT."""

    def persist(self, node, *words):
        """The exit code of sg_persist, once the unit attentions of before have been seen."""
        node.run(f"sg_turs -n 8 {SG} >/dev/null 2>&1; true")
        script = f"sg_persist --no-inquiry {' '.join(words)} {SG} >/tmp/persist 2>&1; echo $?; cat /tmp/persist"
        code, _, said = node.run(script).partition("\n")
        self.said = said
        return int(code)

    def out(self, node, action, **parameters):
        words = (f"--{name.replace('_', '-')}={value}" for name, value in parameters.items())
        return self.persist(node, "--out", f"--{action}", *words)

    def keys(self, node):
        self.assertEqual(self.persist(node, "--in", "--read-keys"), GOOD, self.said)
        return sorted(word for word in self.said.split() if word.startswith("0x") and len(word) > 2)

    def run_cluster(self, array, paths, fencing):
        kind = {"prout_type": WRITE_EXCLUSIVE_REGISTRANTS_ONLY}
        with Scene(self.id().rsplit(".", 1)[-1], array, nodes=2, paths=paths) as scene:
            one, two = scene.nodes
            for node, key in ((one, "0xa1"), (two, "0xb2")):
                self.assertEqual(self.out(node, "register", param_sark=key), GOOD, self.said)
            self.assertEqual(self.out(one, "reserve", param_rk="0xa1", **kind), GOOD, self.said)
            self.assertEqual(self.out(one, "reserve", param_rk="0xa1", **kind), GOOD, "re-asserting")
            self.assertEqual(self.out(two, "reserve", param_rk="0xb2", **kind), CONFLICT, "it is the other's")
            for node in scene.nodes:
                own, others = ("0xa1", "0xb2") if node is one else ("0xb2", "0xa1")
                keys = self.keys(node)
                self.assertEqual(keys.count(own), 1, "its own key once")
                self.assertEqual(keys.count(others), paths, "the other's for each of its nexuses")

            # The first one is thought dead: the second one arbitrates, and takes the disk.
            preempt = {"param_rk": "0xb2", "param_sark": "0xa1", **kind}
            self.assertEqual(self.out(two, "preempt", **preempt), GOOD, self.said)
            self.assertEqual([key for key in self.keys(two) if key == "0xa1"], [])
            self.assertEqual(self.write(one, "x", 0), CONFLICT)
            self.assertEqual(self.write(two, "y", 0), GOOD)

            # It comes back, and fences the second one in the middle of its writes.
            self.assertEqual(self.out(one, "register", param_sark="0xa1"), GOOD, self.said)
            ends, under_way = [], threading.Event()

            def ended(line):
                ends.append(line)
                if len(ends) == 20:
                    under_way.set()

            writer = two.guest.start(WRITER.format(letter="b"), ended)
            self.assertTrue(under_way.wait(60), "the writes are under way")
            fence = {"param_rk": "0xa1", "param_sark": "0xb2", **kind}
            self.assertEqual(self.out(one, fencing, **fence), GOOD, self.said)
            before = one.run(READER).split()
            writer.wait(timeout=120)
            codes = [int(end.split()[1]) for end in ends]
            # What was under way when the fence fell may have been aborted.
            first = next(at for at, code in enumerate(codes) if code == CONFLICT)
            self.assertEqual(codes.count(UNIT_ATTENTION), 1, "REGISTRATIONS PREEMPTED, once for all paths")
            self.assertLessEqual(set(codes[first:]), {CONFLICT, UNIT_ATTENTION}, "no write after the fence is good")
            self.assertGreater(len(codes) - first, 20, "the fence fell too late to tell")
            after = one.run(READER).split()
            self.assertEqual(after, before, "nothing has landed since")
            self.assertEqual(set(after[first:]), {"."}, "nor any of what was refused")

    def write(self, node, letter, block):
        node.run(f"sg_turs -n 8 {SG} >/dev/null 2>&1; true")
        script = (f"head -c 512 /dev/zero | tr '\\0' '{letter}' >/tmp/w; sg_raw -s 512 -i /tmp/w {SG} "
                  f"2a 00 00 00 00 {block:02x} 00 00 01 00 >/dev/null 2>&1; echo $?")
        return int(node.run(script))

    def test_cluster_on_tgtd(self):
        self.run_cluster(TgtdArray, 2, "preempt") # it has no PREEMPT AND ABORT

    @long
    def test_cluster_on_lio(self):
        self.run_cluster(LioArray, 2, "preempt-abort")
