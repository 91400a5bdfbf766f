"""QEMU with the lab's guest (images/) in it."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from guest import Guest
from process import Process
from qmp import Qmp

IMAGES = Path(__file__).resolve().parents[2] / "images" / "out"
QEMU = "qemu-system-x86_64"

# The lab's machines: kernel, initramfs, root.
GUEST = ("vmlinuz", "initramfs", "tools.img")
HYPERVISOR = ("host-vmlinuz", "host-initramfs", "host.img")
HYPERVISOR_NEXT = ("host-next-vmlinuz", "host-next-initramfs", "host.img") # with a newer kernel, which Debian may not have

# Slow under TCG and of no use in a guest that trusts everybody: mitigations. Pages that are cleared before a device writes
# to them would be marked as dirty for that already: test_migration.py would see nothing.
KERNEL_ARGUMENTS = "root=/dev/vda console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0"

TCG = ["-accel", "tcg,thread=multi", "-cpu", "max"]
KVM = ["-accel", "kvm", "-cpu", "host"]


@functools.cache
def accelerator():
    """KVM where a guest boots with it, else TCG. In some virtual machines /dev/kvm opens and firmware runs, but no
    kernel does, so this boots the guest's kernel: without a root it panics within a second."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    probe = [QEMU, *KVM, "-M", "q35", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
             "-kernel", str(IMAGES / "vmlinuz"), "-append", "console=ttyS0 panic=-1"]
    try:
        console = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False).stdout
    except subprocess.TimeoutExpired:
        return TCG
    return KVM if b"Kernel panic - not syncing: VFS" in console else TCG


def vhost_user_disk(socket, boot=False):
    """The backend's LUN. The reconnecting chardev lets the backend restart under a running guest."""
    return ["-chardev", f"socket,id=lun,path={socket},reconnect-ms=200",
            "-device", "vhost-user-scsi-pci,id=scsi,chardev=lun" + (",bootindex=1" if boot else "")]


def command_line(disk, vcpus, memory_mib, accelerate, system=GUEST):
    """The machine, without a way to talk to it. vhost-user needs guest memory that can be shared: a memfd. Without a
    `system` it is left to the BIOS to find one on `disk`."""
    command = [
        QEMU, "-nodefaults", "-no-user-config", "-display", "none", *accelerate,
        "-machine", "q35,memory-backend=memory", "-smp", str(vcpus), "-m", f"{memory_mib}M",
        "-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on"]
    if system:
        kernel, initramfs, root = (str(IMAGES / name) for name in system)
        command += ["-kernel", kernel, "-initrd", initramfs, "-append", KERNEL_ARGUMENTS,
                    "-drive", f"if=none,id=tools,format=raw,readonly=on,file={root}",
                    "-device", "virtio-blk-pci,drive=tools"]
    return command + disk


class Vm:
    """A running machine: `guest` runs scripts in it, `qmp` is QEMU's monitor. It ends with the `with` block."""

    def __init__(self, directory, disk, vcpus=2, memory_mib=512, accelerate=None, system=GUEST, moves_from=None):
        """Starts QEMU, its sockets and logs in `directory`; `guest.wait_ready` tells when the guest is up.

        `system` is one of the lab's, or `None` for the one that the BIOS finds on `disk`. With `moves_from`, another
        machine, it waits for that one's guest."""
        self.console_log = Path(directory, "console.log")
        self.qemu_log = Path(directory, "qemu.log")
        self._sockets = tempfile.TemporaryDirectory(prefix="vm-") # short enough for a socket's name
        self.console = self._socket("console")
        monitor, commands, output = (self._socket(name) for name in ("monitor", "commands", "output"))
        options = [
            "-chardev", f"socket,id=console,path={self.console},server=on,wait=off,logfile={self.console_log}",
            "-serial", "chardev:console",
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=commands,path={commands},server=on,wait=off",
            "-device", "virtserialport,chardev=commands,name=lab.commands",
            "-chardev", f"socket,id=output,path={output},server=on,wait=off",
            "-device", "virtserialport,chardev=output,name=lab.output"]
        self.incoming = self._socket("incoming")
        if moves_from:
            options += ["-incoming", f"unix:{self.incoming}"]
        machine = command_line(disk, vcpus, memory_mib, accelerate or accelerator(), system)
        self.guest = self.qmp = None
        self.process = Process(machine + options, self.qemu_log)
        try:
            if moves_from:
                moves_from.guest.follow(commands, output, self.process.check)
            else:
                self.guest = Guest(commands, output, self.process.check)
            self.qmp = Qmp(monitor, alive=self.process.check)
        except BaseException:
            self.close()
            raise

    def take_guest(self, source):
        """The guest of `source` has moved to this machine; that one ends."""
        self.guest, source.guest = source.guest, None
        source.close()
        self.guest.wait_moved()

    def close(self):
        """Ends the machine, whatever the guest is doing."""
        self.process.kill()
        for client in (self.guest, self.qmp):
            if client:
                client.close()
        self._sockets.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _socket(self, name):
        return os.path.join(self._sockets.name, name)
