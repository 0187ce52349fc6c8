"""
The source of the agents, while a real control plane fails: nothing right is removed.

Each test breaks the module's own control plane, and leaves it well.  What can be broken
between the source and the server is broken in ``tests/faults``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from apiserver.control_plane import ControlPlane
from apiserver.objects import NAMESPACES, NOW, add_namespace, add_node, run_pod
from apiserver.test_source_there import following
from apiserver.wire import Wire, open_kubeconfig
from faults.follower import Follower

CONFIGS = f"{NAMESPACES}/default/configmaps"
NODE = "n1"
PODS = 12


@pytest.fixture
async def wire(own_plane: ControlPlane) -> AsyncIterator[Wire]:
    async with open_kubeconfig(own_plane.kubeconfig) as wire:
        yield wire


@pytest.fixture
async def space(wire: Wire) -> str:
    """Make a namespace with pods on node ``n1``; gives its name."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await add_namespace(wire, name)
    if (await wire.call("GET", f"/api/v1/nodes/{NODE}"))[0] == 404:
        await add_node(wire, NODE, "192.0.2.7")
    for number in range(PODS):
        await run_pod(wire, name, f"p{number}", NODE, f"10.0.1.{number}")
    return name


async def test_a_restart_of_the_api_server_removes_nothing(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    async with following(own_plane.kubeconfig, NODE) as seen:
        await asyncio.to_thread(own_plane.restart_server)
        await hear_of_a_new_pod(wire, seen, space)

    assert seen.removed == set()


async def test_what_was_missed_and_forgotten_is_listed_anew(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    """The versions that the source knows are compacted while it cannot watch."""
    async with following(own_plane.kubeconfig, NODE) as seen:
        await asyncio.to_thread(own_plane.stop_server)
        await asyncio.to_thread(miss_changes, own_plane)
        await asyncio.to_thread(own_plane.start_server)
        await hear_of_a_new_pod(wire, seen, space)
        await seen.until_complete()
        lists = {row.kind: row.lists for row in seen.source.statistics()}

    assert seen.removed == set()
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
    async with following(own_plane.kubeconfig, NODE) as seen:
        before = dict(seen.pods)
        await asyncio.to_thread(own_plane.empty)
        why = await seen.until_failing("pods")
        await asyncio.sleep(3)
        seen.look()

        assert "another cluster" in why
        assert not seen.source.is_complete
    assert seen.removed == set()
    assert seen.pods == before
    assert len(before) >= PODS


async def test_a_restored_backup_is_noticed(
    own_plane: ControlPlane, wire: Wire, space: str
) -> None:
    """A watch from a version that the restored etcd has not reached yet is silent."""
    await asyncio.to_thread(own_plane.keep)
    await write_configs(wire, 50)
    await run_pod(wire, space, "lost", NODE, "10.0.1.99")
    async with following(own_plane.kubeconfig, NODE) as seen:
        assert f"{space}/lost" in seen.pods
        await asyncio.to_thread(own_plane.restore)
        await hear_of_a_new_pod(wire, seen, space)
        await seen.until(lambda: f"{space}/lost" not in seen.pods)

    assert seen.removed == {f"{space}/lost"}


async def hear_of_a_new_pod(wire: Wire, seen: Follower, space: str) -> None:
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
