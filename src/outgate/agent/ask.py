"""
Ask a running agent of this node: HTTP over its unix socket, standard library only.

The CLI's side of ``agent.server``; it starts fast because it imports no HTTP library.
"""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from outgate.errors import OutgateError

TIMEOUT_SECONDS = 5.0


class AgentAbsentError(OutgateError):
    """No agent answers; the message says what to do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(socket_path: Path, path: str) -> Any:
    """Return the JSON that the agent answers at *path*; AgentAbsentError for none."""
    connection = _UnixConnection(socket_path)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise AgentAbsentError(
            f"no agent answers at {socket_path}: {error}; "
            "start one with 'outgate agent', or name its socket with --socket"
        ) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise AgentAbsentError(f"the agent at {socket_path} refused {path}: {body!r}")
    return json.loads(body)
