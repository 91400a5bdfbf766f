"""What the tests of host devices share: a few machines that they take turns on, and checks of paths and loads."""

import json
import time
import unittest

from machine import Machine
from vm import HYPERVISOR


class Shared:
    """The machines. One takes a while to boot, so it serves all tests of a line; one in which a test failed serves no
    other. Tests wait more than they work, so the lines run side by side."""

    machines = {}

    @classmethod
    def get(cls, line, system):
        if line not in cls.machines:
            cls.machines[line] = Machine(line, system=system)
        return cls.machines[line]

    @classmethod
    def close(cls, line):
        if line in cls.machines:
            cls.machines.pop(line).close()

    @classmethod
    def close_all(cls):
        for line in list(cls.machines):
            cls.close(line)


class HostCase(unittest.TestCase):
    """A test with a machine, and its own backend and storage in it."""

    line = "tests"
    system = HYPERVISOR

    def setUp(self):
        self.machine = Shared.get(self.line, self.system)
        self.machine.run("rm -f /run/backend.log; dmesg -c >/dev/null; mkdir -p /run/lab")

    def run(self, result=None):
        bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > bad and self.line in Shared.machines:
            Shared.machines[self.line].show_logs()
            Shared.close(self.line)
        return result

    def paths(self):
        """What query-paths says, by path name."""
        return {path["name"]: path for path in json.loads(self.machine.control("--json", "paths"))}

    def wait_state(self, name, *states, timeout=30):
        """Waits until a path is in one of these states; returns after how many seconds."""
        started = time.monotonic()
        while (state := self.paths()[name]["state"]) not in states:
            if time.monotonic() > started + timeout:
                self.fail(f"path {name} is {state}, not {' or '.join(states)}, after {timeout} s: {self.paths()[name]}")
            time.sleep(0.25)
        return time.monotonic() - started

    def wait_change(self, name, change, timeout=30):
        """Waits until the log has told of a path's change of state, which may have passed before anybody asks for it."""
        line = f"path {name}: {change}: "
        self.wait_until(lambda: line in self.machine.run("cat /run/backend.log"), f"the log says '{line}'", timeout)

    def wait_until(self, condition, what, timeout=30):
        """Waits until something is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"after {timeout} s it is not so: {what}; {self.paths()}")
            time.sleep(0.25)

    def start_backend(self, *names, lun="", prefix="", direct_io=False):
        """Our backend on these nodes of /dev, or addresses; returns when all paths are up. It is run by `prefix`."""
        addresses = [name if "://" in name else f"/dev/{name}" for name in names]
        config = f"[lun]\n{lun}\n"
        for address in addresses:
            config += f'[[path]]\naddress = "{address}"\ndirect_io = {str(direct_io).lower()}\n'
        self.machine.run(f"cat >/run/lab/config.toml <<'END'\n{config}END")
        self.machine.start_backend([], "--config /run/lab/config.toml", prefix=prefix)
        for name in self.paths():
            self.wait_state(name, "up")

    def command(self, cdb, data_out="", data_in=0):
        """Sends one command as a guest, all in hexadecimal digits; its status, sense and data."""
        words = f"verified_load --socket /run/lun.sock --queues 1 --cdb {cdb} --data-in {data_in}"
        return json.loads(self.machine.run(words + (f" --data-out {data_out}" if data_out else "")))

    def assert_clean(self, report):
        """The load saw no error and no wrong data, and did something."""
        self.assertEqual(report["errors"], 0, report["first_errors"])
        for kind in ("reads", "writes"):
            self.assertGreater(sum(phase[kind]["count"] for phase in report["phases"]), 20, report["phases"])
