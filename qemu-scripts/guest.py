"""Boots the Linux guest with a running backend's LUN as its sda, and its console on this terminal.

Ctrl-A X ends it, Ctrl-A C switches to QEMU's monitor and back. What follows -- goes to QEMU as it is.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "qemu"))
from vm import GUEST, KVM, TCG, accelerator, command_line, vhost_user_disk # noqa: E402


def main():
    parser = argparse.ArgumentParser(prog="qemu-scripts/guest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", required=True, metavar="PATH", help="the backend's --socket-path")
    parser.add_argument("--vcpus", type=int, default=2, metavar="N", help="and as many request queues (2)")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="(512)")
    parser.add_argument("--boot", action="store_true", help="boot what is on the LUN, images/out/boot.img for one")
    parser.add_argument("--print", action="store_true", help="print QEMU's command line and do not start it")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--kvm", dest="accelerate", action="store_const", const=KVM, help="do not try whether it works")
    choice.add_argument("--tcg", dest="accelerate", action="store_const", const=TCG, help="do not use KVM")
    parser.add_argument("qemu", nargs="*", metavar="QEMU-OPTION", help="after --")
    options = parser.parse_args()

    command = command_line(vhost_user_disk(options.socket, boot=options.boot), options.vcpus, options.memory,
                           options.accelerate or accelerator(), system=None if options.boot else GUEST)
    command += ["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console",
                "-mon", "chardev=console", *options.qemu]
    if options.print:
        print(shlex.join(command))
        return
    if not os.path.exists(options.socket):
        print(f"waiting for a backend: nothing is at {options.socket} yet", flush=True)
    os.execvp(command[0], command)


main()
