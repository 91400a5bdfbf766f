"""With the `qemu.qmp` package: queries the paths, fails one, and prints both the paths and the event that follows.

    qmp_client.py CONTROL_SOCKET PATH
"""

import asyncio
import json
import sys

from qemu.qmp import QMPClient


async def main(socket, name):
    client = QMPClient("test")
    await client.connect(socket)
    try:
        paths = await client.execute("query-paths")
        with client.listener("PATH_STATE_CHANGED") as changes:
            await client.execute("path-fail", {"name": name})
            event = await asyncio.wait_for(changes.get(), timeout=10)
    finally:
        await client.disconnect()
    print(json.dumps({"paths": paths, "event": event["data"]}))


asyncio.run(main(*sys.argv[1:]))
