"""Depths, sizes, orders, mixes and queues: for the plots, and for whoever looks for a place where it is slow."""

import itertools
import json
import statistics

import sides

DEPTHS, SIZES = (1, 8, 32, 128), (4096, 65536, 131072)
SECONDS, WARM = 0.5, 0.2
# How often a cell is measured: where sides are compared, and where there is one.
COMPARED, ALONE = 3, 2


def cells(quick):
    """Depth, size, order, mix and queues of each."""
    if quick:
        return [(depth, 4096, "random", "read", 1) for depth in DEPTHS] + [
            (32, size, "random", "read", 1) for size in SIZES[1:]]
    return list(itertools.product(DEPTHS, SIZES, ("random", "sequential"), ("read", "mixed", "write"), (1, 2, 4)))


def sides_of(order, mix, queues, with_peer):
    """Who can, and who says something: the peer reads only, from one queue; `null:` knows no order and no mix."""
    yield "emulated"
    if mix == "read" and order == "random":
        yield "null"
    if mix == "read" and queues == 1 and with_peer:
        yield "vhost-device-scsi"


def measure(lab):
    makers = {"emulated": lab.emulated, "null": lab.null, "vhost-device-scsi": lab.peer}
    points = []
    for depth, size, order, mix, queues in cells(lab.options.quick):
        names = list(sides_of(order, mix, queues, sides.PEER.exists()))
        samples = {name: [] for name in names}
        for _ in range(COMPARED if "vhost-device-scsi" in names else ALONE):
            for name in names:
                with makers[name]() as side:
                    samples[name].append(sides.load(
                        side, "--depth", depth, "--size", size, "--order", order, "--mix", mix, "--queues", queues,
                        seconds=SECONDS, warm=WARM))
        for name, found in samples.items():
            point = {"side": name, "depth": depth, "size": size, "order": order, "mix": mix, "queues": queues}
            points.append({**point, **{key: statistics.median(one[key] for one in found) for key in found[0]}})
            sides.say(f"  {json.dumps(points[-1])}")
    lab.results["sweep"] = points
