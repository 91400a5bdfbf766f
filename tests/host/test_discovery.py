"""Paths that nobody lists: the host's disks that come and go, and how those in use are doing."""

import json
import time

from hostcase import HostCase
from machine import Load
from runner import long


class Discovery(HostCase):
    """The backend finds its paths by the logical unit's name."""

    line = "iscsi"

    def start(self, wwid, discovery=""):
        """A backend that lists no path."""
        self.machine.run(f"printf '[lun]\\nwwid = \"%s\"\\n[discovery]\\nscan = true\\n%s\\n' '{wwid}' '{discovery}'"
                         " >/run/lab/config.toml")
        self.machine.start_backend([], "--config /run/lab/config.toml")
        self.addCleanup(self.machine.stop_backend)

    def check(self, wwid, discovery=""):
        """What --check prints, and its exit code."""
        self.machine.run(f"printf '[lun]\\nwwid = \"%s\"\\n[discovery]\\nscan = true\\n%s\\n' '{wwid}' '{discovery}'"
                         " >/run/lab/check.toml")
        words = self.machine.run("vhost-user-scsi-mpath --check --config /run/lab/check.toml 2>&1 || echo exit $?")
        return words

    def load(self):
        load = Load(self.machine, "--socket /run/lun.sock")
        self.addCleanup(load.close)
        time.sleep(1)
        return load

    def wait_paths(self, *names, timeout=20):
        """Waits until these are all paths, and up; returns after how many seconds."""
        started = time.monotonic()
        while True:
            paths = self.paths()
            if set(paths) == set(names) and all(path["state"] == "up" for path in paths.values()):
                return time.monotonic() - started
            if time.monotonic() > started + timeout:
                self.fail(f"not {names}: {json.dumps(paths, indent=1)}")
            time.sleep(0.25)

    def scsi_debug(self):
        """Two hosts with one logical unit, until the test's end; H:C:T:L of the two devices, and the unit's name."""
        # Before the backend is started, so that it has ended by then. Whoever looks at new disks may have one open.
        self.addCleanup(self.machine.wait_for, "rmmod scsi_debug", "the simulated disks are let go of")
        return self.insert()

    def insert(self):
        self.machine.run("modprobe -a sg sd_mod; modprobe scsi_debug dev_size_mb=64 vpd_use_hostno=0 num_tgts=1"
                         " max_luns=1 add_host=2 per_host_store=0; udevadm settle")
        return self.places()

    def places(self):
        places = self.machine.run("ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/scsi_device"
                                  " | grep -E '^[0-9]+:'").split()
        generic = self.machine.run(f"ls /sys/bus/scsi/devices/{places[0]}/scsi_generic")
        # Of this device's designators the kernel takes another one than multipath-tools and we do.
        words = self.machine.run(f"vhost-user-scsi-mpath --check --path /dev/{generic}")
        return places, words.split(" Linux,scsi_debug")[0]

    def test_disks_are_found_when_they_come_and_leave_when_they_go(self):
        _, wwid = self.scsi_debug()
        self.machine.wait_for("rmmod scsi_debug", "nobody looks at the disks any more")
        self.start(wwid)
        self.assertEqual(self.paths(), {})
        places, _ = self.insert()
        self.wait_paths(*places)
        load = self.load()
        number = places[0].split(":")[0]
        self.machine.run(f"echo 1 >/sys/bus/scsi/devices/{places[0]}/delete")
        self.wait_paths(places[1])
        time.sleep(1)
        self.machine.run(f"echo '0 0 0' >/sys/class/scsi_host/host{number}/scan")
        self.wait_paths(*places)
        path = self.paths()[places[0]]
        self.assertEqual((path["hctl"], path["wwid"]), (places[0], wwid))
        time.sleep(1)
        report = load.stop()
        self.assert_clean(report)

    @long
    def test_host_that_goes_and_another_that_comes_are_not_seen_by_the_guest(self):
        places, wwid = self.scsi_debug()
        self.start(wwid)
        self.wait_paths(*places)
        load = self.load()
        hosts = "/sys/bus/pseudo/drivers/scsi_debug/add_host"
        self.machine.run(f"echo -1 >{hosts}")
        left = self.places()[0]
        self.wait_paths(*left)
        time.sleep(1)
        self.machine.run(f"echo 1 >{hosts}; udevadm settle")
        now = self.places()[0]
        self.wait_paths(*now)
        time.sleep(1)
        self.assert_clean(load.stop())

    def test_disk_is_one_path_whatever_it_is_called(self):
        places, wwid = self.scsi_debug()
        self.start(wwid)
        self.wait_paths(*places)
        block = self.machine.run(f"ls /sys/bus/scsi/devices/{places[0]}/block")
        words = self.machine.run(f"mpathctl -s /run/lun.ctl add /dev/{block} 2>&1 || true")
        self.assertIn(f"the device {places[0]} is path {places[0]} already", words)
        self.assertEqual(set(self.paths()), set(places))

    def test_patterns_choose(self):
        places, wwid = self.scsi_debug()
        self.start(wwid, f'deny = ["{places[0]}"]')
        self.wait_paths(places[1])
        time.sleep(1)
        self.assertEqual(set(self.paths()), {places[1]})

    @long
    def test_disk_that_the_host_uses_is_left_alone(self):
        places, wwid = self.scsi_debug()
        block = self.machine.run(f"ls /sys/bus/scsi/devices/{places[0]}/block")
        self.machine.run(f"mkswap /dev/{block}; swapon /dev/{block}")
        self.addCleanup(self.machine.run, f"swapoff /dev/{block} || true", check=False)
        self.assertIn(f"{places[0]} is left alone: /dev/{block} is held by the host's swap", self.check(wwid))
        words = self.machine.run(f"vhost-user-scsi-mpath --check --path /dev/{block} 2>&1 || echo exit $?")
        self.assertIn(f"/dev/{block} is held by the host's swap", words)
        self.assertTrue(words.endswith("exit 1"))
        self.start(wwid)
        self.wait_paths(places[1])
        self.machine.run(f"swapoff /dev/{block}")
        # Nothing tells that it is free; the slow scan sees it.
        self.wait_paths(*places, timeout=60)

    def test_disk_that_somebody_has_for_himself_is_refused(self):
        places, wwid = self.scsi_debug()
        block = self.machine.run(f"ls /sys/bus/scsi/devices/{places[0]}/block")
        if not self.machine.run("command -v dmsetup || true"):
            self.skipTest("no dmsetup in the machine")
        self.machine.run(f"modprobe dm_mod; echo 0 2048 linear /dev/{block} 0 |"
                         " dmsetup create -u mpath-test --noudevsync mpatha")
        self.addCleanup(self.machine.run, "dmsetup remove --noudevsync mpatha")
        words = self.check(wwid)
        self.assertIn("is held by the multipath map mpatha (dm-", words)

    @long
    def test_state_of_the_device_is_the_paths(self):
        places, wwid = self.scsi_debug()
        self.start(wwid)
        self.wait_paths(*places)
        load = self.load()
        state = f"/sys/bus/scsi/devices/{places[0]}/state"
        self.machine.run(f"echo offline >{state}")
        self.wait_state(places[0], "failed")
        time.sleep(1)
        self.machine.run(f"echo running >{state}")
        self.wait_state(places[0], 'up')
        self.assert_clean(load.stop())


class Watching(HostCase):
    """The kernel's own initiator blocks its devices."""

    line = "iscsi"

    def setUp(self):
        super().setUp()
        self.machine.run("""
            lio_disk disk 64; iscsi_target disk
            initiator node.session.timeo.replacement_timeout=120 'node.conn[0].timeo.noop_out_interval=1' \\
                'node.conn[0].timeo.noop_out_timeout=1'""", timeout=120)
        self.addCleanup(self.machine.run, "mend; logout; remove_target disk", timeout=120)
        self.disks = [self.machine.run(f"disk_of {portal}") for portal in (1, 2)]
        self.wwid = self.machine.run(f"cat /sys/block/{self.disks[0]}/device/wwid")
        self.places = [self.machine.run(f"basename $(readlink -f /sys/block/{disk}/device)") for disk in self.disks]

    start, check, load, wait_paths = Discovery.start, Discovery.check, Discovery.load, Discovery.wait_paths

    def test_blocked_device_is_seen_and_comes_back(self):
        self.start(self.wwid)
        self.wait_paths(*self.places)
        load = self.load()
        self.machine.run("silence 1")
        self.machine.wait_for("[ $(cat /sys/class/iscsi_session/$(session_of 1)/state) = FAILED ]", "the session is lost")
        self.wait_state(self.places[0], 'blocked')
        time.sleep(8)
        self.assertEqual(self.paths()[self.places[0]]["state"], "blocked")
        self.machine.run("mend")
        self.wait_state(self.places[0], "up", timeout=60)
        time.sleep(1)
        report = load.stop()
        self.assert_clean(report)

    @long
    def test_check_warns_of_the_kernels_patience(self):
        words = self.check(self.wwid)
        self.assertIn("is 120: ", words)
        session = self.machine.run("session_of 1")
        line = f"echo 5 > /sys/class/iscsi_session/{session}/recovery_tmo"
        self.assertIn(line, words)
        self.machine.run(f"echo 5 > /sys/class/iscsi_session/{session}/recovery_tmo")
        self.assertNotIn(line, self.check(self.wwid))
