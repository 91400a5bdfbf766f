"""fio in guests, which take turns: on our backend, on QEMU's virtio-scsi with scsi-hd on a file, and over libiscsi."""

import contextlib
import json
import os
import statistics
from pathlib import Path

import sides
from vm import IMAGES, Vm, accelerator, vhost_user_disk

FIO = ("fio --name=guest --filename=/dev/sda --rw=randread --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --time_based"
       " --ramp_time=1 --runtime={} --output-format=json --output=/run/fio >/dev/null && cat /run/fio")
SCSI_HD = ["-object", "iothread,id=disk", "-device", "virtio-scsi-pci,id=scsi,iothread=disk",
           "-device", "scsi-hd,drive=hd,bus=scsi.0"]


def processor_time(process, without=()):
    """Seconds of a process's threads, those of `without` left out."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError): # it may end meanwhile
            if int(task.name) not in without:
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Side:
    """A guest, and who works for it."""

    def __init__(self, vm, backend=None):
        self._guest, self._backend, self._qemu = vm.guest, backend, sides.child(vm.process)
        self._vcpus = {cpu["thread-id"] for cpu in vm.qmp.execute("query-cpus-fast")}
        vm.guest.wait_ready(300)

    def _used(self):
        """Seconds of QEMU without its vCPUs, and of the backend."""
        return processor_time(self._qemu, self._vcpus), processor_time(self._backend) if self._backend else 0

    def run(self, seconds):
        before = self._used()
        # With the second of running in, of which the commands are not counted: both sides have it.
        read = json.loads(self._guest.run(FIO.format(seconds), timeout=seconds + 120))["jobs"][0]["read"]
        each = seconds / (seconds + 1) * 1e6 / max(read["total_ios"], 1)
        qemu, backend = ((now - then) * each for now, then in zip(self._used(), before))
        latency = read["clat_ns"]["percentile"]
        return {"commands_per_second": read["iops"], "cpu_us": qemu + backend, "backend_us": backend,
                "p50_us": latency["50.000000"] / 1000, "p99_us": latency["99.000000"] / 1000}


def compare(lab):
    sides.need("qemu-system-x86_64")
    if not (IMAGES / "tools.img").exists():
        raise sides.Missing("the guest is not built: images/build")
    accelerate = accelerator()
    lab.results["machine"]["guests"] = "KVM" if "kvm" in accelerate else "TCG"
    seconds = max(3, round(lab.options.seconds))
    with contextlib.ExitStack() as stack:
        def guest(name, disk, backend=None):
            directory = lab.directory / name
            directory.mkdir()
            return Side(stack.enter_context(Vm(directory, disk, vcpus=1, accelerate=accelerate)), backend)

        def ours(name, *paths):
            socket, process, _ = stack.enter_context(sides.ours(lab.directory, paths))
            return guest(name, vhost_user_disk(socket), process)

        copy = sides.filled(lab.directory / "scsi-hd.img", 256)
        image = sides.filled(lab.directory / "guest.img", 256)
        found = {"guest on this backend": ours("ours", f"emulated:{image}?port=1"),
                 "guest on scsi-hd": guest("scsi-hd", SCSI_HD[:4] + [
                     "-drive", f"if=none,id=hd,file={copy},format=raw,aio=io_uring"] + SCSI_HD[4:])}
        over_libiscsi(lab, stack, found, guest, ours)
        samples = lab.rounds({name: lambda side=side: side.run(seconds) for name, side in found.items()})
    bars(lab, samples)


def over_libiscsi(lab, stack, found, guest, ours):
    """Two more guests, both on one disk of tgtd's, where that can be had."""
    try:
        sides.need("tgtd", "tgtadm")
        if not any(Path(place).glob("**/qemu/block-iscsi.so") for place in ("/usr/lib",)):
            raise sides.Missing("QEMU has no libiscsi (qemu-block-extra)")
    except sides.Missing as missing:
        lab.results["missing"].append(f"guest over libiscsi: {missing}")
        return
    from iscsi import TARGET, Tgtd # needs what was just looked for
    disk = sides.filled(lab.directory / "tgtd.img", 256)
    tgtd = Tgtd(lab.directory, disk)
    stack.callback(tgtd.close)
    url = f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1"
    found["guest on this backend, iSCSI"] = ours("ours-iscsi", url)
    found["guest on QEMU's libiscsi"] = guest("libiscsi", SCSI_HD[:4] + [
        "-drive", f"if=none,id=hd,file={url},format=raw"] + SCSI_HD[4:])


def bars(lab, samples):
    def ratio(one, other, key):
        return statistics.median(a[key] / b[key] for a, b in zip(samples[one], samples[other]))

    how = lab.results["machine"]["guests"]
    note = "" if how == "KVM" else "guests run by TCG, which is the limit, and their notifications go through QEMU's main loop"
    for what, one, other in (
            ("QEMU's virtio-scsi with scsi-hd, fio in the guest, depth 32", "guest on this backend", "guest on scsi-hd"),
            ("QEMU's virtio-scsi over libiscsi to tgtd, fio in the guest, depth 32", "guest on this backend, iSCSI",
             "guest on QEMU's libiscsi")):
        if one in samples and other in samples:
            rate, cpu = ratio(one, other, "commands_per_second"), ratio(one, other, "cpu_us")
            own = statistics.median(sample["backend_us"] / sample["cpu_us"] for sample in samples[one])
            lab.bar(what, "commands/s >= 1.0, CPU outside the vCPUs <= 0.5", f"{rate:.2f}, {cpu:.2f}",
                    rate >= 1 and cpu <= 0.5, "; ".join(filter(None, [note, f"the backend's own share of its CPU: {own:.0%}"])))
        else:
            lab.bar(what, "commands/s >= 1.0, CPU outside the vCPUs <= 0.5", "not measured", None, os.linesep.join(
                missing for missing in lab.results["missing"] if missing.startswith("guest")))
