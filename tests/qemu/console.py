"""The guest's console on this terminal."""

import os
import select
import sys
import termios
import tty

from qmp import connect

LEAVE = b"\x1d" # Ctrl-]


def attach(path):
    """Passes keys and output between the terminal and the console's socket until Ctrl-], or until the guest ends."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(keyboard)
    with connect(path) as console:
        tty.setraw(keyboard)
        try:
            console.sendall(b"\n") # the shell's prompt went by long ago
            while True:
                ready, _, _ = select.select([keyboard, console], [], [])
                if keyboard in ready:
                    keys = os.read(keyboard, 1024)
                    if not keys or LEAVE in keys:
                        return
                    console.sendall(keys)
                if console in ready:
                    output = console.recv(65536)
                    if not output:
                        return
                    os.write(screen, output)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            print()
