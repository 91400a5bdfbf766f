"""Two scsi_debug hosts of the kernel with one logical unit behind them, and everything that they can do wrong."""

import time

from hostcase import HostCase
from machine import Load
from runner import long
from vm import HYPERVISOR_NEXT, IMAGES

# Host bytes of the kernel (scsi_status.h) that a host's driver reports when the transport or the host fails.
NO_CONNECT, BUS_BUSY, TIME_OUT, ERROR, SOFT_ERROR, TRANSPORT_DISRUPTED, TRANSPORT_FAILFAST = 1, 2, 3, 7, 0xB, 0xE, 0xF
READ, WRITE, ALL = "0x28", "0x2a", "0xff"


class ScsiDebugCase(HostCase):
    """A test on these two hosts."""

    def setUp(self):
        super().setUp()
        self.machine.run("""
            modprobe -a sg sd_mod
            modprobe scsi_debug dev_size_mb=64 vpd_use_hostno=0 num_tgts=1 max_luns=1 add_host=2 per_host_store=0
            udevadm settle""")
        # Whoever looks at new disks may have one open.
        self.addCleanup(self.machine.wait_for, "rmmod scsi_debug", "the simulated disks are let go of")
        # H:C:T:L of the two devices, and their nodes.
        self.places = self.machine.run("ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/scsi_device"
                                       " | grep -E '^[0-9]+:'").split()
        self.assertEqual(len(self.places), 2)

    def nodes(self, kind):
        """The devices' nodes of a kind: `scsi_generic`, `block` or `bsg`."""
        words = self.machine.run("for place in " + " ".join(self.places)
                                 + f"; do ls /sys/bus/scsi/devices/$place/{kind}; done").split()
        return [f"bsg/{word}" for word in words] if kind == "bsg" else words

    def serve(self, kind="scsi_generic", **options):
        """A backend on both devices and a load on it; the paths' names."""
        names = self.nodes(kind)
        self.start_backend(*names, **options)
        self.addCleanup(self.machine.stop_backend)
        self.load = Load(self.machine, "--socket /run/lun.sock")
        self.addCleanup(self.load.close)
        time.sleep(1)
        return [name.rsplit("/", 1)[-1] for name in names]

    def inject(self, *lines, device=0):
        """Lines of scsi_debug's own, for one device."""
        for line in lines:
            self.machine.run(f"echo '{line}' >/sys/kernel/debug/scsi_debug/{self.places[device]}/error")

    def end(self):
        """The load's report, which must be clean."""
        report = self.load.stop()
        self.assert_clean(report)
        return report

    def remove_and_add(self, name):
        """The first device goes, and comes again in the same place."""
        self.machine.run(f"echo 1 >/sys/bus/scsi/devices/{self.places[0]}/delete")
        self.wait_state(name, "failed")
        time.sleep(1)
        number = self.places[0].split(":")[0]
        self.machine.run(f"echo '0 0 0' >/sys/class/scsi_host/host{number}/scan; udevadm settle")
        self.wait_state(name, "up")
        time.sleep(1)


class ScsiDebug(ScsiDebugCase):
    """Faults of one device, injected while verified I/O runs over both."""

    def test_host_errors_are_not_seen_by_the_guest(self):
        name, _ = self.serve()
        for host_byte in (NO_CONNECT, BUS_BUSY, ERROR, SOFT_ERROR, TRANSPORT_DISRUPTED, TRANSPORT_FAILFAST):
            for opcode in (READ, WRITE):
                # Twice: an error that stays is a path that fails, which is another test's.
                self.inject(f"2 -2 {opcode} {host_byte:#x} 0 0 0 0 0")
            time.sleep(0.7)
        # On a slow machine the faults come so far apart that the path is held down for a while.
        self.wait_state(name, "up", timeout=120)
        self.end()

    def test_path_that_fails_for_good_is_not_seen_by_the_guest(self):
        name, _ = self.serve()
        self.inject(f"2 1 {ALL} {NO_CONNECT:#x} 0 0 0 0 0")
        self.wait_state(name, "failed")
        time.sleep(2)
        self.machine.run(f"echo '- 2 {ALL}' >/sys/kernel/debug/scsi_debug/{self.places[0]}/error")
        self.wait_state(name, "up")
        time.sleep(1)
        self.end()

    def test_sense_of_a_path_is_not_seen_by_the_guest(self):
        name, _ = self.serve()
        # Power on; I_T nexus loss; aborted command; port in standby, in transition.
        for key, code, qualifier in ((6, 0x29, 0), (6, 0x29, 7), (0xB, 0x4B, 0), (2, 4, 0xB), (2, 4, 0xA)):
            for opcode in (READ, WRITE):
                self.inject(f"2 -2 {opcode} 0 0 0x2 {key:#x} {code:#x} {qualifier:#x}")
            time.sleep(0.7)
        self.wait_state(name, "up", timeout=120)
        self.end()

    def test_commands_without_an_answer_are_not_seen_by_the_guest(self):
        name, _ = self.serve(lun="path_timeout = 2.0")
        self.inject(f"0 -1 {READ}", f"0 -1 {WRITE}")
        # For a moment only: what it is asked next is answered.
        self.wait_change(name, "up -> failed", timeout=30)
        self.wait_state(name, "up", timeout=60)
        time.sleep(1)
        self.end()

    def test_device_removed_and_added_again_is_not_seen_by_the_guest(self):
        # Of the three nodes only bsg's is named for the place: sg0 comes back as sg2 while somebody has it open.
        name, _ = self.serve("bsg")
        # Linux 6.12 was asked whether it takes commands over io_uring there.
        self.assertIn("no io_uring: Operation not supported", self.paths()[name]["engine"])
        self.remove_and_add(name)
        self.end()

    def test_name_that_changes_under_a_path_ends_its_use(self):
        _, name = self.serve()
        # From now on INQUIRY tells other names, but for host 0; a unit attention makes the path be asked.
        self.machine.run("echo 1 >/sys/bus/pseudo/drivers/scsi_debug/vpd_use_hostno")
        self.inject(f"2 -1 {READ} 0 0 0x2 0x6 0x3f 0x0e", device=1)
        self.wait_state(name, "wrong-lun")
        # Any write to the device would fail now, and the load would see it: the other path has no such fault.
        self.inject(f"2 1 {WRITE} 0 0 0x2 0x5 0x20 0x00", device=1)
        time.sleep(2)
        self.assertEqual(self.paths()[name]["state"], "wrong-lun")
        self.end()

    @long
    def test_errors_of_every_nth_command_are_not_seen_by_the_guest(self):
        # What kernels before 6.7 have instead of errors by device and operation code.
        self.serve()
        options = "/sys/bus/pseudo/drivers/scsi_debug"
        # ABORTED COMMAND, ACK/NAK TIMEOUT; TASK SET FULL; the host itself is busy.
        for opts in (0x10, 0x4000, 0x8000):
            self.machine.run(f"echo {opts:#x} >{options}/opts; echo 97 >{options}/every_nth")
            time.sleep(1.5)
            self.machine.run(f"echo 0 >{options}/every_nth; echo 0 >{options}/opts")
            time.sleep(0.5)
        self.end()

    def test_limit_of_the_devices_is_the_guests(self):
        self.serve()
        self.load.stop()
        limit = min(int(self.machine.run(f"cat /sys/block/{disk}/queue/max_hw_sectors_kb")) for disk in self.nodes("block"))
        answer = self.command("1201b0004000", data_in=64)
        self.assertEqual(answer["status"], 0, answer)
        blocks = int.from_bytes(bytes.fromhex(answer["data"])[8:12], "big")
        self.assertTrue(0 < blocks * 512 <= limit << 10, f"{blocks} blocks, {limit} KiB")

    def test_unprivileged_user_is_told_what_he_may_not_send(self):
        # Nobody, with the group of the disks (6) and no capability: of an sd node the kernel keeps some commands from him.
        self.machine.run("chgrp 6 /dev/sd? /dev/sg?; chmod 660 /dev/sd? /dev/sg?; chmod 777 /run")
        self.machine.run("""
            grep -q ^lab: /etc/passwd || echo lab:x:65534:6::/:/bin/sh >>/etc/passwd
            printf '#!/bin/sh\\nexec su lab -c "exec $*"\\n' >/run/lab/as-user
            chmod +x /run/lab/as-user""")
        names = self.nodes("block")
        self.start_backend(*names, prefix="/run/lab/as-user")
        self.addCleanup(self.machine.stop_backend)
        owner = self.machine.run("grep -E '^(Uid|CapEff)' /proc/$(cat /run/backend.pid)/status | cut -f2").split()
        self.assertEqual(owner, ["65534", "0" * 16], "whom it runs as, and what he may")
        for cdb, sense in (("42" + "00" * 9, None), ("89" + "00" * 15, "5/24/00"), ("9c" + "00" * 15, "5/24/00")):
            self.assertEqual(self.command(cdb)["sense"], sense, cdb)
        self.assertEqual({path["state"] for path in self.paths().values()}, {"up"})
        log = self.machine.run("grep -c CAP_SYS_RAWIO /run/backend.log").strip()
        self.assertEqual(log, "1", "one line says so")
        self.load = Load(self.machine, "--socket /run/lun.sock")
        self.addCleanup(self.load.close)
        time.sleep(1)
        self.end()

    def test_guests_memory_goes_straight_to_the_kernel(self):
        self.serve(direct_io=True)
        time.sleep(1)
        self.end()

    @long
    def test_each_kind_of_node_serves_a_guest(self):
        for kind in ("scsi_generic", "block", "bsg"):
            with self.subTest(kind=kind):
                self.serve(kind)
                time.sleep(2)
                self.end()
                self.doCleanups()
                self.setUp()


class BsgOverIoUring(ScsiDebugCase):
    """The same two hosts on a kernel that takes commands for bsg nodes over io_uring."""

    line = "next"
    system = HYPERVISOR_NEXT

    def setUp(self):
        if not all((IMAGES / file).exists() for file in self.system):
            self.skipTest("images/build found no Linux 7.1 or newer where tests/packages says")
        super().setUp()

    def assert_engine(self, name):
        self.assertEqual(self.paths()[name]["engine"], "bsg (io_uring)")

    # A machine of its own, whose kernel was once seen to stop at its boot.
    @long
    def test_bsg_node_goes_over_io_uring(self):
        path_timeout = 2
        name, other = self.serve("bsg", lun=f"path_timeout = {path_timeout}.0")
        self.assert_engine(name)
        self.assert_engine(other)
        # A port in transition; the host's own errors.
        for fault in ("0 0 0x2 0x2 0x4 0xa", f"{TRANSPORT_DISRUPTED:#x} 0 0 0 0 0"):
            self.inject(*(f"2 -1 {opcode} {fault}" for opcode in (READ, WRITE)))
            time.sleep(0.7)
        self.wait_state(name, "up", timeout=90)
        # Both are given up after path_timeout and stay in the kernel, which has a longer time for them: the read is sent
        # over the other path at once, the write when the kernel has returned it.
        self.inject(f"0 -1 {READ}", f"0 -1 {WRITE}")
        self.machine.wait_for("[ $(dmesg | grep -c 'aborted command') -ge 2 ]",
                              "both commands were kept without an answer", timeout=90)
        self.wait_state(name, "up", timeout=90)
        self.remove_and_add(name)
        self.assert_engine(name)
        report = self.end()
        longest = max(phase["writes"]["longest"] or 0 for phase in report["phases"])
        self.assertGreater(longest, path_timeout + 1, "no write waited for the kernel")
