"""The BIOS boots a system from the LUN."""

from case import Lab, LabCase
from vm import IMAGES


class BiosBoot(LabCase):
    """The BIOS, the boot loader and Linux in turn read the same LUN, each with a driver of its own."""

    @classmethod
    def new_lab(cls):
        return Lab(cls.__name__, system=IMAGES / "boot.img")

    def test_system_boots_from_the_lun_and_again_after_a_reboot(self):
        self.check_system()
        self.guest.start("reboot -f")
        self.guest.wait_ready()
        self.check_system()

    def check_system(self):
        self.assertIn("lab.boot=disk", self.guest.run("cat /proc/cmdline"))
        self.assertEqual(self.guest.run("findmnt -n -o SOURCE /"), "/dev/sda1")
        self.assertEqual(self.guest.run("ls /sys/block"), "sda")
