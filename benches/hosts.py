"""Real SCSI, in the machine of tests/host: our backend beside fio's sg engine on a path, and beside dm-multipath on two.

Without KVM that machine has one processor on which each instruction takes a nanosecond, whatever else goes on outside
(QEMU's -icount). What is called CPU is instructions then, those of the kernel too, and a busy machine counts the same.
"""

import json
import statistics
import sys

import sides
from vm import HYPERVISOR, IMAGES, KVM, accelerator

sys.path.insert(0, str(sides.PROJECT / "tests" / "host"))

# Without "rep movsb", which counts as an instruction for each byte.
COUNTING = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max,erms=off,fsrm=off"]
# Two units, each with one path over each of two hosts, on one store that answers at once.
DISKS = ("modprobe -a sg sd_mod; modprobe scsi_debug dev_size_mb=64 delay=0 max_queue=192 vpd_use_hostno=0 num_tgts=2"
         " max_luns=1 add_host=2 per_host_store=0; udevadm settle")
OURS, PEER = 0, 1 # whose unit is which
# Nanoseconds of our threads that wait in the kernel for a path's commands: not of the lane.
HANDS = ("cat $(grep -ls '^sg sg' /proc/$(cat /run/backend.pid)/task/*/comm | sed 's/comm$/schedstat/') /dev/null 2>/dev/null"
         " | awk '{ ns += $1 } END { print ns }'")
FIO = ("fio --name=peer --filename={} --ioengine={} --rw=randread --bs=4k --iodepth={} --numjobs={} --direct={} --thread"
       " --group_reporting --time_based --runtime={} --output-format=json --output=/run/fio >/dev/null; cat /run/fio")


class Host:
    """The machine, and what is measured in it."""

    def __init__(self, machine, seconds):
        self._machine, self._seconds = machine, seconds
        machine.run(DISKS, timeout=300)
        self._processors = int(machine.run("nproc"))

    def version(self, command):
        return self._machine.run(command, check=False).strip() or "missing"

    def nodes(self, unit, folder):
        """Names of the nodes of a unit's paths, by one of their folders in sysfs."""
        return self._machine.run(f"for node in /sys/bus/scsi/devices/*:0:{unit}:0/{folder}/*; do basename $node; done").split()

    def backend(self, nodes):
        """Our backend on these sg nodes, with a driver that sleeps."""
        machine = self._machine
        machine.start_backend([f"/dev/{node}" for node in nodes])
        machine.wait_for("[ $(mpathctl -s /run/lun.ctl --json paths | grep -o '\"state\": *\"up\"' | wc -l) ="
                         f" {len(nodes)} ]", "the paths are up", 120)
        found, busy, hands = self._measured("front_load --socket /run/lun.sock --process $(cat /run/backend.pid) --depth 32"
                                            f" --wait sleep --warm 0.2 --seconds {self._seconds}", HANDS)
        machine.stop_backend()
        each = 1e6 / found["commands_per_second"]
        return {**found, "machine_us": busy * each, "hands_us": hands * each}

    def fio(self, node, engine, depth, jobs):
        """fio on a node. Its CPU has the kernel's work in it, and its own."""
        found, busy, _ = self._measured(FIO.format(node, engine, depth, jobs, int(engine != "sg"), self._seconds))
        job = found["jobs"][0]
        read, ran = job["read"], job["job_runtime"] * 1000
        own, kernel = (job[share] / 100 * ran / read["total_ios"] for share in ("usr_cpu", "sys_cpu"))
        latency = read["clat_ns"]["percentile"]
        return {"commands_per_second": read["iops"], "cpu_us": own + kernel, "own_us": own,
                "p50_us": latency["50.000000"] / 1000, "p99_us": latency["99.000000"] / 1000,
                "machine_us": busy * 1e6 / read["iops"]}

    def _measured(self, command, threads="true"):
        """What a command prints, as JSON; how many processors of the machine were busy while it ran; and how many were so
        with the threads whose nanoseconds `threads` adds up."""
        lines = self._machine.run(f"""
            ( {command} ) >/run/measured &
            sleep {0.3 + 0.1 * self._seconds}
            echo $({threads}) $(cut -d ' ' -f 1 /proc/uptime)
            head -n 1 /proc/stat
            sleep {0.7 * self._seconds}
            head -n 1 /proc/stat
            echo $({threads}) $(cut -d ' ' -f 1 /proc/uptime)
            wait $!
            cat /run/measured""", timeout=300).split("\n", 4)
        first, second = ([int(field) for field in line.split()[1:9]] for line in lines[1:3])
        passed = [now - then for now, then in zip(second, first)]
        busy = self._processors * (1 - (passed[3] + passed[4]) / sum(passed))
        first, second = ([float(field) for field in lines[at].split()] for at in (0, 3))
        ran = (second[0] - first[0]) / (second[-1] - first[-1]) / 1e9 if len(first) > 1 else 0
        return json.loads(lines[4][lines[4].index("{"):]), busy, ran

    def multipath(self, disks):
        """dm-multipath on these disks, both in one group as they are for us; the map's node."""
        machine = self._machine
        machine.run(f"""
            modprobe -a dm_multipath dm_service_time
            printf 'overrides {{\\n path_grouping_policy multibus\\n path_selector "service-time 0"\\n}}\\n' >/etc/multipath.conf
            multipath -a /dev/{disks[0]} >/dev/null
            multipathd""", timeout=120)
        machine.wait_for("[ $(multipathd show paths format '%t %o %T' | grep -c 'active running ready') = 2 ]",
                         "both paths are active", 120)
        device = f"/dev/mapper/{machine.run('dmsetup ls --target multipath').split()[0]}"
        machine.wait_for(f"[ -b {device} ]", "udev has made the node")
        return device


def compare(lab):
    sides.need("qemu-system-x86_64")
    if not (IMAGES / HYPERVISOR[2]).exists():
        raise sides.Missing("the machine is not built: images/build")
    from machine import Machine # needs what was just looked for
    counted = "kvm" not in accelerator()
    programs = [sides.PROGRAMS / name for name in ("vhost-user-scsi-mpath", "mpathctl", "examples/front_load")]
    rounds = min(lab.options.rounds, 3) if lab.options.quick else lab.options.rounds
    with Machine("benches", 1 if counted else 2, programs=tuple(programs), accelerate=COUNTING if counted else KVM,
                 patience=400) as machine:
        host = Host(machine, 1 if counted else lab.options.seconds)
        lab.results["versions"].update({
            "in the host's machine: Linux": host.version("uname -r"), "its fio": host.version("fio --version"),
            "its multipath-tools": host.version("multipath -h 2>&1 | grep -m 1 -o 'v[0-9][^ ]*'")})
        how = ("each instruction counted as a nanosecond, on one processor" if counted else "KVM, two processors")
        against_sg(lab, host, rounds, how)
        against_multipath(lab, host, rounds, how)


def times(samples, one, key_of_one, other, key_of_other):
    """The median over the rounds of what `other` takes for each of what `one` takes."""
    return statistics.median(b[key_of_other] / a[key_of_one] for a, b in zip(samples[one], samples[other]))


def against_sg(lab, host, rounds, how):
    """32 under way each: fio has them one in each of 32 threads, or 16, which an open node takes, in each of two."""
    ours, node = host.nodes(OURS, "scsi_generic")[0], f"/dev/{host.nodes(PEER, 'scsi_generic')[0]}"
    samples = lab.rounds({"host: one sg path": lambda: host.backend([ours]),
                          "host: fio, sg, 32 threads": lambda: host.fio(node, "sg", 1, 32),
                          "host: fio, sg, 2 threads with 16": lambda: host.fio(node, "sg", 16, 2)}, rounds)
    threads, queue = (times(samples, "host: one sg path", "cpu_us", f"host: fio, sg, {name}", "cpu_us")
                      for name in ("32 threads", "2 threads with 16"))
    lab.bar("host SCSI device (scsi_debug in a machine), 4k random read, 32 under way, against fio's sg engine: commands per"
            " CPU second", ">= 1.0", f"{threads:.2f} (one in each of 32 threads), {queue:.2f} (16 in each of 2)",
            min(threads, queue) >= 1, f"{how}; fio's CPU has its load generator in it, and of ours"
            f" {lab.results['figures']['host: one sg path']['hands_us']:.1f} us are in the threads that call the kernel")


def against_multipath(lab, host, rounds, how):
    """Two paths. fio is not a guest: what QEMU adds on top of dm-multipath, virtio-scsi and scsi-block, is not in it."""
    ours = host.nodes(OURS, "scsi_generic")
    device = host.multipath(host.nodes(PEER, "block"))
    samples = lab.rounds({"host: two sg paths": lambda: host.backend(ours),
                          "host: fio, io_uring, dm-multipath": lambda: host.fio(device, "io_uring", 32, 1)}, rounds)
    for sample in samples["host: fio, io_uring, dm-multipath"]:
        sample["below_us"] = sample["machine_us"] - sample["own_us"]
    all_of_it, below = (times(samples, "host: two sg paths", ours, "host: fio, io_uring, dm-multipath", peer)
                        for ours, peer in (("machine_us", "machine_us"), ("cpu_us", "below_us")))
    lab.bar("two paths of a host SCSI device, 4k random read, depth 32, beside dm-multipath without QEMU over it: commands per"
            " CPU second", "none", f"{below:.2f}", None,
            f"{how}; our backend's CPU beside all of the machine's but fio's own code. The whole machine, our front end and"
            f" fio in it: {all_of_it:.2f}. QEMU's virtio-scsi and scsi-block would come on top of dm-multipath's")
