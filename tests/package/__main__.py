"""Builds the Debian package and tries it in a clean Debian with systemd, as root, in namespaces of its own.

    python3 tests/package [WORD...]     words choose tests by their names
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "qemu"))

import runner

runner.run(HERE, {})
