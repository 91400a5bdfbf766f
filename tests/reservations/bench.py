"""One guest with the disks of an array that are all alike: one over QEMU's own initiator, the others over backends."""

import re
from contextlib import closing

from arrays import BuiltInArray
from scene import backend_over

from vm import Vm

ORG = "iqn.2003-01.org.example"


def qemus_own(number, url, initiator):
    """A disk over QEMU's own iSCSI initiator, as it is: QEMU looks at no command of the guest's."""
    portal, target, lun = re.fullmatch("iscsi://([^/]+)/([^/]+)/([0-9]+)", url).groups()
    return ["-blockdev", f"driver=iscsi,node-name=disk{number},transport=tcp,portal={portal},target={target},lun={lun},"
            f"initiator-name={ORG}:{initiator}",
            "-device", f"scsi-generic,bus=own.0,scsi-id={number},drive=disk{number}"]


class Bench:
    """`views`: what the guest has of each disk, as a title and the devices of the two initiators, the guest's `us` and
    another one, `them`. The first is over one path. The built-in array, of which there is one way only, has no other
    initiator."""

    def __init__(self, stack, directory, array, paths=(2, 4)):
        self.views = []
        built_in = array is BuiltInArray
        ways = (1, *paths) if built_in else (0, *paths)
        self.array = stack.enter_context(closing(array(directory, len(ways))))
        devices, places = ["-device", "virtio-scsi-pci,id=own,addr=0x10"], []
        for disk, count in enumerate(ways):
            us, them = (0x10, disk), (0x10, 0x80 + disk)
            if not built_in:
                devices += qemus_own(them[1], self.array.url(disk=disk), "them")
            if count == 0:
                devices += qemus_own(us[1], self.array.url(disk=disk), "us")
            else:
                place = directory / f"over{count}"
                place.mkdir()
                backend, _ = backend_over(stack, place, self.array, "us", count, disk)
                us = (0x11 + disk, 0)
                devices += ["-chardev", f"socket,id=lun{disk},path={backend.socket}",
                            "-device", f"vhost-user-scsi-pci,chardev=lun{disk},addr={us[0]:#x}"]
            title = f"over {count} paths through us" if count else "on one path"
            places.append((title, {"us": us} if built_in else {"us": us, "them": them}))
        self.guest = stack.enter_context(Vm(directory, devices)).guest
        self.guest.wait_ready()
        self.views = [(title, {who: self._device(*at) for who, at in where.items()}) for title, where in places]

    def _device(self, slot, target):
        """The sg device of a target behind the adapter in this PCI slot."""
        names = f"/sys/bus/pci/devices/0000:00:{slot:02x}.0/virtio*/host*/target*:{target}/*/scsi_generic/*"
        return "/dev/" + self.guest.run(f"basename {names}").strip()
