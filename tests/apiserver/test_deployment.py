"""
What deploy/ installs, on a real API server with RBAC: agents report, status appears.

Both processes show the tokens of their service accounts, so a verb that the rules do
not grant, or a field that the schemas do not name, is a failure here.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apiserver.control_plane import ControlPlane
from apiserver.objects import EVENTS, tells_of_programmed
from kubectl.driver import Kubectl
from outgate.agent import reporter
from outgate.controller import controller as module
from outgate.controller.config import load_config
from outgate.controller.controller import Controller
from outgate.controller.freshness import Freshness
from outgate.source.client import Client
from outgate.source.kubeconfig import load
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import NodeName, Seconds
from unit.controller.api import until, until_read
from unit.controller.cluster import (
    EGRESS,
    GATEWAYS,
    Agent,
    gateway_policy,
    make_node,
    make_pod,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEM = "outgate-system"


@pytest.fixture(scope="module")
def kubectl(
    own_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Kubectl:
    """Give a kubectl that may do everything, on a cluster with all of deploy/."""
    binary = shutil.which("kubectl")
    if binary is None:
        pytest.skip("no kubectl on PATH")
    folder = tmp_path_factory.mktemp("kubectl")
    kubectl = Kubectl(binary, "", folder, "", str(own_plane.kubeconfig))
    kubectl("apply", "-f", str(DEPLOY / "crds"))
    kubectl("wait", "--for=condition=Established", "--all", "crd")
    kubectl("apply", "-f", str(DEPLOY / "outgate.yaml"))
    return kubectl


@asynccontextmanager
async def account(
    plane: ControlPlane, kubectl: Kubectl, name: str
) -> AsyncIterator[Client]:
    """Open a client that is a service account of ours."""
    admin = load(Path(plane.kubeconfig), None)
    token = kubectl("create", "token", name, f"--namespace={SYSTEM}")
    async with Client(replace(admin, client_certificate=None, token=token)) as client:
        yield client


@asynccontextmanager
async def background(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def report(agents: list[Agent]) -> None:
    while True:
        for agent in agents:
            await agent.look()
        await asyncio.sleep(0.05)


async def test_deployment_shows_what_becomes_of_a_policy(
    own_plane: ControlPlane, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(reporter, "RENEW_SECONDS", 0.2)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(
            Client(load(Path(own_plane.kubeconfig), None))
        )
        await make_node(admin, "n1", "192.0.2.1")
        await make_node(admin, "n2", "192.0.2.2", EGRESS)
        await make_pod(admin, "web-1", "n1", "10.0.1.7")
        policy = await admin.request("POST", GATEWAYS, body=gateway_policy())

        own = await stack.enter_async_context(
            account(own_plane, kubectl, "outgate-agent")
        )
        agents = [Agent(own, f"n{number}", f"192.0.2.{number}") for number in (1, 2)]
        source = KubernetesSource(own, NodeName("n1"))
        client = await stack.enter_async_context(
            account(own_plane, kubectl, "outgate-controller")
        )
        config = load_config({}, {})
        freshness = Freshness(Seconds(3.0))
        controller = Controller(client, config, "a", freshness=freshness)
        stop = asyncio.Event()
        async with background(source.run(), report(agents), controller.run(stop)):
            await until(lambda: source.is_complete, 30)
            await until_read(
                admin, f"{GATEWAYS}/web", lambda p: p.get("status"), seconds=30
            )
            for agent in agents:
                agent.program(policy)
            await until_read(
                admin,
                f"{GATEWAYS}/web",
                lambda p: p["status"]["summary"]["ready"] == "True",
                seconds=30,
            )
            await until_read(admin, EVENTS, tells_of_programmed, seconds=30)
            numbers, errors = controller.numbers(), controller.why_not_ready()

        assert (0, 0, 0) == (numbers.failed, numbers.refused_events, numbers.failing)
        assert () == errors
        assert {None} == {agent.reporter.statistics().error for agent in agents}
    head, row = kubectl("get", "cegp", "web").splitlines()
    assert ["READY", "REASON", "GATEWAYS", "EGRESS-IPS", "PODS"] == head.split()[1:6]
    assert ["True", "-", "n2", "192.0.2.2", "1"] == row.split()[1:6]
    assert "Programmed" in kubectl("describe", "cegp", "web").partition("Events:")[2]


def test_deployment_is_the_same_when_applied_again(kubectl: Kubectl) -> None:
    words = kubectl("apply", "-f", str(DEPLOY / "outgate.yaml"))

    assert {"unchanged"} == {line.split()[-1] for line in words.splitlines()}
