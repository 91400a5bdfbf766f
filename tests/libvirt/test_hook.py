"""The example of a hook (packaging/libvirt/qemu-hook), as libvirt calls it, with ssh and mpathctl played by scripts."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

HOOK = Path(__file__).resolve().parents[2] / "packaging" / "libvirt" / "qemu-hook"
XML = """<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:commandline>
<qemu:arg value='socket,id=a,path={run}/vm7-sda.sock,reconnect-ms=1000'/>
<qemu:arg value='socket,id=b,path={run}/vm7-sdb.sock,reconnect-ms=1000'/>
<qemu:arg value='socket,id=c,path=/elsewhere/other.sock'/></qemu:commandline></domain>"""

# On host1 nobody uses the disk, host2 is the source. This host's sdb keeps no state.
SSH = """#!/bin/sh
peer=$1; shift
echo "ssh $peer $*" >>"$LOG"
case "$peer $*" in
  *" lun --json") [ "$peer $3" = "host2 $THERE" ] && echo '{"connected": true}' || echo '{"connected": false}' ;;
  "host2 mpathctl -s "*" reservation export") [ -z "$BROKEN" ] && echo '{"exported": "here"}' ;;
  *) exit 1 ;;
esac
"""
MPATHCTL = """#!/bin/sh
case "$*" in
  *vm7-sda.ctl" reservation --json")
    [ -z "$DEAD" ] || exit 1
    # Not known yet, the first time that it is asked.
    [ -e "$LOG.asked" ] && echo '{"state": "kept", "paths": [{"registration": "none"}]}' || echo '{"state": "opening"}'
    touch "$LOG.asked" ;;
  *vm7-sdb.ctl" reservation --json") echo '{"state": "none"}' ;;
  *) echo "mpathctl $* <$(cat)" >>"$LOG" ;;
esac
"""


class LibvirtHook(unittest.TestCase):
    """What it does, from what the two programs were asked."""

    def setUp(self):
        self._directory = tempfile.TemporaryDirectory(prefix="hook-")
        self.addCleanup(self._directory.cleanup)
        self.run_directory = Path(self._directory.name)
        for name, text in (("ssh", SSH), ("mpathctl", MPATHCTL)):
            program = self.run_directory / name
            program.write_text(text)
            program.chmod(0o755)
        (self.run_directory / "conf").write_text('PEERS="host1 host2 host3"\nSSH=ssh\n')

    def hook(self, *words, broken="", dead="", there="vm7-sda.ctl"):
        environment = {"THERE": str(self.run_directory / there), **os.environ, "PATH": f"{self.run_directory}:{os.environ['PATH']}", "BROKEN": broken, "DEAD": dead,
                       "LOG": str(self.run_directory / "log"), "MPATH_HOOK_RUN": str(self.run_directory),
                       "MPATH_HOOK_CONFIG": str(self.run_directory / "conf")}
        return subprocess.run([HOOK, *words], input=XML.format(run=self.run_directory), env=environment, timeout=20,
                              capture_output=True, text=True, check=False)

    @property
    def log(self):
        log = self.run_directory / "log"
        return log.read_text().splitlines() if log.exists() else []

    def test_guest_that_comes_brings_its_reservations(self):
        ended = self.hook("vm7", "migrate", "begin", "-")
        self.assertEqual((ended.returncode, ended.stdout), (0, ""), ended.stderr)
        control, of_service = self.run_directory / "vm7-sda.ctl", self.run_directory / "vm7-sda" / "vm7-sda.ctl"
        self.assertEqual(self.log, [
            f"ssh host1 mpathctl -s {of_service} lun --json",
            f"ssh host1 mpathctl -s {control} lun --json",
            f"ssh host2 mpathctl -s {of_service} lun --json",
            f"ssh host2 mpathctl -s {control} lun --json",
            f"ssh host2 mpathctl -s {control} reservation export",
            f'mpathctl -s {control} reservation import --at-arrival - <{{"exported": "here"}}'])

    def test_reservations_that_cannot_be_had_stop_the_migration(self):
        ended = self.hook("vm7", "migrate", "begin", "-", broken="yes")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("exports the reservations of vm7-sda", ended.stderr)
        self.assertFalse([line for line in self.log if "import" in line])

    def test_backends_of_the_service_are_found(self):
        of_service = self.run_directory / "vm7-sda"
        of_service.mkdir()
        (of_service / "vm7-sda.ctl").touch()
        ended = self.hook("vm7", "migrate", "begin", "-", there="vm7-sda/vm7-sda.ctl")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn(f"ssh host2 mpathctl -s {of_service}/vm7-sda.ctl reservation export", self.log)
        self.assertIn(f'mpathctl -s {of_service}/vm7-sda.ctl reservation import --at-arrival - <{{"exported": "here"}}', self.log)

    def test_backend_that_does_not_answer_stops_the_migration(self):
        ended = self.hook("vm7", "migrate", "begin", "-", dead="yes")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("does not answer", ended.stderr)

    def test_other_phases_do_nothing(self):
        for words in (("prepare", "begin"), ("start", "begin"), ("started", "begin"), ("stopped", "end"), ("release", "end")):
            self.assertEqual(self.hook("vm7", *words, "-").returncode, 0)
        self.assertEqual(self.log, [])
