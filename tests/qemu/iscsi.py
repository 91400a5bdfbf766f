"""A storage array that the network leads to: tgtd, and a small proxy for each path to it."""

import contextlib
import os
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from case import DISK_SIZE, Lab
from process import Process

TARGET = "iqn.2003-01.org.example:qemu"
INITIATOR = "iqn.2003-01.org.example:backend"
SBIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
CHUNK = 256 << 10


class Tgtd:
    """One tgtd with one disk, LUN 1. Its management socket is in a directory of its own."""

    def __init__(self, directory, image):
        self._sockets = tempfile.TemporaryDirectory(prefix="tgtd-") # short enough for a socket's name
        self._environment = {**os.environ, **SBIN, "TGT_IPC_SOCKET": os.path.join(self._sockets.name, "ipc")}
        self.port = free_port()
        self._process = Process(["env", *(f"{name}={self._environment[name]}" for name in ("PATH", "TGT_IPC_SOCKET")),
                                 "tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{self.port}"], Path(directory, "tgtd.log"))
        try:
            self._set_up(image)
        except BaseException:
            self.close()
            raise

    def _set_up(self, image):
        deadline = time.monotonic() + 10
        while self._tgtadm("--op", "show", "--mode", "system").returncode:
            self._process.check()
            if time.monotonic() > deadline:
                raise TimeoutError("tgtd does not start")
            time.sleep(0.05)
        for words in (f"--op new --mode target --tid 1 -T {TARGET}",
                      f"--op new --mode logicalunit --tid 1 --lun 1 -b {image}",
                      "--op bind --mode target --tid 1 -I ALL"):
            self._tgtadm("--lld", "iscsi", *words.split()).check_returncode()

    def _tgtadm(self, *words):
        return subprocess.run(["tgtadm", *words], env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=10, check=False)

    def portal_port(self, _path):
        return self.port

    def url(self, port, _path):
        """The disk's address through `port` of this host."""
        return f"iscsi://127.0.0.1:{port}/{TARGET}/1"

    def close(self):
        self._process.kill() # while it has sessions it does not heed SIGTERM
        self._sockets.cleanup()


def free_port():
    """A port below those that the kernel gives to connections, so that none of them has it a moment later."""
    while True:
        port = random.randrange(10_000, 20_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class Proxy:
    """The wire of one path. While it is cut, connections are reset as soon as they are made; while it is silent, what is
    sent arrives, and the answers only when it is mended."""

    def __init__(self, target):
        self._target = target
        self._cut = False
        self._answers = threading.Event()
        self._answers.set()
        self._connections = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Resets both sides of every connection."""
        with self._lock:
            self._cut = True
            for stream in self._connections:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR) # wakes its thread, which resets

    def silence(self):
        """Holds back what the target answers."""
        self._answers.clear()

    def mend(self):
        with self._lock:
            self._cut = False
        self._answers.set()

    def close(self):
        self.cut()
        self._answers.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR) # wakes the thread, as closing would not
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                reset_on_close(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as portal:
            for stream in (client, portal):
                reset_on_close(stream)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._cut:
                    return
                self._connections |= {client, portal}
            answers = threading.Thread(target=pump, args=[portal, client, self._answers.wait], daemon=True)
            answers.start()
            pump(client, portal)
            answers.join()
            with self._lock:
                self._connections -= {client, portal}


def pump(source, sink, when=lambda: None):
    """Passes bytes one way until either end is gone, and takes the other way down with it. Each piece waits for `when`."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            when()
            sink.sendall(data)
    for stream in (source, sink):
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)


def reset_on_close(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class IscsiLab(Lab):
    """A guest on a backend with two iSCSI paths to one disk of tgtd's, a proxy in each."""

    def __init__(self, *arguments, **options):
        self.array = None
        self.proxies = []
        super().__init__(*arguments, **options)

    def _storage(self, filled):
        if not filled:
            with open(self.image, "wb") as image:
                image.truncate(DISK_SIZE)
        self.array = self._new_array()
        return self.way_to_array(self.directory)

    def _new_array(self):
        return Tgtd(self.directory, self.image)

    def way_to_array(self, directory):
        """A backend's paths, with new proxies in them, and its options; its configuration is in `directory`."""
        proxies = [Proxy(self.array.portal_port(path)) for path in range(2)]
        self.proxies += proxies
        config = directory / "config.toml"
        config.write_text(self._configuration(directory))
        return [[self.array.url(proxy.port, path) for path, proxy in enumerate(proxies)], "--config", str(config)]

    def _configuration(self, directory):
        return f'[iscsi]\ninitiator_name = "{INITIATOR}"\n'

    def close(self):
        for part in (self.vm, self.backend, *self.proxies, self.array):
            if part:
                part.close()
        self.image.unlink(missing_ok=True)
