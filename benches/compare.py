"""The groups of benches/run: what is compared with what, and the bars that come of it."""

import json
import resource
import statistics
import subprocess
import time

import guests
import hosts
import sides
import sweep as sweeping

MEGABYTES = 256
READ_32 = ("--depth", 32)
READ_32_ASLEEP = ("--depth", 32, "--wait", "sleep")
READ_1_ASLEEP = ("--depth", 1, "--wait", "sleep")
SEQUENTIAL = ("--depth", 8, "--size", 131072, "--order", "sequential")
WRITE_32 = ("--depth", 32, "--mix", "write")


class Lab:
    """Where images are, how long to measure, and where figures go."""

    def __init__(self, directory, options, results):
        self.directory, self.options, self.results = directory, options, results
        self._image = None

    @property
    def image(self):
        """An image in memory, made with the first call."""
        if self._image is None:
            self._image = sides.filled(self.directory / "disk.img", MEGABYTES)
        return self._image

    def emulated(self, ports=1):
        return sides.ours(self.directory, [f"emulated:{self.image}?port={port + 1}" for port in range(ports)])

    def null(self, paths=1):
        # Names are for a file to give, and no address may come twice: one size, written in as many ways.
        config = self.directory / f"null-{paths}.toml"
        config.write_text("".join(f'[[path]]\naddress = "null:{"0" * path}1G"\nname = "null{path}"\n'
                                  for path in range(paths)))
        return sides.ours(self.directory, [], "--config", str(config))

    def peer(self):
        return sides.peer(self.directory, self.image)

    def rounds(self, runs, count=None):
        """Each of `runs` in turn, again and again: lists of what they returned, and medians in the figures."""
        samples = {name: [] for name in runs}
        for number in range(count or self.options.rounds):
            for name, run in runs.items():
                samples[name].append(run())
                sides.say(f"  {number + 1}. {name}: {json.dumps(samples[name][-1])}")
        self.results["figures"].update({name: median_of(found) for name, found in samples.items()})
        return samples

    def bar(self, what, bar, measured, met, note=""):
        """A row of the table; `met` is None where it was not measured as it was meant."""
        self.results["bars"].append({"what": what, "bar": bar, "measured": measured, "met": met, "note": note})


def median_of(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def ratio(samples, one, other, key):
    """The median over the rounds of what `one` had for each of what `other` had."""
    return statistics.median(a[key] / b[key] if b[key] else 0 for a, b in zip(samples[one], samples[other]))


def front(lab):
    """Our backend and vhost-device-scsi, both on the same file in memory."""
    def on(side, *arguments):
        def run():
            with side() as place:
                return sides.load(place, *arguments, seconds=lab.options.seconds)
        return run

    runs = {"emulated, 4k read, 32": on(lab.emulated, *READ_32), "null, 4k read, 32": on(lab.null, *READ_32),
            "emulated, 4k write, 32": on(lab.emulated, *WRITE_32),
            "emulated, 4k read, 1 asleep": on(lab.emulated, *READ_1_ASLEEP),
            "wake-up alone": lambda: sides.load(("none", 0), "--floor", seconds=lab.options.seconds),
            "emulated, 128k sequential, 8": on(lab.emulated, *SEQUENTIAL)}
    peers = {"vhost-device-scsi, 4k read, 32": on(lab.peer, *READ_32),
             "vhost-device-scsi, 4k read, 1 asleep": on(lab.peer, *READ_1_ASLEEP),
             "vhost-device-scsi, 128k sequential, 8": on(lab.peer, *SEQUENTIAL)}
    with_peer = sides.PEER.exists()
    if not with_peer:
        lab.results["missing"].append(f"vhost-device-scsi {sides.PEER_VERSION}: could not be built")
    samples = lab.rounds({**runs, **(peers if with_peer else {})})
    if with_peer:
        bars_against_peer(lab, samples)
    writes = ratio(samples, "emulated, 4k write, 32", "emulated, 4k read, 32", "commands_per_second")
    lab.bar("4k random write on tmpfs, depth 32, against our own reads", ">= 0.9 times", f"{writes:.2f}", writes >= 0.9)
    paths_bar(lab)


def paths_bar(lab):
    """Two paths beside one, both backends there all the time, in many short turns: what is to be seen is small."""
    with lab.null() as one, lab.null(paths=2) as two:
        def on(side):
            return lambda: sides.load(side, *READ_32, seconds=lab.options.seconds / 3, warm=0.1)
        samples = lab.rounds({"1 null path, 4k read, 32": on(one), "2 null paths, 4k read, 32": on(two)},
                             3 * lab.options.rounds)
    cpu = ratio(samples, "2 null paths, 4k read, 32", "1 null path, 4k read, 32", "cpu_us")
    counted = instructions(lab)
    each = counted["paths"] / counted["lane"] if counted else cpu
    lab.bar("two paths against one (`null:`), CPU per command", "< 1.05",
            f"{cpu:.2f}" + (f"; {each:.3f} in instructions" if counted else ""), each < 1.05,
            "CPU time differs by more than that from round to round; instructions do not" if counted else "")


def instructions(lab):
    """What benches/instructions counts for each part, once; nothing without valgrind."""
    figures = lab.results["figures"]
    if "instructions" not in figures and sides.output("valgrind", "--version"):
        done = subprocess.run([sides.PROJECT / "benches" / "instructions", "--json", "--no-build"], capture_output=True, text=True,
                              timeout=300, check=True)
        figures["instructions"] = json.loads(done.stdout)
    return figures.get("instructions")


def bars_against_peer(lab, samples):
    def against(ours, theirs, key):
        return ratio(samples, ours, f"vhost-device-scsi, {theirs}", key)

    rate, cpu, p99 = (against("emulated, 4k read, 32", "4k read, 32", key)
                      for key in ("commands_per_second", "cpu_us", "p99_us"))
    lab.bar("emulated on tmpfs, 4k random read, depth 32, against vhost-device-scsi",
            "commands/s >= 2, CPU <= 0.5, p99 <= 1", f"{rate:.2f}, {cpu:.2f}, {p99:.2f}",
            rate >= 2 and cpu <= 0.5 and p99 <= 1)
    p50 = against("emulated, 4k read, 1 asleep", "4k read, 1 asleep", "p50_us")
    floor = lab.results["figures"]["wake-up alone"]["p50_us"]
    lab.bar("the same at depth 1, driver asleep: p50", "<= 0.5", f"{p50:.2f}", p50 <= 0.5,
            f"a driver that has slept for 20 us is awake {floor:.1f} us after it was woken")
    rate = against("emulated, 128k sequential, 8", "128k sequential, 8", "commands_per_second")
    lab.bar("128k sequential read, depth 8, against the same", ">= 1.5", f"{rate:.2f}", rate >= 1.5)
    rate, cpu = (against("null, 4k read, 32", "4k read, 32", key) for key in ("commands_per_second", "cpu_us"))
    lab.bar("`null:`, depth 32, against vhost-device-scsi on tmpfs", "commands/s >= 4, CPU <= 0.3",
            f"{rate:.2f}, {cpu:.2f}", rate >= 4 and cpu <= 0.3)


def scaling(lab):
    """More paths, more queues, and what they cost in memory; two slow paths; a file on a disk."""
    seconds, figures = lab.options.seconds, lab.results["figures"]
    for paths in (1, 2, 4, 16, 64):
        with lab.null(paths=paths) as side:
            figures[f"null, {paths} paths"] = {**sides.load(side, *READ_32, seconds=seconds),
                                               "rss_anon_kib": sides.anonymous_memory(side[1])}
    for queues in (1, 2, 4, 8, 16):
        with lab.null() as side:
            figures[f"null, {queues} queues"] = {**sides.load(side, *READ_32, "--queues", queues, seconds=seconds),
                                                 "rss_anon_kib": sides.anonymous_memory(side[1])}
    with lab.emulated(ports=2) as side:
        sides.load(side, *READ_32, seconds=seconds)
        memory = sides.anonymous_memory(side[1]) / 1024
    first, last = (figures[f"null, {paths} paths"]["rss_anon_kib"] for paths in (2, 64))
    each = (last - first) / 62
    lab.bar("memory: RssAnon with 1 queue and 2 emulated paths, and per further path", "< 8 MiB, < 64 KiB",
            f"{memory:.1f} MiB, {each:.0f} KiB", memory < 8 and each < 64)
    queues_bar(lab)
    limited_paths(lab)
    disk_file(lab)


def queues_bar(lab):
    """Two queues beside one: each with a driver of its own, which are more threads than two processors, and with one driver."""
    def on(queues, drivers):
        def run():
            with lab.null() as side:
                return sides.load(side, *READ_32, "--queues", queues, "--drivers", drivers, seconds=lab.options.seconds)
        return run
    samples = lab.rounds({"null, 1 queue": on(1, 1), "null, 2 queues at once": on(2, 2), "null, 2 queues, 1 driver": on(2, 1)})
    cpu, rate = (ratio(samples, "null, 2 queues at once", "null, 1 queue", key)
                 for key in ("cpu_us", "commands_per_second"))
    alone = ratio(samples, "null, 2 queues, 1 driver", "null, 1 queue", "cpu_us")
    cores = lab.results["machine"]["cores"]
    note = f"CPU with one driver for both queues: {alone:.2f}"
    if cores < 4:
        note += f"; commands/s is for 4 cores, this machine has {cores}: measured {rate:.2f}"
    lab.bar("two queues against one (`null:`)", "CPU <= 1.1, commands/s >= 1.6 with 4 cores",
            f"{cpu:.2f}" + (f", {rate:.2f}" if cores >= 4 else ""), cpu <= 1.1 and (cores < 4 or rate >= 1.6), note)


def limited_paths(lab):
    """Two paths, each on a line of 20 MB/s."""
    limit = 20_000_000
    with lab.emulated(ports=2) as side:
        for name in side[2].path_names():
            side[2].control.execute("inject-fault", path=name, fault="rate", **{"bytes-per-second": limit})
        found = sides.load(side, "--depth", 32, "--size", 65536, seconds=max(3, lab.options.seconds))
    times = found["commands_per_second"] * 65536 / limit
    lab.bar("two paths, each limited to X bytes/s (`rate` fault)", ">= 1.9 X", f"{times:.2f} X", times >= 1.9)


def disk_file(lab):
    """A file that is not in memory, past the page cache and through it, beside fio straight on it.

    fio sleeps while it waits. A driver that does so too is woken after the backend was; one that looks is not."""
    sides.need("fio")
    image = sides.filled(sides.TARGET / "bench.img", 512)

    def ours(settings="", driver=READ_32_ASLEEP):
        with sides.ours(lab.directory, [f"emulated:{image}?port=1{settings}"]) as side:
            return sides.load(side, *driver, seconds=lab.options.seconds)
    asleep, looks, peer = "file on a disk, O_DIRECT", "the same, driver looks", "fio, io_uring, O_DIRECT"
    try:
        samples = lab.rounds({asleep: lambda: ours("&cache=none"), looks: lambda: ours("&cache=none", READ_32),
                              peer: lambda: fio(image, lab.options.seconds)})
        cached = ours()
    finally:
        for file in (image, image.with_name("bench.img.wwid"), image.with_name("bench.img.pr")):
            file.unlink(missing_ok=True)
    lab.results["figures"]["file on a disk, through the page cache"] = cached
    sleeping, looking = (ratio(samples, side, peer, "commands_per_second") for side in (asleep, looks))
    warm = cached["commands_per_second"] / statistics.median(found["commands_per_second"] for found in samples[peer])
    lab.bar("image on a disk file with O_DIRECT (`cache=none`), depth 32, driver looks, against fio with io_uring", ">= 0.9",
            f"{looking:.2f}", looking >= 0.9,
            f"with a driver that sleeps {sleeping:.2f}; through the page cache, warm, it is {warm:.1f}")


def fio(target, seconds):
    """fio straight on a file."""
    command = ["fio", "--name=floor", f"--filename={target}", "--rw=randread", "--bs=4k", "--iodepth=32", "--direct=1",
               "--ioengine=io_uring", "--time_based", f"--runtime={seconds}", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    read = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]
    return {"commands_per_second": read["iops"], "p50_us": read["clat_ns"]["percentile"]["50.000000"] / 1000,
            "p99_us": read["clat_ns"]["percentile"]["99.000000"] / 1000}


def iscsi_perf(url, seconds):
    """libiscsi's own load generator: commands per second and CPU per command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    command = ["iscsi-perf", "-m", "32", "-b", "8", "-t", str(max(2, round(seconds))), "-r", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    elapsed, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    rate = int(done.stdout.rsplit("iops average ", 1)[1].split()[0])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"commands_per_second": rate, "cpu_us": used * 1e6 / (rate * elapsed)}


def iscsi(lab):
    """tgtd on loopback: our backend beside iscsi-perf on the same LUN."""
    sides.need("tgtd", "tgtadm", "iscsi-perf")
    from iscsi import TARGET, Tgtd # needs what was just looked for
    tgtd = Tgtd(lab.directory, lab.image)
    try:
        url = f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1"

        def backend(driver):
            def run():
                with sides.ours(lab.directory, [url]) as side:
                    return sides.load(side, *driver, seconds=max(2, lab.options.seconds))
            return run
        samples = lab.rounds({"iscsi, 4k read, 32": backend(READ_32_ASLEEP), "iscsi, driver looks": backend(READ_32),
                              "iscsi-perf, 32": lambda: iscsi_perf(url, lab.options.seconds)})
    finally:
        tgtd.close()
    cpu, rate = (ratio(samples, "iscsi, 4k read, 32", "iscsi-perf, 32", key) for key in ("cpu_us", "commands_per_second"))
    looking = ratio(samples, "iscsi, driver looks", "iscsi-perf, 32", "cpu_us")
    cores = lab.results["machine"]["cores"]
    lab.bar("iSCSI to tgtd, one path, driver asleep, depth 32, against iscsi-perf", "CPU <= 1.3, commands/s >= 0.9 with 4 cores",
            f"{cpu:.2f}" + (f", {rate:.2f}" if cores >= 4 else ""), cpu <= 1.3 and (cores < 4 or rate >= 0.9),
            f"CPU with a driver that looks, and so is not woken: {looking:.2f}"
            + ("" if cores >= 4 else f"; commands/s is for 4 cores, this machine has {cores}: measured {rate:.2f}"))


def guest(lab):
    """fio in a guest: our backend beside QEMU's own virtio-scsi, on a file and over libiscsi."""
    guests.compare(lab)


def host(lab):
    """The kernel's own SCSI devices, in a machine: beside fio's sg engine and beside dm-multipath."""
    hosts.compare(lab)


def sweep(lab):
    """Depths, sizes, orders, mixes and queues: for the plots."""
    sweeping.measure(lab)


def core(lab):
    """What the core costs, in time and in instructions."""
    program = sides.PROGRAMS / "examples" / "core_cost"

    def seconds(commands):
        before = time.monotonic()
        subprocess.run([program, "core", str(commands)], check=True)
        return time.monotonic() - before
    few, many = 1_000_000, 11_000_000
    ns = statistics.median((seconds(many) - seconds(few)) / (many - few) * 1e9 for _ in range(lab.options.rounds))
    counted = instructions(lab)
    counted = f", {counted['core']:.0f} instructions" if counted else ""
    lab.bar("the core (classify, select, account)", "< 200 ns, no allocation", f"{ns:.0f} ns{counted}", ns < 200,
            "tests/allocations counts allocations, benches/instructions instructions, both in CI")
