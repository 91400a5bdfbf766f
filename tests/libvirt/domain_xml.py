"""The XML of a domain of libvirt's without our disks, which `mpathctl libvirt-xml` makes."""

from xml.etree import ElementTree
from xml.sax.saxutils import escape

from vm import GUEST, KERNEL_ARGUMENTS, KVM, accelerator

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
ElementTree.register_namespace("qemu", QEMU_NAMESPACE)

CONSOLE = "<serial type='pty'/><console type='pty'/>" # what `virsh console` shows


def domain_xml(name, channels=None, kernel=None, machine="q35", memory_mib=512, vcpus=2, console=CONSOLE):
    """Its tree. With `kernel`, a directory, it is the lab's guest; with `channels`, another one, it can be spoken to."""
    name, kernel, channels = (text and escape(str(text), {"'": "&apos;"}) for text in (name, kernel, channels))
    kind, cpu = ("kvm", "host-passthrough") if accelerator() is KVM else ("qemu", "maximum")
    system = disk = talk = ""
    if kernel:
        vmlinuz, initramfs, tools = (f"{kernel}/{file}" for file in GUEST)
        system = f"<kernel>{vmlinuz}</kernel><initrd>{initramfs}</initrd><cmdline>{KERNEL_ARGUMENTS}</cmdline>"
        disk = (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{tools}'/>"
                "<target dev='vda' bus='virtio'/><readonly/></disk>")
    if channels:
        talk = "".join(f"<channel type='unix'><source mode='bind' path='{channels}/{port}'/>"
                       f"<target type='virtio' name='lab.{port}'/></channel>" for port in ("commands", "output"))
    return ElementTree.fromstring(f"""
        <domain type='{kind}'>
          <name>{name}</name>
          <memory unit='MiB'>{memory_mib}</memory>
          <vcpu>{vcpus}</vcpu>
          <os><type arch='x86_64' machine='{machine}'>hvm</type>{system}</os>
          <features><acpi/></features>
          <cpu mode='{cpu}'/>
          <devices>
            {disk}
            {console}
            {talk}
          </devices>
        </domain>""")
