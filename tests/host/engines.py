"""Measures what a command costs on each kind of node of a host SCSI device, as a table in Markdown.

    python3 -B tests/host/engines.py [--seconds N] [--rounds N]

One scsi_debug disk in memory, which answers at once; random reads, one path, one queue. CPU is the backend's own, its
threads in the kernel included. The rows take turns, and each cell is the median of its rounds. The first row is a path
that does nothing: what it costs to wake threads in this machine. Needs what tests/host needs.
"""

import argparse
import itertools
import json
import statistics
import sys

from failover_tables import table
from machine import Machine

KINDS = {"sg": "scsi_generic", "sd": "block", "bsg": "bsg"}
SIZES = {"4k": 4096, "64k": 65536}
DEPTHS = (1, 32, 128)


def rows_of(machine):
    """Kind, memory, and the path's part of the configuration."""
    place = machine.run("ls /sys/bus/scsi/devices | grep -E '^[0-9]+:'").strip()
    yield "null:", "", 'address = "null:64M"\n'
    for (kind, folder), memory in itertools.product(KINDS.items(), ("bounce", "direct_io")):
        leaf = machine.run(f"ls /sys/bus/scsi/devices/{place}/{folder}").strip()
        node = f"bsg/{leaf}" if kind == "bsg" else leaf
        direct_io = "true" if memory == "direct_io" else "false"
        yield kind, memory, f'address = "/dev/{node}"\ndirect_io = {direct_io}\n'


def measure(machine, path, seconds):
    """CPU microseconds per command and commands per second, for each size and depth."""
    machine.run(f"printf '%s' '[[path]]\n{path}' >/run/engines.toml")
    machine.start_backend([], "--config /run/engines.toml")
    machine.wait_for("mpathctl -s /run/lun.ctl --json paths | grep -q '\"state\": *\"up\"'", "the path is up")
    for size, depth in itertools.product(SIZES.values(), DEPTHS):
        words = machine.run(f"verified_load --socket /run/lun.sock --queues 1 --measure {size} --depth {depth}"
                            f" --process $(cat /run/backend.pid) --seconds {seconds}", timeout=seconds + 60)
        cost = json.loads(words.splitlines()[-1])
        yield cost["cpu_us"], cost["commands_per_second"]
    machine.stop_backend()


def cell(samples):
    cpu, rate = (statistics.median(values) for values in zip(*samples))
    return f"{cpu:.0f} us, {rate:.0f}/s"


def main():
    arguments = argparse.ArgumentParser(prog="tests/host/engines.py", description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=int, default=3, help="of each measurement (%(default)s)")
    arguments.add_argument("--rounds", type=int, default=5, help="how often each is made (%(default)s)")
    options = arguments.parse_args()
    head = ["node", "memory", *(f"{size}, depth {depth}" for size, depth in itertools.product(SIZES, DEPTHS))]
    samples = {}
    with Machine("engines") as machine:
        machine.run("modprobe -a sg sd_mod; modprobe scsi_debug dev_size_mb=64 delay=0 max_queue=192; udevadm settle")
        rows = list(rows_of(machine))
        for number in range(options.rounds):
            for kind, memory, path in rows:
                found = list(measure(machine, path, options.seconds))
                samples.setdefault((kind, memory), []).append(found)
                print(f"round {number + 1}: {kind} {memory} {found}", file=sys.stderr, flush=True)
    print(table(head, [[*row, *map(cell, zip(*rounds))] for row, rounds in samples.items()]))


if __name__ == "__main__":
    main()
