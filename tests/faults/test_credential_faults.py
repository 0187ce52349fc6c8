"""
Credentials that change while an agent runs, and ways to the API that are not direct.
"""

import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from apiserver.certificates import Authority, KeyPair
from faults.claims import arrives
from faults.conftest import following
from faults.gate import Gate, status
from faults.proxy import Proxy
from faults.world import World
from outgate.errors import ConfigError
from outgate.source.client import Client
from outgate.source.connection import CertificateFiles, Connection, ExecPlugin

LOOPBACK = "IP:127.0.0.1"


class Guard:
    """Lets requests pass that show the token of the day."""

    def __init__(self, gate: Gate, token: str) -> None:
        self.token = token
        self.refused = 0
        gate.fail(self._is_refused, status(401, "Unauthorized"))

    def _is_refused(self, request: web.Request) -> bool:
        is_wrong = request.headers.get("Authorization") != f"Bearer {self.token}"
        self.refused += is_wrong
        return is_wrong


async def test_token_that_is_replaced_is_read_again(
    gate: Gate, world: World, tmp_path: Path
) -> None:
    """A service account's token is replaced long before the old one is refused."""
    file = tmp_path / "token"
    file.write_text("one\n")
    guard = Guard(gate, "one")
    async with following(Connection(gate.url, token_file=file), world) as agent:
        await agent.until_complete()
        (tmp_path / "new").write_text("two\n")
        (tmp_path / "new").rename(file)
        guard.token = "two"
        gate.cut()
        await agent.until_failing("pods")
        await arrives(agent, world)

    assert not guard.refused


async def test_token_that_is_refused_too_early_is_waited_for(
    gate: Gate, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    guard = Guard(gate, "two")
    async with following(Connection(gate.url, token_file=file), world) as agent:
        error = await agent.until_failing("pods")
        file.write_text("two")
        await agent.until_complete()
        await arrives(agent, world)

    assert "401: Unauthorized" in error
    assert guard.refused


PLUGIN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "runs").open("a") as runs:
    runs.write("x")
status = {"token": (folder / "secret").read_text(),
          "expirationTimestamp": "2001-01-01T00:00:00Z"}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1",
                  "kind": "ExecCredential", "status": status}))
"""


async def test_plugin_is_asked_again_when_its_token_is_refused(
    gate: Gate, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.source.credentials.SHORTEST_SECONDS", 0.2)
    (tmp_path / "secret").write_text("one")
    guard = Guard(gate, "one")
    plugin = ExecPlugin(
        "client.authentication.k8s.io/v1",
        sys.executable,
        ("-c", PLUGIN, str(tmp_path)),
    )
    async with following(Connection(gate.url, plugin=plugin), world) as agent:
        await agent.until_complete()
        runs = len((tmp_path / "runs").read_text())
        (tmp_path / "secret").write_text("two")
        guard.token = "two"
        gate.cut()
        await agent.until_failing("pods")
        await arrives(agent, world)

    assert runs < len(gate.requests) / 2, "its answer is kept for a while"


async def test_plugin_that_fails_removes_nothing(
    gate: Gate, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.source.credentials.SHORTEST_SECONDS", 0.05)
    secret = tmp_path / "secret"
    secret.write_text("one")
    plugin = ExecPlugin(
        "client.authentication.k8s.io/v1",
        sys.executable,
        ("-c", PLUGIN, str(tmp_path)),
    )
    async with following(Connection(gate.url, plugin=plugin), world) as agent:
        await agent.until_complete()
        secret.unlink()

        def is_told() -> bool:
            gate.cut()  # again, until what the plugin said before has expired
            return "credential plugin" in agent.source.errors.get("pods", "")

        await agent.while_looking(is_told)
        secret.write_text("one")
        await arrives(agent, world)


def _server_tls(own: KeyPair, *clients: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    for authority in clients:
        context.load_verify_locations(authority.own.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def _tls_gate(
    upstream: Connection, context: ssl.SSLContext
) -> AsyncIterator[Gate]:
    async with Gate(upstream, context) as gate:
        yield gate


async def test_certificates_that_are_replaced_are_read_again(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    """Both ends change, and no request is made with half of a new pair."""
    authority = Authority(tmp_path / "ca")
    first, second = authority.issue("first"), authority.issue("second")
    server = _server_tls(authority.issue("server", addresses=LOOPBACK), authority)
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    _copy(first, files)
    async with _tls_gate(upstream, server) as gate:
        connection = Connection(
            gate.url, ca_file=authority.own.certificate, client_certificate=files
        )
        async with following(connection, world) as agent:
            await agent.until_complete()
            assert {"first"} == _names(gate)
            files.certificate.write_bytes(second.certificate.read_bytes())
            gate.cut("/pods")
            await agent.until_failing("pods")
            await agent.until_complete()
            _copy(second, files)
            gate.requests.clear()
            gate.cut("/pods")
            await agent.until_failing("pods")
            await arrives(agent, world)

            assert {"second"} == _names(gate)


async def test_authority_that_is_replaced_is_read_again(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(old.own.certificate.read_bytes())
    server = _server_tls(old.issue("server", addresses=LOOPBACK))
    async with _tls_gate(upstream, server) as gate:
        connection = Connection(gate.url, ca_file=trusted)
        async with following(connection, world) as agent:
            await agent.until_complete()
            await gate.close()
            gate.tls = _server_tls(new.issue("server", addresses=LOOPBACK))
            await gate.open()
            await agent.until(
                lambda: "certificate" in agent.source.errors.get("pods", "")
            )
            assert not agent.source.is_complete
            trusted.write_bytes(new.own.certificate.read_bytes())
            await arrives(agent, world)


async def test_server_of_another_authority_is_not_believed(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    """TLS is verified unless a kubeconfig says otherwise."""
    own, other = Authority(tmp_path / "own"), Authority(tmp_path / "other")
    server = _server_tls(other.issue("server", addresses=LOOPBACK))
    async with _tls_gate(upstream, server) as gate:
        connection = Connection(gate.url, ca_file=own.own.certificate)
        async with following(connection, world) as agent:
            assert "CERTIFICATE_VERIFY_FAILED" in await agent.until_failing("pods")
        insecure = replace(connection, insecure=True)
        async with following(insecure, world) as agent:
            await agent.until_complete()


async def test_name_to_check_may_differ_from_the_address(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    server = _server_tls(authority.issue("server", addresses="DNS:api.example"))
    async with _tls_gate(upstream, server) as gate:
        connection = Connection(gate.url, ca_file=authority.own.certificate)
        async with following(connection, world) as agent:
            assert "CERTIFICATE_VERIFY_FAILED" in await agent.until_failing("pods")
        named = replace(connection, server_name="api.example")
        async with following(named, world) as agent:
            await agent.until_complete()


async def test_proxy_carries_everything(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    """The proxy is asked to CONNECT; what is inside is between us and the server."""
    authority = Authority(tmp_path / "ca")
    server = _server_tls(authority.issue("server", addresses=LOOPBACK))
    async with _tls_gate(upstream, server) as gate, Proxy() as proxy:
        connection = Connection(
            gate.url, ca_file=authority.own.certificate, proxy=proxy.url
        )
        async with following(connection, world) as agent:
            await agent.until_complete()
            proxy.cut()
            await agent.until_failing("pods")
            await arrives(agent, world)

    assert {f"127.0.0.1:{gate.port}"} == set(proxy.asked)


async def test_proxy_that_refuses_is_an_error_with_its_answer(
    upstream: Connection, world: World, tmp_path: Path
) -> None:
    async with Proxy(answer=b"HTTP/1.1 407 Proxy Authentication Required") as proxy:
        connection = Connection("https://127.0.0.1:6443", proxy=proxy.url)
        async with following(connection, world) as agent:
            assert "407" in await agent.until_failing("pods")


async def test_certificate_that_is_none_is_refused_at_the_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    client = Client(Connection("https://127.0.0.1:1", ca_file=tmp_path / "ca.crt"))

    with pytest.raises(ConfigError, match="certificates for https"):
        await client.__aenter__()


def _copy(pair: KeyPair, files: CertificateFiles) -> None:
    files.certificate.write_bytes(pair.certificate.read_bytes())
    files.key.write_bytes(pair.key.read_bytes())


def _names(gate: Gate) -> set[str]:
    """Return who showed a certificate."""
    names = set()
    for request in gate.requests:
        shown = request.get_extra_info("peercert")
        if shown:
            names |= {value for ((name, value),) in shown["subject"] if name}
    return names
