"""A real libvirtd, in namespaces of its own, with everything that it writes in a directory of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "qemu"))
from process import Process # noqa: E402
from vm import GUEST, IMAGES, KVM, accelerator # noqa: E402

OUT = HERE / "out" # git ignores it
# Debian's user for libvirt's QEMU, and its group.
QEMU_USER = "libvirt-qemu"
SBIN = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# No virtlogd and no control groups: both would be the machine's own. No namespace for each QEMU: there is one around all.
QEMU_CONF = """\
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
"""


class VirshError(Exception):
    """virsh, or libvirt, did not do it."""


class Libvirtd:
    """The daemon. Its machines, like itself, end with the first process of their namespace of processes."""

    shared = None

    @classmethod
    def get(cls):
        """The one that all tests use: looking at QEMU takes it some seconds at its start."""
        if cls.shared is None:
            cls.shared = cls()
        return cls.shared

    @classmethod
    def close_shared(cls):
        if cls.shared:
            cls.shared.close()
            cls.shared = None

    def __init__(self, name="libvirtd", host=None):
        """`host` is the name and the UUID of the host that it believes to be on, where that is not this one."""
        OUT.mkdir(exist_ok=True)
        self._directory = tempfile.TemporaryDirectory(prefix="libvirt-") # short enough for a socket's name
        self.directory = Path(self._directory.name)
        self.directory.chmod(0o711) # QEMU runs as another user
        self.log = OUT / f"{name}.log"
        self.log.unlink(missing_ok=True)
        socket = self.directory / "sock"
        socket.mkdir()
        self.uri = f"qemu+unix:///system?socket={socket}/libvirt-sock"
        (self.directory / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{socket}"\nauth_unix_rw = "none"\nlog_outputs = "3:stderr"\n'
            + (f'host_uuid = "{host[1]}"\n' if host else ""))
        configuration = self.directory / "etc" / "libvirt"
        configuration.mkdir(parents=True)
        (configuration / "qemu.conf").write_text(QEMU_CONF)
        for name in GUEST: # libvirt gives its machines' files to QEMU's user
            shutil.copyfile(IMAGES / name, self.directory / name)
        self._process = Process(
            ["env", f"PATH={SBIN['PATH']}", "unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child",
             "--mount-proc", "--propagation", "private", str(HERE / "boot"), str(self.directory),
             "kvm" if accelerator() is KVM else "tcg", *(host or ())[:1]], self.log)
        try:
            self._wait(socket / "libvirt-sock")
        except BaseException:
            self.close()
            raise

    def _wait(self, socket, timeout=60):
        deadline = time.monotonic() + timeout
        while not socket.exists():
            self._process.check()
            if time.monotonic() > deadline:
                raise TimeoutError("libvirtd does not listen")
            time.sleep(0.1)
        self.virsh("version", timeout=timeout)

    def virsh(self, *words, timeout=60):
        """What a command of virsh prints; `VirshError` with its words if it fails."""
        done = subprocess.run(["virsh", "--quiet", "--connect", self.uri, *map(str, words)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise VirshError(done.stderr.strip())
        return done.stdout.strip()

    def put(self, place, at):
        """The directory `place` is what this daemon and its machines find at `at`."""
        subprocess.run(["nsenter", "--mount", f"--target={self._process.pid}", "mount", "--bind", place, at],
                       stdin=subprocess.DEVNULL, timeout=10, check=True)

    def machine_log(self, name):
        """What QEMU said."""
        return self.directory / "var" / "log" / "libvirt" / "qemu" / f"{name}.log"

    def close(self):
        self._process.kill()
        self._directory.cleanup()
