"""Guests on backends of their own, on one disk of one array; a proxy in each path."""

import shutil
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from arrays import OUT, BuiltInArray

from backend import Backend # after arrays, which says where it is
from iscsi import Proxy
from process import tail
from vm import Vm, vhost_user_disk

SG = "/dev/sg0" # the backend's disk: nothing else in the guest is SCSI


def backend_over(stack, directory, array, name, paths, disk=0):
    """A backend over so many paths, which keeps state, and the proxies in them."""
    proxies = []
    if isinstance(array, BuiltInArray):
        urls = [array.address(port, disk) for port in range(paths)]
    else:
        proxies = [stack.enter_context(closing(Proxy(array.portal_port(path, disk)))) for path in range(paths)]
        urls = [array.url(proxy.port, portal, disk) for portal, proxy in enumerate(proxies)]
    config = directory / "config.toml"
    config.write_text(f'[backend]\nstate_dir = "{directory / "state"}"\n'
                      f'[iscsi]\ninitiator_name = "iqn.2003-01.org.example:{name}"\n')
    return stack.enter_context(Backend(directory, urls, "--config", str(config))), proxies


class Node:
    """A guest on a backend with so many paths; an initiator of its own to the array."""

    def __init__(self, stack, directory, array, name, paths):
        self.directory = directory / name
        self.directory.mkdir()
        self.backend, self.proxies = backend_over(stack, self.directory, array, name, paths)
        self.vm = stack.enter_context(Vm(self.directory, vhost_user_disk(self.backend.socket)))
        self.guest = self.vm.guest

    def run(self, script, timeout=30, check=True):
        return self.guest.run(script, timeout, check)


class Scene:
    """An array and the nodes of a cluster on it."""

    def __init__(self, name, array, nodes, paths=2):
        self.directory = OUT / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._stack = ExitStack()
        try:
            self.array = self._stack.enter_context(closing(array(self.directory)))
            self.nodes = [Node(self._stack, self.directory, self.array, f"node{at + 1}", paths)
                          for at in range(nodes)]
            for node in self.nodes:
                node.guest.wait_ready()
        except BaseException:
            self.show_logs()
            self._stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.show_logs()
        self._stack.close()

    def show_logs(self):
        for log in sorted(Path(self.directory).rglob("*.log")):
            print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)
