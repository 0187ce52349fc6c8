"""
The API alone, on 127.0.0.1: ``python -m outgate.kubeapi --port 0 --journal FILE``.

What it is: a way to try ``kubectl`` against it, and what the kubectl tests start.
What it is not: a lab; there are no nodes and no pods run, so exec and logs are 501.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from pathlib import Path

from outgate.kubeapi.server import ApiServer


async def _serve(port: int, journal: Path | None, token: str | None) -> None:
    server = ApiServer(journal=journal, token=token)
    sock = socket.create_server(("127.0.0.1", port))
    await server.start([sock])
    print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m outgate.kubeapi")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--journal", type=Path, help="a file that keeps everything")
    parser.add_argument("--token", help="ask every client for this bearer token")
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.journal, given.token))


if __name__ == "__main__":
    main()
