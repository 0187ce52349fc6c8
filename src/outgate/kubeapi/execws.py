"""
``kubectl exec`` over a WebSocket, subprotocols v5 and v4 ``.channel.k8s.io``.

What it is: frames to session calls and back. The first byte of a frame is its
channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size, and in v5
255 "this channel is closed".
What it is not: SPDY; a client that falls back to it is told so.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType, web

from outgate.kubeapi.backend import BackendError, ExecRequest, ExecSession, PodBackend
from outgate.kubeapi.wire import JsonObject, decode_json, encode_json

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STATUS, _RESIZE, _CLOSE = 0, 3, 4, 255


def exit_status(code: int) -> JsonObject:
    """The Status that tells a client how its command ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failure(message: str) -> JsonObject:
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": message,
        "code": 500,
    }


async def serve_exec(
    request: web.Request, wanted: ExecRequest, backend: PodBackend
) -> web.WebSocketResponse:
    """Run *wanted* for the client of *request* until one of the two has ended."""
    socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=0)
    await socket.prepare(request)
    with suppress(ConnectionResetError):
        try:
            session = await backend.exec(wanted)
        except BackendError as error:
            status = _failure(error.message)
        else:
            status = exit_status(await _run(socket, session, wanted))
        await socket.send_bytes(bytes([_STATUS]) + encode_json(status))
        await socket.close()
    return socket


async def _run(
    socket: web.WebSocketResponse, session: ExecSession, wanted: ExecRequest
) -> int:
    reader = asyncio.create_task(_read(socket, session, wanted))
    try:
        async for channel, content in session.output():
            await socket.send_bytes(bytes([channel]) + content)
        return await session.wait()
    except (ConnectionResetError, asyncio.CancelledError):
        await session.kill()
        raise
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


async def _read(
    socket: web.WebSocketResponse, session: ExecSession, wanted: ExecRequest
) -> None:
    """Pass the client's frames on; when the client goes, so does the command."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, content = message.data[0], message.data[1:]
        if channel == _STDIN and wanted.stdin:
            if content:
                await session.write_stdin(content)
        elif channel == _CLOSE and content[:1] == bytes([_STDIN]):
            await session.close_stdin()
        elif channel == _RESIZE:
            size = decode_json(content)
            await session.resize(size.get("Width", 0), size.get("Height", 0))
    await session.kill()
