"""Shows the main job: a guest's disk, in use, survives losing a path."""

import argparse
import queue
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "qemu"))
from backend import Backend, emulated_ports # noqa: E402
from console import attach # noqa: E402
from process import exit_on_sigterm, tail # noqa: E402
from vm import KVM, TCG, Vm, accelerator, vhost_user_disk # noqa: E402
from workload import Workload # noqa: E402

DISK_SIZE = 256 << 20
WORK_SECONDS = 24
CUT_AT = 6
LOOK_AT = 9 # by then the commands that were on the lost path have ended on the other one
MEND_AT = 15
PATIENCE = 60
WRITES_PER_SECOND = 300


class Paper:
    """What goes to the terminal: plain words, in colour where that helps and there is a terminal."""

    def __init__(self):
        self._colour = sys.stdout.isatty()
        self._started = time.monotonic()

    def step(self, words):
        print(f"\n{self._in('1;36', f'[{self.seconds:3.0f} s]')} {self._in('1', words)}", flush=True)

    def say(self, words):
        for line in words.rstrip("\n").split("\n"):
            print(f"        {line}", flush=True)

    def command(self, words):
        self.say(self._in("2", f"$ {words}"))

    def bar(self, second, requests, most):
        blocks = "█" * round(40 * min(1, requests / most))
        self.say(f"{second:2d} s  {self._in('32', f'{blocks:40}')} {requests:5d} requests/s")

    def event(self, words, bad=False):
        self.say(f"      {self._in('1;31' if bad else '1;32', words)}")

    def verdict(self, words):
        print(f"\n{self._in('1;32', words)}", flush=True)

    @property
    def seconds(self):
        return time.monotonic() - self._started

    def _in(self, code, words):
        return f"\033[{code}m{words}\033[0m" if self._colour else words


def demo(paper, directory, accelerate, keep):
    paper.step("The backend: one disk, over two ports of its built-in array")
    image = Path(directory, "disk.img")
    with Backend(directory, emulated_ports(image, DISK_SIZE)) as backend:
        paper.command(" \\\n    --".join(" ".join(backend.command).split(" --")))
        for path in backend.path_names():
            backend.wait_path_state(path, "up")

        paper.step(f"A Linux guest boots on it, with {'KVM' if accelerate is KVM else 'TCG'}")
        with Vm(directory, vhost_user_disk(backend.socket), accelerate=accelerate) as vm:
            vm.guest.wait_ready()
            paper.say(vm.guest.run("lsblk -o NAME,SIZE,VENDOR,MODEL,SERIAL /dev/sda"))

            paper.step("Before: both paths are up")
            topology(paper, backend)
            lose_a_path(paper, backend, vm.guest)

            paper.step("After: both paths are up again")
            topology(paper, backend)
            paper.verdict("Nothing was lost, and the guest saw no error.")
            if keep:
                stay(paper, backend, vm)


def topology(paper, backend):
    paper.command("mpathctl topology")
    paper.say(backend.mpathctl("topology"))


def lose_a_path(paper, backend, guest):
    paper.step("fio writes to an ext4 on sda, and reads back and checks what it wrote")
    seconds = queue.SimpleQueue() # the requests of each second, from the guest's reader thread
    workload = Workload(guest, WORK_SECONDS, WRITES_PER_SECOND, seconds.put)
    lost = backend.path_names()[0]
    second = 0
    while not workload.ended:
        try:
            requests = seconds.get(timeout=0.2)
        except queue.Empty:
            continue
        if second == 0 and requests < WRITES_PER_SECOND / 2:
            continue # fio is still starting
        second += 1
        if second > WORK_SECONDS + PATIENCE:
            raise TimeoutError(f"fio should have ended {PATIENCE} s ago")
        paper.bar(second, requests, most=3 * WRITES_PER_SECOND)
        if second == CUT_AT:
            paper.event(f"path {lost} is cut: mpathctl inject {lost} disconnect", bad=True)
            backend.mpathctl("inject", lost, "disconnect")
        elif second == LOOK_AT:
            topology(paper, backend)
        elif second == MEND_AT:
            paper.event(f"path {lost} is mended")
            backend.mend(lost)

    paper.step("What the guest has lost")
    result = workload.finish()
    backend.wait_path_state(lost, "up")
    paper.say(f"fio       {result.writes} blocks written, {result.reads} read back: all as written, no error\n"
              f"          from the disk, after a new mount: all as written\n"
              f"stall     the longest that a request took: {result.longest_stall:.2f} s\n"
              "fsck      clean\n"
              "kernel    no complaint about the disk")


def stay(paper, backend, vm):
    paper.step("The guest is yours; Ctrl-] ends everything. From another terminal:")
    for command in ("topology", "events", f"inject {backend.path_names()[0]} disconnect"):
        paper.command(f"mpathctl -s {backend.control_socket} {command}")
    attach(vm.console)


def main():
    parser = argparse.ArgumentParser(prog="qemu-scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay in the guest's shell at the end")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--kvm", dest="accelerate", action="store_const", const=KVM, help="do not try whether it works")
    choice.add_argument("--tcg", dest="accelerate", action="store_const", const=TCG, help="do not use KVM")
    options = parser.parse_args()
    if options.keep and not sys.stdin.isatty():
        parser.error("--keep needs a terminal")
    exit_on_sigterm()

    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        try:
            demo(Paper(), directory, options.accelerate or accelerator(), options.keep)
        except KeyboardInterrupt:
            sys.exit("\ndemo: interrupted; guest and backend have ended")
        except Exception as error:
            for log in sorted(Path(directory).glob("*.log")):
                print(f"\n--- the end of {log.name}\n{tail(log)}", file=sys.stderr)
            sys.exit(f"demo: {error}")


main()
