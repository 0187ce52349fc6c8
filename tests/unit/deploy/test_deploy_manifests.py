"""What deploy/outgate.yaml grants, against what agent and controller really ask for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.agent.config import SETTINGS as AGENT_SETTINGS
from outgate.controller import controller as controller_module
from outgate.controller.config import SETTINGS as CONTROLLER_SETTINGS
from outgate.controller.config import load_config
from outgate.controller.controller import Controller
from outgate.controller.lease import LEASE_NAME
from outgate.kubeapi.server import ApiServer
from outgate.policy.model import PodQuery
from outgate.source.client import Client, Connection
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import NodeName
from unit.controller.api import CRD_PATH, until
from unit.controller.cluster import (
    EGRESS,
    GATEWAYS,
    Agent,
    gateway_policy,
    make_node,
    make_pod,
)

DEPLOY = Path(__file__).parents[3] / "deploy"
DOCUMENTS = list(yaml.safe_load_all((DEPLOY / "outgate.yaml").read_text()))
NAMESPACE = "outgate-system"


@dataclass(frozen=True)
class Access:
    """One thing that is asked for or granted, as RBAC names it."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str = ""


def access(method: str, path: str, params: dict[str, str]) -> Access:
    """Return what the API server asks its authorizer for a request."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    resource = "/".join([rest[0], *rest[2:]])
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = verbs.get(method, "get" if name else "list")
    if params.get("watch") == "true":
        verb = "watch"
    return Access(namespace, group, resource, verb, name)


def granted(account: str) -> list[Access]:
    """Return what is bound to a service account; no namespace: everywhere."""
    roles = {
        (d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d
        for d in DOCUMENTS
    }
    found = []
    for binding in DOCUMENTS:
        if account not in [s["name"] for s in binding.get("subjects", ())]:
            continue
        namespace = binding["metadata"].get("namespace", "")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        for rule in roles[(kind, namespace, name)]["rules"]:
            found += [
                Access(namespace, group, resource, verb, name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for name in rule.get("resourceNames", [""])
            ]
    return found


def is_granted(asked: Access, grants: Iterable[Access]) -> bool:
    return any(
        grant.namespace in ("", asked.namespace)
        and (grant.group, grant.resource) == (asked.group, asked.resource)
        and grant.verb == asked.verb
        and grant.name in ("", asked.name)
        for grant in grants
    )


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = ApiServer()
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    await server.stop()


@asynccontextmanager
async def recording(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Client, set[Access]]]:
    """Give a client, and what is asked through it."""
    asked: set[Access] = set()
    async with Client(Connection(url)) as client:
        opened = client._open

        def note(method: str, path: str, params: Any, *args: Any, **kwargs: Any) -> Any:
            asked.add(access(method, path, dict(params or {})))
            return opened(method, path, params, *args, **kwargs)

        monkeypatch.setattr(client, "_open", note)
        yield client, asked


async def furnish(url: str) -> None:
    """Make what must be there for every request to be made."""
    async with Client(Connection(url)) as client:
        for file in sorted((DEPLOY / "crds").glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            await client.request("POST", CRD_PATH, body=crd)
        body = {"metadata": {"name": NAMESPACE}}
        await client.request("POST", "/api/v1/namespaces", body=body)
        await make_node(client, "n1", "192.0.2.1", EGRESS)
        await make_pod(client, "web-1", "n1", "10.0.1.7")
        await client.request("POST", GATEWAYS, body=gateway_policy())
        await Agent(client, "gone", "192.0.2.9").look()


async def of_agent(url: str, monkeypatch: pytest.MonkeyPatch) -> set[Access]:
    async with recording(url, monkeypatch) as (client, asked):
        source = KubernetesSource(client, NodeName("n1"))
        source.need_pods({PodQuery(), PodQuery(namespace="default")})
        task = asyncio.create_task(source.run())
        await until(lambda: source.is_complete)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await Agent(client, "n1", "192.0.2.1").look()
    return asked


async def of_controller(url: str, monkeypatch: pytest.MonkeyPatch) -> set[Access]:
    monkeypatch.setattr(controller_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("outgate.controller.reports.ORPHAN_SECONDS", 0.1)
    async with recording(url, monkeypatch) as (client, asked):
        stop = asyncio.Event()
        controller = Controller(client, load_config({}, {}), "a")
        task = asyncio.create_task(controller.run(stop))
        verbs = {"delete", "patch", "create"}
        await until(lambda: verbs <= {a.verb for a in asked})
        await until(
            lambda: controller.numbers().written and controller.numbers().events
        )
        stop.set()
        await task
    return asked


ACCOUNTS = {"outgate-agent": of_agent, "outgate-controller": of_controller}


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_rules_grant_what_is_asked(
    account: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnish(url)
    asked = await ACCOUNTS[account](url, monkeypatch)
    grants = granted(account)

    assert [] == [
        each for each in sorted(asked, key=str) if not is_granted(each, grants)
    ]


RARE = {
    # Lists are streamed through a watch where the server knows how.
    *(
        (group, resource, "list")
        for group, resource in (
            ("", "nodes"),
            ("", "namespaces"),
            ("", "pods"),
            ("cilium.io", "ciliumegressnatpolicies"),
            ("cilium.io", "ciliumegressgatewaypolicies"),
            ("networking.k8s.io", "servicecidrs"),
            ("discovery.k8s.io", "endpointslices"),
            ("outgate.io", "egressnodes"),
        )
    ),
    # Peers are asked by a list, and nothing else reads namespaces so.
    # A report is read alone before its node is called silent.
    ("outgate.io", "egressnodes", "get"),
    # A policy is read alone when its status cannot be written.
    ("cilium.io", "ciliumegressnatpolicies", "get"),
    ("cilium.io", "ciliumegressgatewaypolicies", "get"),
    ("cilium.io", "ciliumegressnatpolicies/status", "patch"),
    # The same Event again.
    ("", "events", "patch"),
}


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_rules_grant_nothing_that_is_never_asked(
    account: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnish(url)
    asked = {
        (a.group, a.resource, a.verb) for a in await ACCOUNTS[account](url, monkeypatch)
    }
    grants = {(g.group, g.resource, g.verb) for g in granted(account)}

    assert set() == grants - asked - RARE


def test_lease_is_granted_by_its_name() -> None:
    names = {g.name for g in granted("outgate-controller") if g.verb == "update"}

    assert {LEASE_NAME} == names


def test_bindings_name_what_is_there() -> None:
    known = {(d["kind"], d["metadata"]["name"]) for d in DOCUMENTS}
    asked = {
        (found["kind"], found["name"])
        for d in DOCUMENTS
        for found in [*d.get("subjects", ()), *filter(None, [d.get("roleRef")])]
    }

    assert set() == asked - known


def test_environment_is_of_settings() -> None:
    known = {
        "agent": {s.variable for s in AGENT_SETTINGS},
        "controller": {s.variable for s in CONTROLLER_SETTINGS},
    }
    for document in DOCUMENTS:
        if document["kind"] in ("DaemonSet", "Deployment"):
            [container] = document["spec"]["template"]["spec"]["containers"]
            names = {variable["name"] for variable in container["env"]}
            assert set() == names - known[container["name"]]
            assert [container["name"]] == container["args"]


def test_labels_of_pods_are_those_that_are_selected() -> None:
    for document in DOCUMENTS:
        if document["kind"] in ("DaemonSet", "Deployment"):
            selected = document["spec"]["selector"]["matchLabels"]
            labels = document["spec"]["template"]["metadata"]["labels"]

            assert selected.items() <= labels.items()
