"""The machine that plays the hypervisor: real SCSI, our programs, storage arrays of its own; driven by scripts."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "qemu"))
from backend import PROGRAMS # noqa: E402
from guest import GuestError # noqa: E402
from process import tail # noqa: E402
from vm import HYPERVISOR, Vm # noqa: E402

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" # git ignores it
BINARIES = [PROGRAMS / "vhost-user-scsi-mpath", PROGRAMS / "mpathctl", PROGRAMS / "examples" / "verified_load"]


_making_disk = threading.Lock()
_disks = {} # those of this run


def programs_disk(binaries):
    """An image with programs as built on this machine, and with the libraries that they load here: the machine inside
    may have others. One serves all machines of a run that want the same."""
    with _making_disk:
        if binaries not in _disks:
            _disks[binaries] = make_programs_disk(f"programs{len(_disks) or ''}", binaries)
        return _disks[binaries]


def make_programs_disk(called, binaries):
    root = OUT / called
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "lib"):
        (root / name).mkdir(parents=True)
    shutil.copy(HERE / "lab.sh", root)
    for binary in binaries:
        shutil.copy(binary, root / "lib" / f"{binary.name}.elf")
        listing = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"/[^ ]+\.so[^ ]*", listing):
            shutil.copy(library, root / "lib")
        wrapper = root / "bin" / binary.name
        wrapper.write_text(f"#!/bin/sh\nexec /mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib"
                           f" --argv0 {binary.name} /mnt/lib/{binary.name}.elf \"$@\"\n")
        wrapper.chmod(0o755)
    subprocess.run(["strip", "--strip-debug", *root.glob("lib/*.elf")], check=False)
    image = OUT / f"{called}.img"
    image.unlink(missing_ok=True)
    megabytes = sum(file.stat().st_size for file in root.rglob("*")) * 5 // 4 >> 20
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, image,
                    f"{megabytes + 8}M"], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(root)
    return image


class Load:
    """Verified I/O in the machine: on a backend's socket, or on a block device."""

    # The script that begins a new phase of the report.
    MARK = "kill -USR1 $(cat /run/load.pid)"

    def __init__(self, machine, where, queues=2, depth=4, options="", rest=20):
        """Each queue rests for `rest` milliseconds after a command: the tests need steady I/O, and an emulated CPU has
        other things to do as well."""
        self._machine = machine
        # `exec`, so that the number is the program's own.
        self._script = machine.start(f"echo $$ >/run/load.pid; exec verified_load {where} --queues {queues}"
                                     f" --depth {depth} --rest {rest} {options}")
        machine.run("until grep -q verified_load /proc/$(cat /run/load.pid)/cmdline; do sleep 0.3; done")

    def close(self):
        """Ends it, if it still runs, whatever it was doing."""
        if not self._script.ended:
            self._machine.run("kill -KILL $(cat /run/load.pid)", check=False)
            self._script.wait(check=False)

    def stop(self, timeout=120):
        """The report, once all that was under way has ended and has been read back."""
        self._machine.run("kill -TERM $(cat /run/load.pid)", check=False)
        return json.loads(self._script.wait(timeout).splitlines()[-1])


class Machine:
    """A running machine."""

    def __init__(self, name, vcpus=2, memory_mib=1024, system=HYPERVISOR, programs=(*BINARIES,), accelerate=None, patience=120):
        """Returns when it is up, which may take so many seconds. It has these programs of this machine."""
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        disk = programs_disk(programs)
        drive = ["-drive", f"if=none,id=programs,format=raw,readonly=on,file={disk}",
                 "-device", "virtio-blk-pci,drive=programs"]
        for once_more in (True, False):
            self._vm = Vm(self.directory, drive, vcpus, memory_mib, accelerate, system)
            try:
                return self._vm.guest.wait_ready(patience)
            except GuestError as error:
                self.close()
                if not once_more:
                    raise
                # Nothing of ours runs in it yet: without KVM a kernel sometimes stops before its first word.
                print(f"machine {name}: {error}; it is booted once more", file=sys.stderr)
            except BaseException:
                self.close()
                raise

    def close(self):
        self._vm.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.show_logs()
        self.close()

    def run(self, script, timeout=60, check=True):
        """Runs a shell script, in which the functions of lab.sh are known; what it printed."""
        return self.start(script).wait(timeout, check)

    def start(self, script):
        """Starts one and goes on."""
        return self._vm.guest.start(f"set -e\n. /mnt/lab.sh\n{script}")

    def show_logs(self):
        print(f"--- the end of {self._vm.console_log}\n{tail(self._vm.console_log)}", file=sys.stderr)
        for command in ("dmesg | tail -n 30", "tail -n 30 /run/backend.log"):
            try:
                print(f"--- {command}\n{self.run(command, 10, check=False)}", file=sys.stderr)
            except Exception as error: # pylint: disable=broad-except # the first error is the one to show
                print(error, file=sys.stderr)

    def start_backend(self, paths, *options, prefix=""):
        """Our backend on these paths, run by `prefix`; returns when it listens."""
        words = " ".join([*(f"--path {path}" for path in paths), *options])
        self.run(f"""
            {prefix} vhost-user-scsi-mpath --socket-path /run/lun.sock --control /run/lun.ctl {words} </dev/null \\
                >>/run/backend.log 2>&1 &
            echo $! >/run/backend.pid
            until [ -S /run/lun.sock ] && [ -S /run/lun.ctl ]; do kill -0 $(cat /run/backend.pid); sleep 0.3; done""")

    def stop_backend(self):
        """Ends it as an init system does."""
        self.run("""
            kill $(cat /run/backend.pid)
            while kill -0 $(cat /run/backend.pid) 2>/dev/null; do sleep 0.1; done
            ! grep -i panic /run/backend.log""")

    def control(self, *words):
        """What mpathctl prints."""
        return self.run(f"mpathctl -s /run/lun.ctl {' '.join(words)}")

    def wait_for(self, script, what, timeout=30):
        """Runs a script until it succeeds."""
        deadline = time.monotonic() + timeout
        while not self._succeeds(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s: {what}")
            time.sleep(0.2)

    def _succeeds(self, script):
        return self.run(f"if {{ {script}\n}} >/dev/null 2>&1; then echo yes; fi") == "yes"
