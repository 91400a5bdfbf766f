"""QEMU's own client library speaks to the control socket."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from backend import PROJECT, Backend, emulated_ports

VENV_PYTHON = PROJECT / "target" / "venv" / "bin" / "python"
CLIENT = Path(__file__).resolve().parent / "qmp_client.py"


@unittest.skipUnless(VENV_PYTHON.exists(), "no qemu.qmp: tests/install installs it")
class QemuQmp(unittest.TestCase):
    """The `qemu.qmp` package, in its own process and environment."""

    def test_client_queries_paths_and_receives_an_event(self):
        with tempfile.TemporaryDirectory() as directory:
            image = Path(directory, "disk.img")
            with Backend(directory, emulated_ports(image, size=16 << 20)) as backend:
                name = backend.path_names()[0]
                backend.wait_path_state(name, "up")
                client = subprocess.run([VENV_PYTHON, CLIENT, backend.control_socket, name],
                                        capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(client.returncode, 0, client.stderr)
        seen = json.loads(client.stdout)
        self.assertEqual([path["state"] for path in seen["paths"]], ["up", "up"])
        self.assertEqual(seen["event"]["name"], name)
        self.assertEqual((seen["event"]["from"], seen["event"]["to"]), ("up", "disabled"))
