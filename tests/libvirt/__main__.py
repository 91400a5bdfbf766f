"""Runs the tests with libvirt.

    python3 tests/libvirt [WORD...]     words choose the tests with one of them in their names
"""

from daemon import HERE, Libvirtd # first: it says where tests/qemu is
from backend import PROGRAMS
from vm import IMAGES

import runner

runner.run(HERE, {
    PROGRAMS / "vhost-user-scsi-mpath": "cargo build --release --locked",
    PROGRAMS / "mpathctl": "cargo build --release --locked",
    IMAGES / "boot.img": "images/build"}, Libvirtd.close_shared)
