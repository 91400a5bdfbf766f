"""The package, from its installation to its removal, with a disk served in between."""

import json
import os
import shutil
import socket
import stat
import subprocess
import unittest

from machine import FOLDER, PROFILE, PROJECT, TARGET, Machine, Root, run

UNIT = "vhost-user-scsi-mpath@lun0.service"
SOCKET = "vhost-user-scsi-mpath@lun0.socket"
CONFIG = "/etc/vhost-user-scsi-mpath/lun0.toml"
FRONT = "/run/vhost-user-scsi-mpath/lun0.sock"
STATE = "/var/lib/private/vhost-user-scsi-mpath"
# KiB of disk that dpkg tells. Without debug symbols 8 MiB were measured, with them 63.
INSTALLED_MAX = 16 << 10


def path(name, port):
    """One port of the built-in array, with its image where the service may write."""
    return (f'[[path]]\nname = "{name}"\n'
            f'address = "emulated:/var/lib/vhost-user-scsi-mpath/lun0/disk.img?port={port}&size=64M"\n')


class Package(unittest.TestCase):
    """One package, built once; one Debian for all."""

    @classmethod
    def setUpClass(cls):
        build = run(PROJECT / "packaging/build-deb", "--profile", PROFILE, cwd=PROJECT)
        cls.deb = PROJECT / build.splitlines()[-1]
        cls.symbols = cls.deb.with_name(cls.deb.name.replace("_", "-dbgsym_", 1)).with_suffix(".ddeb")
        run("cargo", "build", "--locked", "--profile", PROFILE, "--example", "verified_load", cwd=PROJECT)
        cls.load = TARGET / {"dev": "debug"}.get(PROFILE, PROFILE) / "examples/verified_load"
        cls.root = Root("root")
        cls.addClassCleanup(cls.root.remove)
        cls.root.inside("apt-get", "update")
        cls.before = cls.root.files()
        shutil.copy(cls.deb, cls.root.path / "root/package.deb")
        cls.root.inside("apt-get", "install", "--yes", "--no-install-recommends", "/root/package.deb")
        (cls.root.path / "root/package.deb").unlink()
        cls.machine = Machine(cls.root)
        cls.addClassCleanup(cls.machine.close)

    def setUp(self):
        self.write(path("left", 1) + path("right", 2))
        self.machine.systemctl("start", UNIT)
        self.addCleanup(self.machine.systemctl, "stop", SOCKET, UNIT, check=False)

    def write(self, text):
        self.machine.file(CONFIG).write_text(text)

    def guest(self, cdb, *words):
        """Sends one command as the guest; what came of it."""
        done = run(self.load, "--socket", self.machine.file(FRONT), "--cdb", cdb, *words)
        return json.loads(done.splitlines()[-1])

    def register(self, key):
        """REGISTER AND IGNORE EXISTING KEY with APTPL: the array keeps it as well when nobody has it open."""
        data = f"{0:016x}{key:016x}{0:08x}01000000"
        done = self.guest("5f060000000000001800", "--data-out", data)
        self.assertEqual((done["response"], done["status"]), (0, 0), done)

    def reservation(self):
        return json.loads(self.machine.inside("mpathctl", "--json", "reservation"))

    def state_files(self):
        return sorted(self.machine.file(f"{STATE}/lun0").glob("reservation-*.toml*"))

    def status(self):
        return self.machine.show(UNIT, "StatusText")

    def wait_status(self, text):
        self.machine.wait(lambda: self.status() == text, lambda: f"{self.status()!r} instead of {text!r}")

    def test_service_starts_and_shows_its_paths(self):
        """systemctl status tells the paths' states, of a process that is nobody in particular."""
        self.assertEqual(self.machine.show(UNIT, "ActiveState"), "active")
        self.wait_status("healthy, no guest: left up, right up")
        process = int(self.machine.show(UNIT, "MainPID"))
        self.assertGreaterEqual(self.machine.file(f"/proc/{process}").stat().st_uid, 61184)
        self.assertIn("left", self.machine.inside("mpathctl", "topology"))
        self.machine.inside("mpathctl", "fail", "left")
        self.wait_status("degraded, no guest: left disabled (by an admin), right up")
        self.assertIn("io_uring", self.machine.inside("mpathctl", "--json", "paths"))
        errors = self.journal("-o", "cat", "-p", "err")
        self.assertNotIn("admin", errors)
        self.assertIn("path left: up -> disabled: by an admin; until it is reinstated\n", self.journal("-o", "cat"))
        front = self.machine.file(FRONT).stat()
        self.assertEqual((front.st_uid, stat.S_IMODE(front.st_mode)), (0, 0o660))
        self.assertEqual(self.machine.inside("stat", "-c", "%G", FRONT).strip(), "kvm")

    def test_reload_adds_a_path_and_refuses_a_file_with_an_error(self):
        """And the unit is active in either case."""
        self.write(path("one", 1) + path("right", 2) + path("third", 3))
        self.machine.systemctl("reload", UNIT)
        self.wait_status("healthy, no guest: one up, right up, third up")
        process = self.machine.show(UNIT, "MainPID")
        self.write("nonsense\n")
        with self.assertRaisesRegex(AssertionError, "Job for .* failed"):
            self.machine.systemctl("reload", UNIT)
        self.machine.systemctl("kill", "-s", "HUP", UNIT)
        self.machine.wait(lambda: self.journal().count("everything stays as it was") == 2, self.journal)
        self.assertEqual(self.machine.show(UNIT, "ActiveState"), "active")
        self.assertEqual(self.machine.show(UNIT, "MainPID"), process)
        self.wait_status("healthy, no guest: one up, right up, third up")

    def test_reload_does_not_touch_the_guest(self):
        """Which writes, and reads back what it has written, while all its paths are exchanged again and again."""
        process = self.machine.show(UNIT, "MainPID")
        load = subprocess.Popen([self.load, "--socket", self.machine.file(FRONT), "--lost", "30"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (load.poll() is not None or load.kill(), load.wait(), load.stdout.close()))
        self.wait_status("healthy, guest connected: left up, right up")
        for pair in range(3, 15, 2):
            # The names stay, the ports do not.
            self.write(path("left", pair) + path("right", pair + 1))
            self.machine.systemctl("reload", UNIT)
            self.wait_status("healthy, guest connected: left up, right up")
        load.terminate()
        report = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
        self.assertEqual(load.returncode, 0)
        self.assertEqual(report["errors"], 0, report["first_errors"])
        for kind in ("reads", "writes"):
            self.assertGreater(report["phases"][0][kind]["count"], 100)
        self.assertEqual(self.machine.show(UNIT, "MainPID"), process)

    def journal(self, *words):
        return self.machine.inside("journalctl", "--no-pager", "-u", UNIT, *words)

    def test_stuck_backend_is_started_again_behind_its_socket(self):
        """The watchdog notices, and the socket is the same one."""
        folder = self.machine.file(f"/run/systemd/system/{UNIT}.d")
        folder.mkdir(parents=True)
        (folder / "watchdog.conf").write_text("[Service]\nWatchdogSec=2\n")
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("restart", UNIT)
        before, inode = self.machine.show(UNIT, "MainPID"), self.machine.file(FRONT).stat().st_ino
        self.machine.systemctl("kill", "-s", "STOP", UNIT)
        restarted = lambda: self.machine.show(UNIT, "NRestarts") == "1" and self.status().startswith("healthy")
        self.machine.wait(restarted, lambda: self.machine.systemctl("status", UNIT, check=False), 60)
        self.assertNotEqual(self.machine.show(UNIT, "MainPID"), before)
        self.assertEqual(self.machine.file(FRONT).stat().st_ino, inode)
        shutil.rmtree(folder)
        self.machine.systemctl("daemon-reload")

    def test_front_end_starts_the_service(self):
        """Whoever comes first waits for the other."""
        self.machine.systemctl("stop", UNIT)
        self.machine.systemctl("start", SOCKET)
        self.assertEqual(self.machine.show(UNIT, "ActiveState"), "inactive")
        with socket.socket(socket.AF_UNIX) as front:
            front.connect(str(self.machine.file(FRONT)))
            self.machine.wait(lambda: "guest connected" in self.status(), self.status)
        self.wait_status("healthy, no guest: left up, right up")

    def test_iscsi_paths_need_nothing_that_the_unit_takes_away(self):
        """Sessions over the network of the machine, to an array in it."""
        image, control = FOLDER / "iscsi.img", str(os.getpid())
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        target = subprocess.Popen(["nsenter", "-t", self.machine.pid(), "-n", "tgtd", "-f", "-C", control],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (target.kill(), target.wait(), image.unlink()))
        admin = lambda *words: run("tgtadm", "-C", control, "--lld", "iscsi", *words)
        Machine.wait(lambda: "tgtadm" not in run("tgtadm", "-C", control, "--mode", "sys", "--op", "show", check=False),
                     "tgtd does not come up")
        admin("--op", "new", "--mode", "target", "--tid", "1", "-T", "iqn.2003-01.org.example:array")
        admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", image)
        admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        path = '[[path]]\nname = "{}"\naddress = "iscsi://{}/iqn.2003-01.org.example:array/1"\n'
        self.machine.systemctl("stop", UNIT)
        self.write('[iscsi]\ninitiator_name = "iqn.2003-01.org.example:host"\n'
                   + path.format("a", "127.0.0.1") + path.format("b", "127.0.0.2"))
        self.machine.systemctl("start", UNIT)
        self.wait_status("healthy, no guest: a up, b up")

    def test_wrong_configuration_is_told(self):
        """In the line that an admin sees."""
        self.machine.systemctl("stop", UNIT)
        self.write("[backend]\nsocket = \"/run/elsewhere.sock\"\n" + path("left", 1))
        with self.assertRaises(AssertionError):
            self.machine.systemctl("start", UNIT)
        self.machine.wait(lambda: "/run/elsewhere.sock is named" in self.journal(), self.journal)
        self.machine.systemctl("stop", UNIT)
        self.machine.systemctl("reset-failed")

    def test_only_what_runs_is_installed(self):
        """The debug symbols are in a package of their own, and are those of what is installed."""
        if PROFILE != "release":
            self.skipTest(f"the profile {PROFILE} makes no package of debug symbols")
        self.assertLess(int(run("dpkg-deb", "-f", self.deb, "Installed-Size")), INSTALLED_MAX)
        listed = run("dpkg-deb", "-c", self.symbols)
        for program in ("vhost-user-scsi-mpath", "mpathctl"):
            notes = run("readelf", "-n", self.machine.file(f"/usr/bin/{program}"))
            name = notes.split("Build ID: ")[1].split()[0]
            self.assertIn(f"/usr/lib/debug/.build-id/{name[:2]}/{name[2:]}.debug", listed)

    def test_cargo_installs_the_programs_alone(self):
        """Beside the package, from what has been compiled for it."""
        folder = FOLDER / "cargo"
        self.addCleanup(shutil.rmtree, folder)
        run("cargo", "install", "--locked", "--path", ".", "--profile", PROFILE, "--root", folder, cwd=PROJECT)
        for program in ("vhost-user-scsi-mpath", "mpathctl"):
            self.assertRegex(run(folder / "bin" / program, "--version"), rf"^{program} \d")

    def test_upgrade_keeps_process_and_state(self):
        """The guest's disk goes on over an upgrade, and what the new version is started with is what the old one kept."""
        self.wait_status("healthy, no guest: left up, right up")
        self.register(0xabc)
        before, process = [file.read_bytes() for file in self.state_files()], self.machine.show(UNIT, "MainPID")
        self.assertEqual(self.reservation()["key"], "0xabc")
        self.machine.inside("dpkg", "-i", self.newer())
        self.assertEqual(self.machine.show(UNIT, "MainPID"), process)
        self.assertEqual([file.read_bytes() for file in self.state_files()], before)
        self.machine.systemctl("restart", UNIT)
        self.wait_status("healthy, no guest: left up, right up")
        self.assertNotEqual(self.machine.show(UNIT, "MainPID"), process)
        found = self.reservation()
        self.assertEqual((found["state"], found["key"]), ("kept", "0xabc"))
        self.assertEqual({path["registration"] for path in found["paths"]}, {"registered"})

    def newer(self):
        """The same package as a later version, in the machine."""
        folder, there = FOLDER / "newer", "/root/newer.deb"
        shutil.rmtree(folder, ignore_errors=True)
        run("dpkg-deb", "-R", self.deb, folder)
        control = folder / "DEBIAN/control"
        text = control.read_text()
        version = text.split("Version: ")[1].split()[0]
        control.write_text(text.replace(f"Version: {version}", f"Version: {version}.1"))
        run("dpkg-deb", "-Znone", "-b", folder, self.machine.file(there))
        shutil.rmtree(folder)
        return there

    def test_y_purge_leaves_a_running_backend_alone(self):
        """One test before the last: the guest keeps its disk, and the disk its state."""
        self.register(0xdef)
        process, state = self.machine.show(UNIT, "MainPID"), self.machine.file(self.reservation()["state-file"])
        before = state.read_bytes()
        self.machine.inside("apt-get", "purge", "--yes", "vhost-user-scsi-mpath")
        self.assertEqual(self.machine.show(UNIT, "MainPID"), process)
        self.assertEqual(self.guest("000000000000")["status"], 0)
        self.assertEqual(state.read_bytes(), before)
        self.assertTrue(state.with_name(state.name + ".lock").exists())
        self.machine.systemctl("stop", SOCKET, UNIT)
        self.machine.inside("dpkg", "-i", self.newer())

    def test_z_package_leaves_nothing_behind(self):
        """The last test: purged, but for the image that holds somebody's data and what was installed for it."""
        listed = self.machine.inside("dpkg", "-L", "vhost-user-scsi-mpath").split()
        for wanted in ("/usr/bin/mpathctl", "/usr/share/man/man8/mpathctl-topology.8.gz",
                       "/usr/share/bash-completion/completions/mpathctl",
                       "/usr/share/qemu/vhost-user/50-vhost-user-scsi-mpath.json",
                       "/usr/share/vhost-user-scsi-mpath/grafana/vhost-user-scsi-mpath.json"):
            self.assertIn(wanted, listed)
        self.machine.systemctl("enable", UNIT)
        self.register(0xabc)
        self.assertTrue(self.state_files())
        other, config = [unit.replace("lun0", "other") for unit in (SOCKET, UNIT)], CONFIG.replace("lun0", "other")
        self.machine.file(config).write_text('[[path]]\naddress = "null:64M"\n')
        self.machine.systemctl("start", other[1])
        self.assertTrue(self.machine.file(f"{STATE}/other").exists())
        self.machine.systemctl("stop", SOCKET, UNIT, *other)
        self.machine.file(CONFIG).unlink()
        self.machine.file(config).unlink()
        dependencies = {name for name in self.root.inside("dpkg", "-L", "libiscsi7").split()}
        self.machine.inside("apt-get", "purge", "--yes", "vhost-user-scsi-mpath")
        gone = [name for name in listed if "mpath" in name and os.path.lexists(self.machine.file(name))]
        self.assertEqual(gone, [])
        self.assertFalse(self.machine.file("/etc/vhost-user-scsi-mpath").exists())
        self.assertFalse(self.machine.file("/run/vhost-user-scsi-mpath").exists())
        left = {"/" + name for name in self.root.files() - self.before if "mpath" in name} - dependencies
        images = {f"{STATE}/lun0/disk.img{part}" for part in ("", ".wwid", ".reservations")}
        folders = {f"{place}{lun}" for place in (STATE, STATE.replace("/private", "")) for lun in ("", "/lun0")}
        self.assertEqual(left, images | folders)
