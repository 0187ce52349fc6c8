"""
The agent's answers over HTTP: status on a unix socket, metrics also on an address.

``/status``, ``/entries`` and ``/policies`` are JSON for the CLI, ``/metrics`` is
Prometheus text, ``/healthz`` and ``/readyz`` say "ok" or why not (503).  Only the unix
socket has all of them: what it tells names pods, and root alone may open it.
"""

import fcntl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

from outgate.agent.config import AgentConfig
from outgate.errors import ConfigError
from outgate.telemetry.metrics import CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Answers:
    """What to say, by path; each is called once per request."""

    status: Callable[[], dict[str, Any]]
    entries: Callable[[], dict[str, Any]]
    policies: Callable[[], dict[str, Any]]
    metrics: Callable[[], bytes]
    why_not_alive: Callable[[], tuple[str, ...]]
    why_not_ready: Callable[[], tuple[str, ...]]


def _health_route(path: str, reasons: Callable[[], tuple[str, ...]]) -> web.RouteDef:
    async def respond(request: web.Request) -> web.Response:
        found = reasons()
        text = "".join(f"{reason}\n" for reason in found) or "ok\n"
        return web.Response(text=text, status=503 if found else 200)

    return web.get(path, respond)


def _json_route(path: str, answer: Callable[[], dict[str, Any]]) -> web.RouteDef:
    async def respond(request: web.Request) -> web.Response:
        return web.json_response(answer())

    return web.get(path, respond)


def public_routes(answers: Answers) -> list[web.RouteDef]:
    """Return what may be asked by anybody who reaches the metrics address."""

    async def metrics(request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE}
        return web.Response(body=answers.metrics(), headers=headers)

    return [
        web.get("/metrics", metrics),
        _health_route("/healthz", answers.why_not_alive),
        _health_route("/readyz", answers.why_not_ready),
    ]


def private_routes(answers: Answers) -> list[web.RouteDef]:
    """Return what the unix socket answers besides."""
    return [
        _json_route("/status", answers.status),
        _json_route("/entries", answers.entries),
        _json_route("/policies", answers.policies),
    ]


@asynccontextmanager
async def serving(config: AgentConfig, answers: Answers) -> AsyncIterator[None]:
    """
    Serve until the context ends.

    Errors: ConfigError that names the setting whose address cannot be used.
    """
    public = public_routes(answers)
    private = _runner([*public, *private_routes(answers)])
    open_to_all = _runner(public)
    try:
        await private.setup()
        await open_to_all.setup()
        try:
            await web.UnixSite(private, config.status_socket).start()
            config.status_socket.chmod(0o600)
        except OSError as error:
            raise ConfigError(f"status-socket: {error}") from error
        if address := config.metrics_address:
            try:
                host = address.host or None
                await web.TCPSite(open_to_all, host, address.port).start()
            except OSError as error:
                raise ConfigError(f"metrics-address: {error}") from error
        yield
    finally:
        await private.cleanup()
        await open_to_all.cleanup()


def lock_node(status_socket: Path) -> TextIO:
    """
    Hold the node for this agent until the file is closed, or its process ends.

    Two agents would replace each other's programs for ever.  Errors: ConfigError
    when another one holds the node.
    """
    path = status_socket.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise ConfigError(f"status-socket: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"status-socket: another agent runs with {status_socket}"
        ) from error
    return lock


def _runner(routes: list[web.RouteDef]) -> web.AppRunner:
    application = web.Application()
    application.add_routes(routes)
    return web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
