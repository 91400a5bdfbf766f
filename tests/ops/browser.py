"""Chromium without a screen: what it makes of a file."""

import subprocess
import tempfile
import zlib
from pathlib import Path

PROGRAM = Path("/usr/bin/chromium")
# It needs no network for a file, and must not look for one.
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
           "--proxy-server=127.0.0.1:9"]
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"


def run(page, *options, timeout=90):
    """What it prints when it opens the file `page`, a place of its own for what it keeps."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as home:
        command = [str(PROGRAM), *OPTIONS, f"--user-data-dir={home}", *options, page.as_uri()]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              env={"HOME": home, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, check=True)
    return done.stdout


def dom(page):
    """The document as it understood it."""
    return run(page, LIGHT, "--dump-dom")


def screenshot(page, picture, *options, width=1200, height=2400):
    run(page, f"--screenshot={picture}", f"--window-size={width},{height}", *options)


def pdf(page, file):
    run(page, f"--print-to-pdf={file}", "--no-pdf-header-footer")


def corner(picture):
    """Red, green and blue of a PNG's first pixel, which no filter changes."""
    data, at, packed = Path(picture).read_bytes(), 8, b""
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    return tuple(zlib.decompressobj().decompress(packed, 4)[1:4])
