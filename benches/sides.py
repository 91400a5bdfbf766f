"""What is measured: our backend, its peers, and the load on them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
PROGRAMS = TARGET / "release"
PEER_VERSION = "0.1.0"
PEERS = TARGET / "peers"
PEER = PEERS / "bin" / "vhost-device-scsi"

sys.path.insert(0, str(PROJECT / "tests" / "qemu"))
from backend import Backend # noqa: E402 its folder is known only now
from process import Process, exit_on_sigterm # noqa: F401 for benches/run


class Missing(Exception):
    """Something cannot be measured here, and why."""


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def build():
    """Our programs, as they are shipped, and the peer that cargo can build."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--bins", "--example", "front_load", "--example", "core_cost"],
                   cwd=PROJECT, check=True)
    if not PEER.exists():
        say(f"building vhost-device-scsi {PEER_VERSION}, once")
        install = ["cargo", "install", "vhost-device-scsi", "--version", PEER_VERSION, "--locked", "--root", str(PEERS),
                   "--target-dir", str(PEERS / "build")]
        subprocess.run(install, check=False) # where that fails the table says that it is missing


def output(*command):
    """What a command prints first, "" if it is not there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    return ""


def versions():
    commit = output("git", "-C", str(PROJECT), "describe", "--always", "--dirty")
    found = {"this backend": f"{output(str(PROGRAMS / 'vhost-user-scsi-mpath'), '--version')} ({commit})",
             "rustc": output("rustc", "--version"), "fio": output("fio", "--version"),
             "QEMU": output("qemu-system-x86_64", "--version"),
             "vhost-device-scsi": PEER_VERSION if PEER.exists() else "",
             "tgtd": output("tgtd", "--version"), "libiscsi": output("dpkg-query", "-W", "-f", "${Version}", "libiscsi-bin")}
    return {name: version or "missing" for name, version in found.items()}


def busy_share(seconds=1.5):
    """The share of all processors that others keep busy now."""
    def ticks():
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    before = ticks()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(ticks(), before))
    return round(1 - idle / max(total, 1), 2)


def machine():
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {"processor": names[0] if names else "unknown", "cores": os.cpu_count(), "kernel": os.uname().release,
            "busy_before": busy_share()}


def filled(path, megabytes):
    """A file with something in every block: no side gets away with a hole."""
    chunk = os.urandom(1 << 20)
    with open(path, "wb") as image:
        for _ in range(megabytes):
            image.write(chunk)
    return path


def child(process):
    return process._child.pid # pylint: disable=protected-access


@contextlib.contextmanager
def ours(directory, paths, *options):
    """Our backend: its socket, its process, and itself."""
    with Backend(directory, paths, *options) as backend:
        deadline = time.monotonic() + 20
        while any(path["state"] != "up" for path in backend.control.execute("query-paths")):
            if time.monotonic() > deadline:
                raise TimeoutError("a path is not up")
            time.sleep(0.02)
        yield backend.socket, child(backend._process), backend # pylint: disable=protected-access


@contextlib.contextmanager
def peer(directory, image):
    """vhost-device-scsi on the same kind of image: its socket and its process."""
    if not PEER.exists():
        raise Missing(f"vhost-device-scsi {PEER_VERSION} could not be built")
    with tempfile.TemporaryDirectory(prefix="peer-") as sockets: # short enough for a socket's name
        socket = os.path.join(sockets, "s")
        process = Process([str(PEER), "--socket-path", socket, str(image)], Path(directory, "peer.log"))
        try:
            deadline = time.monotonic() + 10
            while not os.path.exists(socket):
                process.check()
                if time.monotonic() > deadline:
                    raise TimeoutError("vhost-device-scsi does not listen")
                time.sleep(0.02)
            yield socket, child(process), None
        finally:
            process.stop()


def load(side, *arguments, seconds=1.0, warm=0.5):
    """One measurement by our own front end."""
    socket, process = side[:2]
    command = [str(PROGRAMS / "examples" / "front_load"), "--socket", socket, "--process", str(process),
               "--seconds", str(seconds), "--warm", str(warm), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout)


def anonymous_memory(process):
    """RssAnon in KiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def need(*programs):
    for program in programs:
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            raise Missing(f"{program} is not installed")
