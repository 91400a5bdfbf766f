"""Domains of libvirt with disks of our backends: made from `mpathctl libvirt-xml`, as a person would."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from daemon import OUT, QEMU_USER, Libvirtd, VirshError
from domain_xml import domain_xml
from backend import PROGRAMS, Backend, emulated_ports
from guest import Guest
from process import tail

DISK_SIZE = 256 << 20

# Who may connect, as docs/libvirt.md has it.
ACCESS = f'[backend]\nsocket_group = "{QEMU_USER}"\nsocket_mode = "0660"\n'


def libvirt_backend(directory, name, access=ACCESS, image=None, paths=None):
    """A backend on two ports of an image, or these paths, whose socket libvirt's QEMU may open."""
    place = Path(directory, name)
    place.mkdir()
    config = place / "config.toml"
    config.write_text(access)
    paths = paths or emulated_ports(place / "disk.img", None if image else DISK_SIZE)
    if image:
        shutil.copyfile(image, place / "disk.img")
    backend = Backend(place, paths, "--config", str(config))
    os.chmod(os.path.dirname(backend.socket), 0o711) # QEMU runs as another user
    return backend


def libvirt_xml(*arguments):
    """What `mpathctl libvirt-xml` prints, as a tree."""
    done = subprocess.run([PROGRAMS / "mpathctl", "libvirt-xml", *arguments], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=10, check=True)
    return ElementTree.fromstring(done.stdout)


class Domain:
    """A domain: `guest` runs scripts in it. It is gone when it is closed."""

    def __init__(self, name, ours, daemon=None, **options):
        """Defines it: `domain_xml` with what `libvirt_xml` printed in it."""
        self.name = name
        self.daemon = daemon or Libvirtd.get()
        self.guest = None
        (OUT / f"{name}.console.log").unlink(missing_ok=True)
        console = f"<serial type='file'><source path='{OUT}/{name}.console.log'/></serial>"
        tree = domain_xml(name, console=console, **options)
        tree.extend(ours)
        file = self.daemon.directory / f"{name}.xml"
        file.write_text(ElementTree.tostring(tree, encoding="unicode"))
        self.daemon.virsh("define", "--validate", file)

    def start(self, channels=None):
        self.daemon.virsh("start", self.name)
        if channels:
            self.guest = Guest(f"{channels}/commands", f"{channels}/output", self.check)

    def check(self):
        """Raises when it does not run."""
        if self.virsh("domstate") != "running":
            raise VirshError(f"{self.name} does not run; QEMU's last words:\n{tail(self.log)}")

    @property
    def log(self):
        return self.daemon.machine_log(self.name)

    def virsh(self, command, *arguments, timeout=60):
        return self.daemon.virsh(command, self.name, *arguments, timeout=timeout)

    def close(self):
        if self.guest:
            self.guest.close()
        for command in ("destroy", "undefine"):
            try:
                self.virsh(command)
            except VirshError:
                pass # it did not run


class DomainLab:
    """Backends, and a domain with their disks that runs. Made for case.LabCase."""

    def __init__(self, name, disks, *arguments, image=None, kernel=True, **options):
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._channels = tempfile.TemporaryDirectory(prefix="vm-") # short enough for a socket's name
        os.chmod(self._channels.name, 0o777)
        self.backends, self.vm = [], None
        try:
            for disk in range(disks):
                self.backends.append(libvirt_backend(self.directory, f"disk{disk}", image=image))
            sockets = [word for backend in self.backends for word in ("--socket-path", backend.socket)]
            self.vm = Domain(name.lower(), libvirt_xml(*sockets, *arguments), channels=self._channels.name,
                             kernel=Libvirtd.get().directory if kernel else None, **options)
            self.vm.start(self._channels.name)
            self.guest.wait_ready()
        except BaseException:
            self.show_logs()
            self.close()
            raise

    @property
    def backend(self):
        return self.backends[0]

    @property
    def guest(self):
        return self.vm.guest

    def close(self):
        if self.vm:
            self.vm.close()
        for backend in self.backends:
            backend.close()
        for image in self.directory.glob("*/disk.img"):
            image.unlink()
        self._channels.cleanup()

    def show_logs(self):
        logs = [*self.directory.glob("*/*.log"), Libvirtd.get().log]
        if self.vm:
            logs = [OUT / f"{self.vm.name}.console.log", self.vm.log, *logs]
        for log in logs:
            print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)
