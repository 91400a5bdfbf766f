"""Runs the QEMU tests.

    python3 tests/qemu [--all] [WORD...]     --all adds the long ones; words choose tests by their names
"""

from pathlib import Path

import runner
from backend import PROGRAMS
from vm import IMAGES

runner.run(Path(__file__).resolve().parent, {
    PROGRAMS / "vhost-user-scsi-mpath": "cargo build --release --locked",
    IMAGES / "boot.img": "images/build"})
