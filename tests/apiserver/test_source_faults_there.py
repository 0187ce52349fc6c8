"""
An agent while a real control plane fails: no row that is right is removed.

Each test breaks the module's own control plane, and leaves it well.  What can be broken
between the source and the server is broken in ``tests/faults``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apiserver.conftest import install_definitions, kubectl_of
from apiserver.control_plane import ControlPlane
from apiserver.objects import NAMESPACES, NOW, add_namespace, add_node, run_pod
from apiserver.test_source_there import running_source
from apiserver.wire import Wire, open_kubeconfig
from faults.follower import Agent
from outgate.state.entries import NodeName
from unit.controller.cluster import GATEWAYS, gateway_policy

CONFIGS = f"{NAMESPACES}/default/configmaps"
NODE = "n1"
PODS = 12
LATER = "10.0.1.98 -> 203.0.113.0/24"
"""The row of a pod that each test makes, and takes away, when all is well again."""


@pytest.fixture
async def wire(own_plane: ControlPlane) -> AsyncIterator[Wire]:
    async with open_kubeconfig(own_plane.kubeconfig) as wire:
        yield wire


@pytest.fixture
async def space(
    own_plane: ControlPlane, wire: Wire, tmp_path: Path
) -> AsyncIterator[str]:
    """Make a namespace with pods on node ``n1`` and their policy; gives its name."""
    kubectl = kubectl_of(own_plane.kubeconfig, tmp_path)
    await asyncio.to_thread(install_definitions, kubectl)
    name = f"t-{uuid.uuid4().hex[:8]}"
    await add_namespace(wire, name)
    if (await wire.call("GET", f"/api/v1/nodes/{NODE}"))[0] == 404:
        await add_node(wire, NODE, "192.0.2.7")
    for number in range(PODS):
        await run_pod(wire, name, f"p{number}", NODE, f"10.0.1.{number}")
    policy = gateway_policy(name, nodeSelector={})
    pods = {"matchLabels": {"io.kubernetes.pod.namespace": name}}
    policy["spec"]["selectors"] = [{"podSelector": pods}]
    await wire.done("POST", GATEWAYS, policy)
    yield name
    await wire.call("DELETE", f"{GATEWAYS}/{name}")
    for number in range(PODS):
        await wire.call("DELETE", f"{NAMESPACES}/{name}/pods/p{number}", **NOW)


@asynccontextmanager
async def an_agent(plane: ControlPlane) -> AsyncIterator[Agent]:
    """Let the agent of the node make its rows, in a kernel in memory."""
    async with running_source(plane.kubeconfig, NODE) as source:
        agent = Agent(source, NodeName(NODE))
        await agent.until_complete()
        rows = await agent.rows()
        assert len(rows) == PODS + ("10.0.1.99 -> 203.0.113.0/24" in rows)
        yield agent


async def test_a_restart_of_the_api_server_removes_nothing(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    async with an_agent(own_plane) as seen:
        await asyncio.to_thread(own_plane.restart_server)
        await hear_of_a_new_pod(wire, seen, space)

    assert seen.removed == set()
    assert seen.lost <= {LATER}


async def test_what_was_missed_and_forgotten_is_listed_anew(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    """The versions that the source knows are compacted while it cannot watch."""
    async with an_agent(own_plane) as seen:
        await asyncio.to_thread(own_plane.stop_server)
        await asyncio.to_thread(miss_changes, own_plane)
        await asyncio.to_thread(own_plane.start_server)
        await hear_of_a_new_pod(wire, seen, space)
        await seen.until_complete()
        lists = {row.kind: row.lists for row in seen.source.statistics()}

    assert seen.removed == set()
    assert seen.lost <= {LATER}
    assert lists["pods"] > 1


def miss_changes(plane: ControlPlane) -> None:
    """Let the world go on, behind the back of all who watch, and forget how."""
    plane.start_server()
    plane.stop_server()
    plane.compact()


async def test_another_cluster_behind_the_address_is_not_believed(
    own_plane: ControlPlane, space: str
) -> None:
    """An etcd that was emptied: lists shrink to nothing, versions start anew."""
    async with an_agent(own_plane) as seen:
        before = await seen.rows()
        await asyncio.to_thread(own_plane.empty)
        why = await seen.until_failing("pods")
        await asyncio.sleep(3)
        await seen.look()

        assert "another cluster" in why
        assert not seen.source.is_complete
    assert seen.removed == set()
    assert await seen.rows() == before


async def test_a_restored_backup_is_noticed(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    """A watch from a version that the restored etcd has not reached yet is silent."""
    await asyncio.to_thread(own_plane.keep)
    await write_configs(wire, 50)
    await run_pod(wire, space, "lost", NODE, "10.0.1.99")
    async with an_agent(own_plane) as seen:
        assert f"{space}/lost" in seen.pods
        await asyncio.to_thread(own_plane.restore)
        await hear_of_a_new_pod(wire, seen, space)
        await seen.until(lambda: f"{space}/lost" not in seen.pods)
        await seen.until_complete()

    assert seen.removed == {f"{space}/lost"}
    assert seen.lost - {LATER} == {"10.0.1.99 -> 203.0.113.0/24"}


async def hear_of_a_new_pod(wire: Wire, seen: Agent, space: str) -> None:
    """Make a pod and wait until the source tells of it, then of its end."""
    await run_pod(wire, space, "later", NODE, "10.0.1.98")
    await seen.until(lambda: f"{space}/later" in seen.pods, 20)
    await wire.done("DELETE", f"{NAMESPACES}/{space}/pods/later", **NOW)
    await seen.until(lambda: f"{space}/later" not in seen.pods)
    seen.removed.discard(f"{space}/later")


async def write_configs(wire: Wire, count: int) -> None:
    """Use up versions."""
    for number in range(count):
        name = f"{uuid.uuid4().hex[:8]}-{number}"
        await wire.done("POST", CONFIGS, {"metadata": {"name": name}})
