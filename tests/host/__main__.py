"""Runs the tests of host SCSI devices, in a machine that plays the hypervisor.

    python3 tests/host [--all] [WORD...]     --all adds the long ones; words choose tests by their names
"""

from machine import BINARIES, HERE # first: it says where tests/qemu is
from hostcase import Shared
from vm import IMAGES

import runner

runner.run(HERE, {
    **{binary: "cargo build --release --locked --bins --example verified_load" for binary in BINARIES},
    IMAGES / "host.img": "images/build"}, Shared.close_all, line=lambda test: getattr(test, "line", None))
