"""Measures what a guest waits for when a path fails: on our backend, and on dm-multipath with three settings.

    python3 -B tests/host/failover.py [--only SYSTEM,...] [--fault FAULT,...] [--write]

Each system gets a machine of its own, the same array in it (LIO, two portals, both optimized), the same wire and the same
load: four reads and four writes of 4 KiB at a time, every block verified. The results go to
tests/host/out/failover.json and as tables to the terminal; with --write also into docs/failover-compared.md and, as a
plot, docs/failover.svg. Needs cargo build --release --locked --bins --example verified_load, and images/build.
"""

import argparse
import json
import sys
import time

from failover_plot import draw
from failover_tables import stall, tables
from machine import HERE, OUT, Load, Machine

DOCS = HERE.parents[1] / "docs"
TARGET = "iqn.2003-01.org.example:lio"
DISK_MEGABYTES = 64
STEADY = 6 # seconds of load before the fault
SLOW_MILLISECONDS = 200
RESULTS = OUT / "failover.json"
HEAD = """# Failover compared

`python3 -B tests/host/failover.py --write` measures this and writes this page, in a virtual machine that has everything
in it: the array (LIO, two portals), both initiators, the load. So the numbers are those of a slow machine, and compare only
with each other. What the rows are stands in `tests/host/failover.py`.

![For how long the guest waits while a path is silent](failover.svg)
"""


class Ours:
    """Our backend on two iscsi:// paths, the shipped defaults."""

    title = "this backend, defaults"

    def start(self, machine):
        machine.start_backend([f"iscsi://127.0.1.{portal}/{TARGET}/0" for portal in (1, 2)])
        self.wait_healthy(machine)
        return "--socket /run/lun.sock"

    def wait_healthy(self, machine):
        machine.wait_for("[ $(mpathctl -s /run/lun.ctl --json paths | grep -o '\"state\": *\"up\"' | wc -l) = 2 ]",
                         "both paths are up", 90)


class DmMultipath:
    """dm-multipath over the kernel's initiator, with some settings of open-iscsi and of multipath.conf."""

    def __init__(self, title, iscsi="", multipath=""):
        self.title = title
        self._iscsi = iscsi
        self._multipath = multipath

    def start(self, machine):
        machine.run(f"""
            initiator {self._iscsi}
            modprobe -a dm_multipath dm_service_time
            printf '{self._multipath}' >/etc/multipath.conf
            multipath -a /dev/$(disk_of 1) >/dev/null
            multipathd""", timeout=120)
        self.wait_healthy(machine)
        device = f"/dev/mapper/{machine.run('dmsetup ls --target multipath').split()[0]}"
        machine.wait_for(f"[ -b {device} ]", "udev has made the node")
        return f"--device {device}"

    def wait_healthy(self, machine):
        machine.wait_for("[ $(multipathd show paths format '%t %o %T' | grep -c 'active running ready') = 2 ]",
                         "both paths are active", 120)


SYSTEMS = {
    "ours": Ours(),
    "dm-default": DmMultipath("dm-multipath, Debian's defaults"),
    "dm-tuned": DmMultipath(
        "dm-multipath, tuned: replacement_timeout 5 s (open-iscsi's README: 5 to 15), queue without a path, failback at"
        " once; NOP 5 s and 5 s, as Debian has it (the README: 5 s and 10 s)",
        "node.session.timeo.replacement_timeout=5 'node.conn[0].timeo.noop_out_interval=5'"
        " 'node.conn[0].timeo.noop_out_timeout=5'",
        "overrides {\\n no_path_retry queue\\n failback immediate\\n}\\n"),
    "dm-short": DmMultipath(
        "dm-multipath, the shortest timers: NOP 1 s and 1 s, replacement_timeout 1 s, paths checked each second, queue"
        " without a path",
        "node.session.timeo.replacement_timeout=1 'node.conn[0].timeo.noop_out_interval=1'"
        " 'node.conn[0].timeo.noop_out_timeout=1'",
        "defaults {\\n polling_interval 1\\n max_polling_interval 1\\n}\\n"
        "overrides {\\n no_path_retry queue\\n failback immediate\\n}\\n"),
}

# Fault: what it is, how it is made, what follows after how many seconds, and for how long to look on after that.
FAULTS = {
    "none": ("nothing", "true", [], 8),
    "reset-once": ("one path reset once", "reset 1 once", [], 12),
    "reset": ("one path reset, refused for 10 s", "reset 1", [(10, "mend")], 10),
    "silent": ("one path silent for 25 s", "silence 1", [(25, "mend")], 10),
    "held": ("answers of one path held back for 25 s", "hold_answers 1", [(25, "mend")], 10),
    "slow": (f"one path slower by {SLOW_MILLISECONDS} ms", f"slow 1 {SLOW_MILLISECONDS}", [(2, "true"), (12, "mend")], 8),
    "transition": ("all port groups in transition for 10 s", "alua disk 1 1 10 & alua disk 2 1 10 & wait",
                   [(5, "alua disk 1 0; alua disk 2 0")], 5),
    "both-silent": ("both paths silent for 20 s", "silence 1; silence 2", [(20, "mend")], 40),
}


def measure(machine, system, where, fault):
    """One fault under load: what the load has seen. Its first phase is before the fault."""
    _, break_it, steps, rest = FAULTS[fault]
    load = Load(machine, where, queues=2, depth=4, options="--apart", rest=0)
    time.sleep(STEADY)
    # In one script, so that mark and fault are a moment apart.
    machine.run(f"{load.MARK}; {break_it}")
    for seconds, step in steps:
        time.sleep(seconds)
        machine.run(f"{load.MARK}; {step}")
    time.sleep(rest)
    report = load.stop()
    machine.run("mend")
    system.wait_healthy(machine)
    return report


def measure_all(systems, faults):
    """Measures, and keeps each result as it comes: what is not measured now stays as it was."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in systems:
        system = SYSTEMS[name]
        result = results.setdefault(name, {"faults": {}})
        result["title"] = system.title
        with Machine(f"failover-{name}") as machine:
            machine.run(f"lio_disk disk {DISK_MEGABYTES}; iscsi_target disk", timeout=120)
            where = system.start(machine)
            for fault in faults:
                report = result["faults"][fault] = measure(machine, system, where, fault)
                RESULTS.write_text(json.dumps(results))
                print(f"{name:10} {fault:12} {stall(report)}", flush=True)
    return {name: results[name] for name in SYSTEMS if name in results}


def words(known):
    def parse(text):
        for word in text.split(","):
            if word not in known:
                raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(known)}")
        return text.split(",")
    return parse


def main():
    arguments = argparse.ArgumentParser(prog="tests/host/failover.py", description=__doc__.splitlines()[0])
    arguments.add_argument("--only", type=words(SYSTEMS), default=list(SYSTEMS), metavar="SYSTEM,...",
                           help=f"of {', '.join(SYSTEMS)}")
    arguments.add_argument("--fault", type=words(FAULTS), default=list(FAULTS), metavar="FAULT,...",
                           help=f"of {', '.join(FAULTS)}")
    arguments.add_argument("--write", action="store_true", help="into docs/; what is not measured stays as it was")
    options = arguments.parse_args()
    OUT.mkdir(exist_ok=True)
    results = measure_all(options.only, options.fault)
    print(tables(results, FAULTS))
    if options.write:
        (DOCS / "failover.svg").write_text(draw(results))
        (DOCS / "failover-compared.md").write_text(f"{HEAD}\n{tables(results, FAULTS)}")


if __name__ == "__main__":
    sys.exit(main())
