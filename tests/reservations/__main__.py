"""Runs the tests of persistent reservations, on arrays that the world uses.

    python3 tests/reservations [--all] [WORD...]     --all adds the long ones; words choose tests by their names
"""

from arrays import HERE # first: it says where tests/qemu is
from backend import PROGRAMS
from vm import IMAGES

import runner

runner.run(HERE, {
    PROGRAMS / "vhost-user-scsi-mpath": "cargo build --release --locked",
    IMAGES / "tools.img": "images/build"})
