"""Makes the documentation's pictures anew: docs/top.svg and docs/report.png. Takes two minutes.

    cargo build --release --bins --example verified_load && python3 -B tests/ops/pictures.py
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import browser
import terminal_svg
from scene import PROGRAMS, TAKES, Scene

DOCS = Path(__file__).resolve().parents[2] / "docs"
COLUMNS, LINES = 100, 23


class Terminal:
    """tmux, with `top` in it."""

    def __init__(self, socket):
        self._home = tempfile.TemporaryDirectory(prefix="tmux-")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES),
                   f"exec {PROGRAMS / 'mpathctl'} -s {socket} top")

    def _tmux(self, *arguments):
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        environment.pop("TMUX", None)
        return subprocess.run(["tmux", "-S", f"{self._home.name}/tmux", "-u", *arguments], env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout

    def screen(self):
        return self._tmux("capture-pane", "-e", "-p", "-t", ":0.0")

    def close(self):
        self._tmux("kill-server")
        self._home.cleanup()


def story(scene):
    """Some minutes of an array's life: a path falls silent and comes back, another one is cut."""
    backend = scene.backend
    time.sleep(45)
    # A command that is delayed would answer all the same.
    backend.mend("ctl-a:1")
    backend.cut("ctl-a:1", "hang")
    time.sleep(20)
    backend.mend("ctl-a:1")
    scene.delay("ctl-a:1", TAKES)
    time.sleep(30)
    backend.cut("ctl-a:2")
    time.sleep(12)


def main():
    with Scene("pictures") as scene:
        terminal = Terminal(scene.backend.control_socket)
        try:
            story(scene)
            screen = terminal.screen()
        finally:
            terminal.close()
        page = scene.directory / "report.html"
        scene.backend.mpathctl("report", "-o", str(page))
    (DOCS / "top.svg").write_text(terminal_svg.draw(screen, COLUMNS, "mpathctl top"), encoding="utf-8")
    # Small enough for a page that somebody reads, large enough for the words in it.
    browser.screenshot(page, DOCS / "report.png", browser.LIGHT, "--force-device-scale-factor=0.75", width=1100,
                       height=1940)


main()
