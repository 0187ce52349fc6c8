"""
The API with the tests' backend, as a process of its own; prints its URL.

What it is: what ``conftest`` starts: ``serve.py [JOURNAL]``.
What it is not: part of the product.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

from kubectl.process_backend import ProcessBackend
from outgate.kubeapi.server import ApiServer


async def serve(journal: Path | None) -> None:
    server = ApiServer(journal=journal, backend=ProcessBackend(), history=50)
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop()


asyncio.run(serve(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
