"""Status of policies written through a whole API on loopback."""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from outgate.controller import writer as module
from outgate.controller.notices import Notice, Subject
from outgate.controller.writer import Observed, StatusWriter
from outgate.errors import SourceError
from outgate.policy.status import Aspect, Condition, PolicyStatus, Truth
from outgate.source.client import Client
from unit.controller.api import CRD_PATH, read, until, until_read

PATH = "/apis/example.test/v1/policies"
STATUS_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def crd(*, serves_status: bool = True, keeps_status: bool = True) -> dict[str, Any]:
    properties: dict[str, Any] = {"spec": deepcopy(STATUS_SCHEMA)}
    if keeps_status:
        properties["status"] = deepcopy(STATUS_SCHEMA)
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}} if serves_status else {},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "policies.example.test"},
        "spec": {
            "group": "example.test",
            "scope": "Cluster",
            "names": {"plural": "policies", "kind": "Policy"},
            "versions": [version],
        },
    }


def status(truth: Truth = Truth.TRUE, matched: int = 1) -> PolicyStatus:
    conditions = tuple(Condition(a, truth, "Fine", "all is well") for a in Aspect)
    return PolicyStatus(1, conditions, matched, ())


class World:
    """One writer, the policies it sees, and what it told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.may_write = True
        self.told: list[Notice] = []
        self.writer = StatusWriter(client, lambda: self.may_write, self.told.append)

    async def make(self, name: str) -> Observed:
        body = {
            "apiVersion": "example.test/v1",
            "kind": "Policy",
            "metadata": {"name": name},
            "spec": {},
        }
        made = await self.client.request("POST", PATH, body=body)
        return self.observed(made)

    def observed(self, found: Any) -> Observed:
        metadata = found["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        return Observed(
            Subject("example.test/v1", "Policy", name, uid),
            f"{PATH}/{name}",
            metadata["resourceVersion"],
            found.get("status") or {},
        )

    async def read(self, name: str) -> dict[str, Any]:
        return dict(await read(self.client, f"{PATH}/{name}"))


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    world = World(client)
    task = asyncio.create_task(world.writer.run())
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_writer_writes_what_is_wanted(client: Client, world: World) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status(matched=7))
    await until(lambda: world.writer.counts.written)

    written = (await world.read("p"))["status"]
    assert 7 == written["matchedPods"]
    assert ["True"] * 4 == [c["status"] for c in written["conditions"]]
    assert {} == world.writer.failures


async def test_writer_writes_nothing_that_stands_already(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GAP_SECONDS", 0.0)
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status())
    await until(lambda: world.writer.counts.written)
    world.writer.observe("p", world.observed(await world.read("p")))
    world.writer.want("p", status())
    world.writer.observe("q", await world.make("q"))
    world.writer.want("q", status())
    await until_read(client, f"{PATH}/q", lambda found: "status" in found)

    assert 2 == world.writer.counts.written


async def test_writer_that_does_not_lead_writes_nothing(
    client: Client, world: World
) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.may_write = False
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status())
    await asyncio.sleep(0.05)
    assert "status" not in await world.read("p")

    world.may_write = True
    world.writer.wake()
    await until(lambda: world.writer.counts.written)


async def test_writer_mends_what_somebody_else_wrote(
    client: Client, world: World
) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status(matched=7))
    await until(lambda: world.writer.counts.written)
    found = await world.read("p")
    found["status"]["summary"]["ready"] = "False"
    changed = await client.request("PUT", f"{PATH}/p/status", body=found)
    world.writer.observe("p", world.observed(changed))
    await until(lambda: world.writer.counts.written == 2)

    assert "True" == (await world.read("p"))["status"]["summary"]["ready"]


async def test_writer_that_saw_an_old_version_changes_nothing(
    client: Client, world: World
) -> None:
    """A writer that was asleep must not write over its successor."""
    await client.request("POST", CRD_PATH, body=crd())
    old = await world.make("p")
    found = {**(await world.read("p")), "status": {"matchedPods": 9}}
    newer = await client.request("PUT", f"{PATH}/p/status", body=found)
    world.writer.observe("p", old)
    world.writer.want("p", status(matched=7))
    await until(lambda: world.writer.counts.conflicts)
    assert 9 == (await world.read("p"))["status"]["matchedPods"]

    world.writer.observe("p", world.observed(newer))
    await until(lambda: world.writer.counts.written)


@pytest.mark.parametrize(
    ("definition", "what"),
    [
        (crd(serves_status=False), "serves no status"),
        (crd(keeps_status=False), "drops fields of status"),
    ],
)
async def test_writer_survives_a_crd_of_somebody_else(
    client: Client, world: World, definition: dict[str, Any], what: str
) -> None:
    await client.request("POST", CRD_PATH, body=definition)
    for name in ("p", "q"):
        world.writer.observe(name, await world.make(name))
        world.writer.want(name, status())
    await until(lambda: world.writer.failures)
    await asyncio.sleep(0.05)

    assert what in world.writer.failures["Policy"]
    assert "kubectl apply" in world.writer.failures["Policy"]
    assert 1 == world.writer.counts.failed, "one try is enough for all of a kind"
    assert [] == world.told


async def test_writer_lets_a_deleted_policy_go(client: Client, world: World) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    await client.request("DELETE", f"{PATH}/p")
    world.writer.want("p", status())
    await asyncio.sleep(0.05)
    world.writer.observe("p", None)
    world.writer.want("p", None)

    assert {} == world.writer.failures


async def test_writer_tries_again_after_a_failure(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    request, broken = client.request, [True]

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        if broken.pop():
            broken.append(False)
            raise SourceError("PATCH: 503: busy", 503)
        broken.append(False)
        return await request(*args, **kwargs)

    monkeypatch.setattr(client, "request", flaky)
    world.writer.want("p", status())
    await until(lambda: world.writer.failures)
    assert {"p": "PATCH: 503: busy"} == world.writer.failures

    await until(lambda: world.writer.counts.written)
    assert {} == world.writer.failures


async def test_writer_lets_counts_wait_and_nothing_else(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write is told to every agent; counts are no matter of theirs."""
    monkeypatch.setattr(module, "GAP_SECONDS", 0.0)
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status(matched=1))
    await until(lambda: world.writer.counts.written == 1)
    world.writer.want("p", status(matched=2))
    await asyncio.sleep(0.05)
    assert 1 == (await world.read("p"))["status"]["matchedPods"]

    world.writer.want("p", status(Truth.FALSE, matched=3))
    await until(lambda: world.writer.counts.written == 2)
    assert 3 == (await world.read("p"))["status"]["matchedPods"]


async def test_writer_forgets_a_policy_that_goes_while_it_is_written(
    client: Client, world: World
) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    for name in ("p", "q"):
        world.writer.observe(name, await world.make(name))
        world.writer.want(name, status())
    world.writer.observe("q", None)
    world.writer.want("q", None)
    await until(lambda: world.writer.counts.written)

    assert "status" not in await world.read("q")


async def test_writer_tells_what_changed(client: Client, world: World) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    world.writer.observe("p", await world.make("p"))
    world.writer.want("p", status(Truth.FALSE))
    await until(lambda: world.told)

    assert {("Warning", "Fine")} == {(n.type, n.reason) for n in world.told}
    assert 4 == len(world.told)


async def test_writer_keeps_the_time_of_what_did_not_change(
    client: Client, world: World
) -> None:
    await client.request("POST", CRD_PATH, body=crd())
    observed = await world.make("p")
    long_ago = "2020-01-01T00:00:00Z"
    found = await world.read("p")
    found["status"] = status().to_json({}, long_ago)
    changed = await client.request("PUT", f"{PATH}/p/status", body=found)
    assert observed.version != changed["metadata"]["resourceVersion"]
    world.writer.observe("p", world.observed(changed))
    world.writer.want("p", status(matched=2))
    await until(lambda: world.writer.counts.written)

    conditions = (await world.read("p"))["status"]["conditions"]
    assert {long_ago} == {c["lastTransitionTime"] for c in conditions}
