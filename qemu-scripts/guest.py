"""Boots the Linux guest with a running backend's LUN as its sda, and its console on this terminal.

Ctrl-A X ends it, Ctrl-A C switches to QEMU's monitor and back. What follows -- goes to QEMU as it is.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "tests" / part) for part in ("qemu", "libvirt")]
from domain_xml import domain_xml # noqa: E402
from vm import GUEST, IMAGES, KVM, TCG, accelerator, command_line, vhost_user_disk # noqa: E402


def main():
    parser = argparse.ArgumentParser(prog="qemu-scripts/guest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", required=True, metavar="PATH", help="the backend's --socket-path")
    parser.add_argument("--vcpus", type=int, default=2, metavar="N", help="and as many request queues (2)")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="(512)")
    parser.add_argument("--boot", action="store_true", help="boot what is on the LUN, images/out/boot.img for one")
    parser.add_argument("--print", action="store_true", help="print QEMU's command line and do not start it")
    parser.add_argument("--libvirt", metavar="NAME", help="print a domain of that name for virsh define, and start nothing")
    parser.add_argument("--files", type=Path, default=IMAGES, metavar="DIR",
                        help="where libvirt's QEMU finds the guest's files (images/out, which it may not read)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--kvm", dest="accelerate", action="store_const", const=KVM, help="do not try whether it works")
    choice.add_argument("--tcg", dest="accelerate", action="store_const", const=TCG, help="do not use KVM")
    parser.add_argument("qemu", nargs="*", metavar="QEMU-OPTION", help="after --")
    options = parser.parse_args()

    if options.libvirt:
        print(libvirt_domain(options))
        return
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


def libvirt_domain(options):
    """The domain's XML: the lab's guest, and the disk as mpathctl prints it."""
    programs = os.pathsep.join([os.environ.get("PATH", ""), str(PROJECT / "target" / "release")])
    words = ["mpathctl", "libvirt-xml", "--socket-path", options.socket, *(["--boot", "1"] if options.boot else [])]
    try:
        disk = subprocess.run(words, env={**os.environ, "PATH": programs}, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("there is no mpathctl: install the package, or cargo build --release")
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr.strip())
    tree = domain_xml(options.libvirt, kernel=None if options.boot else options.files.resolve(),
                      memory_mib=options.memory, vcpus=options.vcpus)
    tree.extend(ElementTree.fromstring(disk.stdout))
    ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding="unicode")


main()
