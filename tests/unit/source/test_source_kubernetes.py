"""The Kubernetes source against a small API on loopback: lists, watches, faults."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from aiohttp import web

from outgate.source import watch
from outgate.source.client import Client, Connection
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import NodeName

NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
PODS = "/api/v1/pods"
POLICIES = "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies"


class Api:
    """Lists and watches of whatever a test puts in; knows nothing else."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {
            path: {} for path in (NODES, NAMESPACES, PODS, POLICIES)
        }
        self.missing: set[str] = set()
        self.expired: set[str] = set()
        self.down = False
        self.version = 1
        self._watches: list[tuple[str, asyncio.Queue[bytes | None]]] = []

    def put(self, path: str, name: str, **fields: Any) -> None:
        self.version += 1
        event = "MODIFIED" if name in self.objects[path] else "ADDED"
        metadata = {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(self.version),
            **fields.pop("metadata", {}),
        }
        self.objects[path][name] = {"metadata": metadata, **fields}
        self._send(path, event, self.objects[path][name])

    def delete(self, path: str, name: str) -> None:
        self._send(path, "DELETED", self.objects[path].pop(name))

    def send_raw(self, path: str, line: bytes) -> None:
        for watched, queue in self._watches:
            if watched == path:
                queue.put_nowait(line)

    def cut(self) -> None:
        for _, queue in self._watches:
            queue.put_nowait(None)

    def _send(self, path: str, event: str, value: Any) -> None:
        self.send_raw(path, json.dumps({"type": event, "object": value}).encode())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if self.down:
            return web.Response(status=503)
        if path in self.missing:
            return web.json_response({"message": "no such kind"}, status=404)
        if "watch" not in request.query:
            return self._list(request)
        if path in self.expired:
            self.expired.discard(path)
            return web.json_response({"message": "too old"}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watches.append((path, queue))
        while (line := await queue.get()) is not None:
            await response.write(line + b"\n")
        return response

    def _list(self, request: web.Request) -> web.Response:
        """One object a page, to walk through ``continue``."""
        names = sorted(self.objects[request.path])
        start = int(request.query.get("continue", 0))
        more = str(start + 1) if start + 1 < len(names) else ""
        page = {
            "metadata": {"resourceVersion": str(self.version), "continue": more},
            "items": [
                self.objects[request.path][name] for name in names[start : start + 1]
            ],
        }
        return web.json_response(page)


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    api = Api()
    app = web.Application()
    app.router.add_get("/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield api, f"http://127.0.0.1:{runner.addresses[0][1]}"
    api.cut()
    await runner.cleanup()


@pytest.fixture
async def source(api: tuple[Api, str]) -> AsyncIterator[KubernetesSource]:
    _fill(api[0])
    async with Client(Connection(api[1])) as client:
        source = KubernetesSource(client, NodeName("n1"), [IPv4Network("10.96.0.0/12")])
        task = asyncio.create_task(source.run())
        yield source
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _fill(api: Api) -> None:
    for number, name in ((1, "n1"), (2, "n2")):
        addresses = [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": f"192.0.2.{number}"},
            {"type": "InternalIP", "address": f"fd00::{number}"},
            {"type": "InternalIP", "address": f"fe80::{number}"},
        ]
        api.put(NODES, name, spec={}, status={"addresses": addresses})
    api.put(NAMESPACES, "default", metadata={"labels": {"team": "blue"}})
    api.put(
        PODS,
        "web",
        metadata={"namespace": "default", "labels": {"app": "web"}},
        spec={"nodeName": "n1", "containers": [{"image": "x"}]},
        status={"phase": "Running", "podIPs": [{"ip": "10.0.1.7"}]},
    )
    api.put(POLICIES, "p", spec=_spec("203.0.113.0/24"))


def _spec(cidr: str) -> dict[str, Any]:
    return {
        "destinationCIDRs": [cidr],
        "egress": [{"podSelector": {}}],
        "egressSourceIP": "192.0.2.2",
    }


async def _until(source: KubernetesSource, is_met: Callable[[], bool]) -> None:
    """Wait as an agent does: look again after each change, and only then."""
    async with asyncio.timeout(5):
        while not is_met():
            await source.wait_changed()


async def test_source_lists_all_kinds(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    assert not source.is_complete
    await _until(source, lambda: source.is_complete)
    cluster = source.cluster

    assert [(n.name, n.addresses) for n in cluster.nodes] == [
        ("n1", (IPv4Address("192.0.2.1"), IPv6Address("fd00::1"))),
        ("n2", (IPv4Address("192.0.2.2"), IPv6Address("fd00::2"))),
    ]
    assert [n.labels for n in cluster.namespaces] == [{"team": "blue"}]
    assert [(e.reference, e.node, e.addresses) for e in cluster.endpoints] == [
        ("Pod default/web", "n1", (IPv4Address("10.0.1.7"),))
    ]
    assert [p.name for p in cluster.policies] == ["p"]
    assert cluster.cluster_networks == (IPv4Network("10.96.0.0/12"),)
    assert source.errors == {}


async def test_source_follows_changes(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    await _until(source, lambda: source.is_complete)
    api[0].put(POLICIES, "q", spec=_spec("198.51.100.0/24"))
    await _until(source, lambda: len(source.cluster.policies) == 2)
    api[0].delete(PODS, "web")
    await _until(source, lambda: not source.cluster.endpoints)

    assert source.is_complete


async def test_source_keeps_the_last_good_version_of_a_bad_policy(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    await _until(source, lambda: source.is_complete)
    before = source.cluster.policies
    api[0].put(POLICIES, "p", spec=_spec("203.0.113.1/24"))
    await _until(source, lambda: bool(source.cluster.bad_policies))

    (bad,) = source.cluster.bad_policies
    assert source.cluster.policies == before
    assert [p.path for p in bad.problems] == ["spec.destinationCIDRs[0]"]
    api[0].delete(POLICIES, "p")
    await _until(source, lambda: not source.cluster.bad_policies)
    assert source.cluster.policies == ()


async def test_source_outage_keeps_the_cluster_and_says_so(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    await _until(source, lambda: source.is_complete)
    before = source.cluster
    api[0].down = True
    api[0].send_raw(PODS, b"{half an obj")
    await _until(source, lambda: not source.is_complete)

    assert source.cluster == before
    assert "pods" in source.errors
    api[0].down = False
    await _until(source, lambda: source.is_complete)
    assert source.errors == {}


async def test_source_relists_after_410_without_losing_a_row(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    """A deletion that no watch told is found by comparing lists."""
    await _until(source, lambda: source.is_complete)
    api[0].objects[PODS].clear()
    api[0].expired.add(PODS)
    api[0].send_raw(
        PODS, b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"old"}}'
    )
    await _until(source, lambda: not source.cluster.endpoints)

    assert source.is_complete


async def test_source_without_the_crd_is_complete_after_a_while(
    api: tuple[Api, str],
    source: KubernetesSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "MISSING_SECONDS", 0.05)
    monkeypatch.setattr(watch, "MISSING_WAIT_SECONDS", 0.05)
    api[0].missing.add(POLICIES)
    await _until(source, lambda: source.is_complete)
    assert source.cluster.policies == ()
    api[0].missing.clear()
    await _until(source, lambda: len(source.cluster.policies) == 1)


async def test_source_statistics_count_what_came(
    api: tuple[Api, str], source: KubernetesSource
) -> None:
    await _until(source, lambda: source.is_complete)

    assert [(s.kind, s.objects, s.lists, s.error) for s in source.statistics()] == [
        ("nodes", 2, 1, None),
        ("namespaces", 1, 1, None),
        ("pods", 1, 1, None),
        ("ciliumegressnatpolicies", 1, 1, None),
    ]
