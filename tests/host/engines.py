"""Measures what a command costs on each kind of node of a host SCSI device, as a table in Markdown.

    python3 -B tests/host/engines.py [--next] [--only KIND,...] [--seconds N] [--rounds N]

One scsi_debug disk in memory, which answers at once; random reads, one path, one queue. CPU is the backend's own, its
threads in the kernel included. The rows take turns, and each cell is the median of its rounds. The first row is a path
that does nothing: what it costs to wake threads in this machine. Needs what tests/host needs.

With --next the machine has the newer kernel, and bsg nodes are measured over io_uring too; for the other rows it is
forbidden there.
"""

import argparse
import itertools
import json
import statistics
import sys

from failover_tables import table
from machine import Machine
from vm import HYPERVISOR, HYPERVISOR_NEXT

# What a row is called, and the folder of sysfs in which its node is.
KINDS = {"sg": "scsi_generic", "sd": "block", "bsg": "bsg"}
IO_URING = "bsg, io_uring"
SIZES = {"4k": 4096, "64k": 65536}
DEPTHS = (1, 32, 128)


def rows_of(machine, kinds):
    """Kind, memory, and the path's part of the configuration."""
    place = machine.run("ls /sys/bus/scsi/devices | grep -E '^[0-9]+:'").strip()
    yield "null:", "", 'address = "null:64M"\n'
    for kind, memory in itertools.product(kinds, ("bounce", "direct_io")):
        folder = KINDS.get(kind, "bsg")
        leaf = machine.run(f"ls /sys/bus/scsi/devices/{place}/{folder}").strip()
        node = f"bsg/{leaf}" if folder == "bsg" else leaf
        direct_io = "true" if memory == "direct_io" else "false"
        yield kind, memory, f'address = "/dev/{node}"\ndirect_io = {direct_io}\n'


def measure(machine, kind, path, seconds):
    """CPU microseconds per command and commands per second, for each size and depth."""
    machine.run(f"echo {0 if kind == IO_URING else 2} >/proc/sys/kernel/io_uring_disabled")
    machine.run(f"printf '%s' '[[path]]\n{path}' >/run/engines.toml")
    machine.start_backend([], "--config /run/engines.toml")
    machine.wait_for("mpathctl -s /run/lun.ctl --json paths | grep -q '\"state\": *\"up\"'", "the path is up")
    engine = json.loads(machine.control("--json", "paths"))[0]["engine"]
    assert (engine == "bsg (io_uring)") == (kind == IO_URING), engine
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
    arguments.add_argument("--next", action="store_true", help="with the newer kernel, and io_uring")
    arguments.add_argument("--only", type=lambda text: text.split(","), default=list(KINDS), metavar="KIND,...",
                           help=f"of {', '.join(KINDS)}")
    options = arguments.parse_args()
    kinds = [kind for kind in KINDS if kind in options.only] + ([IO_URING] if options.next else [])
    head = ["node", "memory", *(f"{size}, depth {depth}" for size, depth in itertools.product(SIZES, DEPTHS))]
    samples = {}
    with Machine("engines", system=HYPERVISOR_NEXT if options.next else HYPERVISOR) as machine:
        machine.run("modprobe -a sg sd_mod; modprobe scsi_debug dev_size_mb=64 delay=0 max_queue=192; udevadm settle")
        rows = list(rows_of(machine, kinds))
        for number in range(options.rounds):
            for kind, memory, path in rows:
                found = list(measure(machine, kind, path, options.seconds))
                samples.setdefault((kind, memory), []).append(found)
                print(f"round {number + 1}: {kind} {memory} {found}", file=sys.stderr, flush=True)
    print(table(head, [[*row, *map(cell, zip(*rounds))] for row, rounds in samples.items()]))


if __name__ == "__main__":
    main()
