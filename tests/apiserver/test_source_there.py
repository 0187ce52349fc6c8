"""
The source of the agents, against a real API server that stays well.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from apiserver.objects import NAMESPACES, NOW, add_namespace, add_node, pod, run_pod
from apiserver.wire import Wire
from faults.follower import Follower
from outgate.policy.model import PodQuery
from outgate.source.client import Client
from outgate.source.kubeconfig import load
from outgate.source.kubernetes import KubernetesSource
from outgate.source.timing import Timing
from outgate.state.entries import NodeName

pytestmark = pytest.mark.usefixtures("definitions")

EAGER = Timing(longest_wait=1.0)
"""Servers come back within seconds here, not within minutes."""


@pytest.fixture
async def space(wire: Wire) -> str:
    """Make a namespace; gives its name, which is also that of a node."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await add_namespace(wire, name, team=name)
    await add_node(wire, name, "192.0.2.7")
    return name


@asynccontextmanager
async def following(kubeconfig: Path, node: str | None) -> AsyncIterator[Follower]:
    """Follow the cluster as the agent of *node* does, or as the controller (None)."""
    async with running_source(kubeconfig, node) as source:
        follower = Follower(source)
        await follower.until_complete()
        yield follower


@asynccontextmanager
async def running_source(
    kubeconfig: Path, node: str | None
) -> AsyncIterator[KubernetesSource]:
    async with Client(load(kubeconfig)) as client:
        name = NodeName(node) if node else None
        source = KubernetesSource(client, name, timing=EAGER)
        running = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_the_first_list_is_whole(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    await run_pod(wire, space, "mine", space, "10.0.1.7", app="web")
    await run_pod(wire, space, "other", "elsewhere", "10.0.2.7", app="web")
    async with following(kubeconfig, space) as seen:
        assert seen.source.is_listed
        assert seen.source.errors == {}

    assert set(seen.pods) == {f"{space}/mine"}
    mine = seen.pods[f"{space}/mine"]
    assert [str(address) for address in mine.addresses] == ["10.0.1.7"]
    assert mine.labels["app"] == "web"
    assert seen.state["namespaces"][space].labels["team"] == space
    assert "kube-system" in seen.state["namespaces"]
    node = seen.state["nodes"][space]
    assert (str(node.tunnel_endpoint), node.is_ready) == ("192.0.2.7", True)


async def test_the_inside_of_the_cluster_is_known(kubeconfig: Path) -> None:
    async with following(kubeconfig, "nobody") as seen:
        known = {
            network for some in seen.state["networks"].values() for network in some
        }

    expected = ("10.96.0.0/16", "fd00:10:96::/112", "192.0.2.1/32")
    assert {ip_network(text) for text in expected} <= known


async def test_a_list_is_streamed_not_asked_for_in_pages(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    for number in range(20):
        await wire.done("POST", f"{NAMESPACES}/{space}/pods", pod(f"p{number}"))
    async with following(kubeconfig, None) as seen:
        (pods,) = (row for row in seen.source.statistics() if row.kind == "pods")

    assert (pods.lists, pods.watches, pods.failures) == (1, 1, 0)
    assert len([key for key in seen.pods if key.startswith(f"{space}/")]) == 20


async def test_a_pod_comes_when_it_is_bound_and_goes_when_it_is_gone(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    key, path = f"{space}/late", f"{NAMESPACES}/{space}/pods"
    async with following(kubeconfig, space) as seen:
        await wire.done("POST", path, pod("late", finalizer="example.test/hold"))
        binding = {"metadata": {"name": "late"}, "target": {"name": space}}
        await wire.done("POST", f"{path}/late/binding", binding)
        await seen.until(lambda: key in seen.pods)
        await wire.done("DELETE", f"{path}/late", **NOW)
        await seen.until(lambda: seen.pods[key].is_terminating)
        assert seen.removed == set()
        await wire.done("PATCH", f"{path}/late", {"metadata": {"finalizers": None}})
        await seen.until(lambda: key not in seen.pods)

    assert seen.source.errors == {}


async def test_a_pod_made_again_under_its_name_and_address_is_another(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    key = f"{space}/web-0"
    made = await run_pod(wire, space, "web-0", space, "10.0.1.9", app="web")
    async with following(kubeconfig, space) as seen:
        before = seen.pods[key]
        await wire.done("DELETE", f"{NAMESPACES}/{space}/pods/web-0", **NOW)
        await run_pod(wire, space, "web-0", space, "10.0.1.9", app="db")
        await seen.until(
            lambda: (
                key in seen.pods
                and seen.pods[key].uid != before.uid
                and bool(seen.pods[key].addresses)
            )
        )
        after = seen.pods[key]

    assert before.uid == made["metadata"]["uid"]
    assert after.labels["app"] == "db"
    assert before.incarnation != after.incarnation


async def test_pods_that_a_policy_selects_come_and_go_with_their_labels(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    key, path = f"{space}/far", f"{NAMESPACES}/{space}/pods/far"
    await run_pod(wire, space, "far", "elsewhere", "10.0.2.7", app="web")
    async with following(kubeconfig, space) as seen:
        assert key not in seen.pods
        seen.source.need_pods({PodQuery(space, "app in (web)")})
        await seen.until(lambda: seen.source.is_complete and key in seen.pods)
        await wire.done("PATCH", path, {"metadata": {"labels": {"app": "db"}}})
        await seen.until(lambda: key not in seen.pods)
        await wire.done("PATCH", path, {"metadata": {"labels": {"app": "web"}}})
        await seen.until(lambda: key in seen.pods)
        seen.source.need_pods(set())
        await seen.until(lambda: key not in seen.pods)


async def test_a_heartbeat_is_no_change(
    wire: Wire, kubeconfig: Path, space: str
) -> None:
    async with following(kubeconfig, space) as seen:
        beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": LATER}
        status = {"status": {"conditions": [beat]}}
        await wire.done("PATCH", f"/api/v1/nodes/{space}/status", status)
        await add_namespace(wire, f"{space}-mark")
        changes = await seen.look()
        while f"{space}-mark" not in changes.namespaces:
            assert changes.nodes == {}
            await asyncio.wait_for(seen.source.wait_changed(), 10)
            changes = await seen.look()

    assert changes.nodes == {}


LATER = "2026-01-02T03:04:05Z"
