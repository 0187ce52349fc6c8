"""The Kubernetes source against a small API on loopback: kinds, changes, queries."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from aiohttp import web

from faults.follower import Follower
from outgate.policy.model import BadPolicy, PodQuery
from outgate.source.client import Client, Connection
from outgate.source.kubernetes import KubernetesSource
from outgate.source.timing import Timing
from outgate.state.entries import NodeName

NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
PODS = "/api/v1/pods"
POLICIES = "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies"
GATEWAY_POLICIES = "/apis/cilium.io/v2/ciliumegressgatewaypolicies"
SERVICE_NETWORKS = "/apis/networking.k8s.io/v1/servicecidrs"
FORMER_SERVICE_NETWORKS = "/apis/networking.k8s.io/v1beta1/servicecidrs"
API_SERVERS = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

NODE = NodeName("n1")

TIMING = Timing(
    first_wait=0.01,
    longest_wait=0.05,
    missing=0.05,
    missing_wait=0.02,
    confirm=0.1,
    short_watch=0.01,
)


class Api:
    """
    Lists and watches of whatever a test puts in, one object a page.

    *streams*: "refused" (422, as servers do that have them switched off), "ignored" (a
    watch like any other, as old ones do), or "served".
    """

    def __init__(self) -> None:
        paths = (
            *(NODES, NAMESPACES, PODS, POLICIES, GATEWAY_POLICIES),
            *(SERVICE_NETWORKS, API_SERVERS),
        )
        self.objects: dict[str, dict[str, Any]] = {path: {} for path in paths}
        self.missing: set[str] = set()
        self.expired: set[str] = set()
        self.requests: list[str] = []
        self.streams = "refused"
        self.down = False
        self.version = 1
        self._watches: list[tuple[web.Request, asyncio.Queue[bytes | None]]] = []

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
        self.version += 1
        gone = self.objects[path].pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._send(path, "DELETED", gone)

    def send_raw(self, path: str, line: bytes) -> None:
        for request, queue in self._watches:
            if request.path == path:
                queue.put_nowait(line)

    def cut(self) -> None:
        for _, queue in self._watches:
            queue.put_nowait(None)

    def _send(self, path: str, event: str, value: Any) -> None:
        line = json.dumps({"type": event, "object": value}).encode()
        for request, queue in self._watches:
            if request.path == path and _is_selected(request, value):
                queue.put_nowait(line)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append(f"{path}?{request.query_string}")
        if self.down:
            return web.Response(status=503)
        if path in self.missing or path not in self.objects:
            return web.json_response({"message": "no such kind"}, status=404)
        if "watch" not in request.query:
            return self._list(request)
        if path in self.expired:
            self.expired.discard(path)
            return web.json_response({"message": "too old"}, status=410)
        is_stream = "sendInitialEvents" in request.query
        if is_stream and self.streams == "refused":
            return web.json_response({"message": "forbidden"}, status=422)
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        if is_stream:
            for value in self.objects[path].values():
                if _is_selected(request, value):
                    added = {"type": "ADDED", "object": value}
                    queue.put_nowait(json.dumps(added).encode())
            queue.put_nowait(self._bookmark())
        self._watches.append((request, queue))
        while (line := await queue.get()) is not None:
            await response.write(line + b"\n")
        return response

    def _bookmark(self) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(self.version)}
        if self.streams == "served":
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        mark = {"type": "BOOKMARK", "object": {"metadata": metadata}}
        return json.dumps(mark).encode()

    def _list(self, request: web.Request) -> web.Response:
        """One object a page, to walk through ``continue``."""
        found = [
            value
            for _, value in sorted(self.objects[request.path].items())
            if _is_selected(request, value)
        ]
        start = int(request.query.get("continue", 0))
        more = str(start + 1) if start + 1 < len(found) else ""
        page = {
            "metadata": {"resourceVersion": str(self.version), "continue": more},
            "items": found[start : start + 1],
        }
        return web.json_response(page)


def _is_selected(request: web.Request, value: Any) -> bool:
    """Understands the selectors that the source uses, and one label at most."""
    name, _, wanted = request.query.get("fieldSelector", "").partition("=")
    if name == "metadata.name" and value["metadata"]["name"] != wanted:
        return False
    if name == "spec.nodeName" and value["spec"].get("nodeName") != wanted:
        return False
    label, _, wanted = request.query.get("labelSelector", "").partition("=")
    return not label or value["metadata"].get("labels", {}).get(label) == wanted


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    api = Api()
    app = web.Application()
    app.router.add_get("/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _fill(api)
    yield api, f"http://127.0.0.1:{runner.addresses[0][1]}"
    api.cut()
    await runner.cleanup()


@pytest.fixture
async def agent(api: tuple[Api, str]) -> AsyncIterator[Follower]:
    async with _following(api[1]) as follower:
        yield follower


@asynccontextmanager
async def _following(
    url: str, node: NodeName | None = NODE, timing: Timing = TIMING
) -> AsyncIterator[Follower]:
    async with Client(Connection(url)) as client:
        source = KubernetesSource(
            client, node, [IPv4Network("10.96.0.0/12")], timing=timing
        )
        task = asyncio.create_task(source.run())
        yield Follower(source)
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
    api.put(NAMESPACES, "kube-system")
    put_pod(api, "web", "n1", "10.0.1.7", app="web")
    put_pod(api, "far", "n2", "10.0.2.7", app="web")
    put_pod(api, "db", "n2", "10.0.2.8", app="db")
    api.put(POLICIES, "p", spec=_spec("203.0.113.0/24"))
    api.put(SERVICE_NETWORKS, "kubernetes", spec={"cidrs": ["10.96.0.0/16"]})
    api.put(
        API_SERVERS,
        "kubernetes",
        metadata={
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        endpoints=[{"addresses": ["192.0.2.100"]}],
    )


def put_pod(api: Api, name: str, node: str, address: str, **labels: str) -> None:
    api.put(
        PODS,
        name,
        metadata={"namespace": "default", "labels": labels},
        spec={"nodeName": node, "containers": [{"image": "x"}]},
        status={"phase": "Running", "podIPs": [{"ip": address}]},
    )


def _spec(cidr: str) -> dict[str, Any]:
    return {
        "destinationCIDRs": [cidr],
        "egress": [{"podSelector": {}}],
        "egressSourceIP": "192.0.2.2",
    }


@pytest.mark.parametrize("streams", ["served", "refused", "ignored"])
async def test_source_lists_all_kinds(api: tuple[Api, str], streams: str) -> None:
    """Streamed where the server can do it, in pages where it can't."""
    api[0].streams = streams
    async with _following(api[1]) as agent:
        assert not agent.source.is_complete
        await agent.until_complete()

    state = agent.state
    assert [n.addresses for n in state["nodes"].values()] == [
        (IPv4Address("192.0.2.1"), IPv6Address("fd00::1")),
        (IPv4Address("192.0.2.2"), IPv6Address("fd00::2")),
    ]
    assert {"default", "kube-system"} == set(state["namespaces"])
    assert {"default/web"} == set(agent.pods)
    assert {"CiliumEgressNATPolicy/p"} == set(agent.policies)
    assert {
        "settings": (IPv4Network("10.96.0.0/12"),),
        "ServiceCIDR/kubernetes": (IPv4Network("10.96.0.0/16"),),
        "EndpointSlice/default/kubernetes": (IPv4Network("192.0.2.100/32"),),
    } == state["networks"]
    assert agent.source.errors == {}


async def test_source_without_a_node_follows_all_pods(api: tuple[Api, str]) -> None:
    async with _following(api[1], node=None) as agent:
        await agent.until_complete()

        assert {"default/web", "default/far", "default/db"} == set(agent.pods)


async def test_source_follows_changes(api: tuple[Api, str], agent: Follower) -> None:
    await agent.until_complete()
    api[0].put(POLICIES, "q", spec=_spec("198.51.100.0/24"))
    await agent.until(lambda: len(agent.policies) == 2)
    api[0].delete(PODS, "web")
    await agent.until(lambda: not agent.pods)

    assert agent.source.is_complete


async def test_source_tells_only_what_changed(
    api: tuple[Api, str], agent: Follower
) -> None:
    """A node's heartbeat is a new version of an object that says the same."""
    await agent.until_complete()
    node = api[0].objects[NODES]["n1"]
    api[0].put(NODES, "n1", spec=node["spec"], status=node["status"])
    put_pod(api[0], "new", "n1", "10.0.1.8")
    await agent.source.wait_changed()
    changes = await agent.look()

    assert {"default/new"} == set(changes.pods)
    assert not changes.nodes
    assert not changes.policies


async def test_source_hands_on_a_bad_policy(
    api: tuple[Api, str], agent: Follower
) -> None:
    await agent.until_complete()
    api[0].put(POLICIES, "p", spec=_spec("203.0.113.1/24"))
    key = "CiliumEgressNATPolicy/p"
    await agent.until(lambda: isinstance(agent.policies[key], BadPolicy))

    bad = agent.policies[key]
    assert isinstance(bad, BadPolicy)
    assert [p.path for p in bad.problems] == ["spec.destinationCIDRs[0]"]


async def test_source_outage_keeps_the_cluster_and_says_so(
    api: tuple[Api, str], agent: Follower
) -> None:
    await agent.until_complete()
    api[0].down = True
    api[0].send_raw(PODS, b"{half an obj")
    await agent.until_failing("pods")

    assert {"default/web"} == set(agent.pods)
    api[0].down = False
    await agent.until_complete()
    assert agent.source.errors == {}
    assert not agent.removed


async def test_source_finds_a_deletion_that_no_watch_told(
    api: tuple[Api, str], agent: Follower
) -> None:
    put_pod(api[0], "other", "n1", "10.0.1.9")
    await agent.until_complete()
    del api[0].objects[PODS]["web"]
    api[0].expired.add(PODS)
    api[0].send_raw(
        PODS, b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"old"}}'
    )
    await agent.until(lambda: "default/web" not in agent.pods)

    assert agent.source.is_complete
    assert {"default/other"} == set(agent.pods)


async def test_source_without_the_crd_is_complete_after_a_while(
    api: tuple[Api, str], agent: Follower
) -> None:
    api[0].missing.add(POLICIES)
    await agent.until_complete()
    assert not agent.policies
    api[0].missing.clear()
    await agent.until(lambda: len(agent.policies) == 1)


async def test_source_finds_service_networks_where_old_servers_have_them(
    api: tuple[Api, str],
) -> None:
    former = api[0].objects.pop(SERVICE_NETWORKS)
    api[0].objects[FORMER_SERVICE_NETWORKS] = former
    async with _following(api[1]) as agent:
        await agent.until_complete()

    assert "ServiceCIDR/kubernetes" in agent.state["networks"]


async def test_source_awaits_pods_that_are_needed(
    api: tuple[Api, str], agent: Follower
) -> None:
    await agent.until_complete()
    agent.source.need_pods({PodQuery("", "app=web")})
    assert not agent.source.is_complete
    assert agent.source.is_listed
    await agent.until_complete()

    assert {"default/web", "default/far"} == set(agent.pods)
    assert [s.kind for s in agent.source.statistics()][-1] == "selected pods"


async def test_source_drops_pods_that_are_not_needed_any_more(
    api: tuple[Api, str], agent: Follower
) -> None:
    """This node's own pods stay, whoever else asked for them."""
    agent.source.need_pods({PodQuery("", "app=web")})
    await agent.until(lambda: "default/far" in agent.pods)
    agent.source.need_pods(set())
    await agent.until(lambda: "default/far" not in agent.pods)

    assert {"default/web"} == set(agent.pods)
    assert agent.source.is_complete


async def test_source_keeps_pods_while_a_query_is_replaced(
    api: tuple[Api, str], agent: Follower
) -> None:
    """The successor is listed before the former query goes."""
    agent.source.need_pods({PodQuery("", "app=web")})
    await agent.until_complete()
    await agent.look()
    agent.source.need_pods({PodQuery()})
    await agent.until_complete()

    assert {"default/web", "default/far", "default/db"} == set(agent.pods)
    assert not agent.removed


async def test_source_asks_for_the_pods_of_one_namespace_by_its_path(
    api: tuple[Api, str], agent: Follower
) -> None:
    path = "/api/v1/namespaces/default/pods"
    api[0].objects[path] = api[0].objects[PODS]
    agent.source.need_pods({PodQuery("default")})
    await agent.until_complete()

    assert {"default/web", "default/far", "default/db"} == set(agent.pods)


async def test_source_without_a_word_asks_whether_the_server_is_there(
    api: tuple[Api, str],
) -> None:
    async with _following(api[1], timing=replace(TIMING, probe=0.05)) as agent:
        await agent.until_complete()
        api[0].down = True
        error = await agent.until_failing("pods")

    assert "the server fell silent" in error


async def test_source_statistics_count_what_came(
    api: tuple[Api, str], agent: Follower
) -> None:
    await agent.until_complete()

    rows = [(s.kind, s.objects, s.lists, s.error) for s in agent.source.statistics()]
    assert rows[:3] == [
        ("nodes", 2, 1, None),
        ("namespaces", 2, 1, None),
        ("ciliumegressnatpolicies", 1, 1, None),
    ]
    assert rows[-1] == ("pods", 1, 1, None)
