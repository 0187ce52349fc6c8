"""
Agent and controller as the accounts that ``deploy/outgate.yaml`` makes, with RBAC.

Enough is allowed for all that they do, and nothing beside it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from apiserver.kubeconfig import for_bearer
from apiserver.objects import (
    EVENTS,
    add_namespace,
    add_node,
    run_pod,
    tells_of_programmed,
)
from apiserver.test_source_there import following
from apiserver.wire import Object, Wire
from kubectl.driver import Kubectl
from outgate.controller.config import load_config
from outgate.controller.controller import Controller
from outgate.policy.model import PodQuery
from outgate.source.client import Client
from outgate.source.kubeconfig import load
from unit.controller.cluster import GATEWAYS, Agent, gateway_policy

pytestmark = pytest.mark.usefixtures("definitions")

SYSTEM = "outgate-system"
DEPLOYMENT = Path(__file__).parents[2] / "deploy" / "outgate.yaml"
SECONDS = 20.0


@pytest.fixture(scope="session")
def deployed(admin: Kubectl) -> Kubectl:
    """Apply what a user applies; nothing runs the pods that it asks for."""
    admin("apply", "-f", str(DEPLOYMENT))
    return admin


@pytest.fixture(scope="session")
def agents_kubeconfig(
    deployed: Kubectl, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return bear(deployed, "outgate-agent", kubeconfig, tmp_path_factory.mktemp("a"))


@pytest.fixture(scope="session")
def controllers_kubeconfig(
    deployed: Kubectl, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("c")
    return bear(deployed, "outgate-controller", kubeconfig, folder)


def bear(kubectl: Kubectl, account: str, kubeconfig: Path, folder: Path) -> Path:
    """Return the kubeconfig of a service account, with a token as pods get it."""
    token = kubectl("create", "token", account, "--namespace", SYSTEM)
    return for_bearer(kubeconfig, token, folder / "kubeconfig")


def test_applying_the_deployment_again_changes_nothing(deployed: Kubectl) -> None:
    said = deployed("apply", "-f", str(DEPLOYMENT)).splitlines()

    assert [line for line in said if not line.endswith("unchanged")] == []


async def test_an_agent_may_follow_all_that_it_needs(
    wire: Wire, agents_kubeconfig: Path
) -> None:
    space = f"t-{uuid.uuid4().hex[:8]}"
    await add_namespace(wire, space)
    await run_pod(wire, space, "far", "elsewhere", "10.0.2.7", app="web")
    async with following(agents_kubeconfig, "n1") as seen:
        seen.source.need_pods({PodQuery(space, "app=web"), PodQuery()})
        await seen.until(lambda: f"{space}/far" in seen.pods)
        await seen.until_complete()

    assert seen.source.errors == {}


async def test_an_agent_may_report_its_node_anew_and_again(
    wire: Wire, agents_kubeconfig: Path
) -> None:
    name = f"node-{uuid.uuid4().hex[:8]}"
    async with Client(load(agents_kubeconfig)) as client:
        agent = Agent(client, name, "192.0.2.9")
        await agent.look()
        agent.is_ready = False
        await agent.look()
        said = agent.reporter.statistics()

    kept = await wire.get(f"/apis/outgate.io/v1alpha1/egressnodes/{name}")
    assert (said.written, said.error) == (2, None)
    assert kept["status"]["ready"] is False
    assert kept["status"]["interfaces"][0]["addresses"] == ["192.0.2.9"]


@pytest.mark.parametrize(
    "question",
    [
        "patch ciliumegressgatewaypolicies.cilium.io/x --subresource=status",
        "update ciliumegressgatewaypolicies.cilium.io/x",
        "get secrets --all-namespaces",
        "list configmaps --all-namespaces",
        "delete pods --all-namespaces",
        "patch nodes",
        "delete egressnodes.outgate.io",
        "create leases.coordination.k8s.io",
    ],
)
def test_an_agent_may_not(
    admin: Kubectl, agents_kubeconfig: Path, question: str
) -> None:
    agent = replace(admin, kubeconfig=str(agents_kubeconfig))

    assert agent.run("auth", "can-i", *question.split()).out.strip() == "no"


@pytest.mark.parametrize(
    "question",
    [
        "update ciliumegressgatewaypolicies.cilium.io/x",
        "delete ciliumegressgatewaypolicies.cilium.io/x",
        "get secrets --all-namespaces",
        "update leases.coordination.k8s.io/other --namespace outgate-system",
        "create events --namespace kube-system",
        "patch egressnodes.outgate.io/x --subresource=status",
        "patch nodes",
    ],
)
def test_a_controller_may_not(
    admin: Kubectl, controllers_kubeconfig: Path, question: str
) -> None:
    controller = replace(admin, kubeconfig=str(controllers_kubeconfig))

    assert controller.run("auth", "can-i", *question.split()).out.strip() == "no"


@asynccontextmanager
async def controlling(kubeconfig: Path, name: str) -> AsyncIterator[Controller]:
    """Run a controller as a pod of its deployment would."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(load(kubeconfig)))
        controller = Controller(client, load_config({}, {}), name)
        stop = asyncio.Event()
        running = asyncio.create_task(controller.run(stop))
        try:
            yield controller
        finally:
            stop.set()
            await asyncio.wait_for(running, SECONDS)


@asynccontextmanager
async def reporting(*agents: Agent) -> AsyncIterator[None]:
    """Let agents report, as often as the real ones."""
    tasks = [asyncio.create_task(agent.reporter.run()) for agent in agents]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(wire: Wire, path: str, is_met: Callable[[Object], bool]) -> Object:
    """Read *path* until *is_met*; gives what it holds then."""
    found: Object = {}
    for _ in range(int(SECONDS / 0.1)):
        found = await wire.get(path)
        if is_met(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(found.get("status"))


async def test_a_controller_writes_status_events_and_its_lease(
    admin: Kubectl, wire: Wire, agents_kubeconfig: Path, controllers_kubeconfig: Path
) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    worker, gateway = f"{name}-worker", f"{name}-gateway"
    await add_node(wire, worker, "192.0.2.11")
    await add_node(wire, gateway, "192.0.2.12", policy=name)
    await add_namespace(wire, name)
    await run_pod(wire, name, "web-1", worker, "10.0.11.7", app="web")
    policy = gateway_policy(name, nodeSelector={"matchLabels": {"policy": name}})
    pods = {"matchLabels": {"io.kubernetes.pod.namespace": name}}
    policy["spec"]["selectors"] = [{"podSelector": pods}]
    made = {**await wire.done("POST", GATEWAYS, policy), "kind": policy["kind"]}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(load(agents_kubeconfig)))
        agents = [
            Agent(client, worker, "192.0.2.11"),
            Agent(client, gateway, "192.0.2.12"),
        ]
        for agent in agents:
            agent.program(made)
        await stack.enter_async_context(reporting(*agents))
        leader = await stack.enter_async_context(
            controlling(controllers_kubeconfig, name)
        )
        found = await until(
            wire,
            f"{GATEWAYS}/{name}",
            lambda it: it.get("status", {}).get("summary", {}).get("ready") == "True",
        )
        events = f"{EVENTS}?fieldSelector=involvedObject.name={name}"
        await until(wire, events, tells_of_programmed)
        row = admin("get", "cegp", name).splitlines()[1].split()
        described = admin("describe", "cegp", name)
        lease = admin("get", "lease", "outgate-controller", "-n", SYSTEM).split()
        assert leader.is_leader
        assert name in lease
        assert leader.why_not_ready() == ()
        assert leader.numbers().failed == leader.numbers().refused_events == 0

    assert found["status"]["observedGeneration"] == made["metadata"]["generation"]
    assert row[:6] == [name, "True", "-", gateway, "192.0.2.12", "1"]
    assert "Programmed" in described.partition("Events:")[2]


async def test_a_second_controller_takes_over_from_one_that_left(
    wire: Wire, controllers_kubeconfig: Path
) -> None:
    first, second = (f"c-{uuid.uuid4().hex[:8]}" for _ in range(2))
    async with controlling(controllers_kubeconfig, first) as one:
        await until_true(lambda: one.is_leader)
        async with controlling(controllers_kubeconfig, second) as other:
            await until_true(lambda: other.why_not_ready() == ())
            assert (one.is_leader, other.is_leader) == (True, False)
    async with controlling(controllers_kubeconfig, second) as other:
        await until_true(lambda: other.is_leader)


async def until_true(is_met: Callable[[], bool]) -> None:
    for _ in range(int(SECONDS / 0.1)):
        if is_met():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came to that")
