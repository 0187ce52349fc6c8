"""
How a lab is, as its API and its lock tell it.

What this is: ``look``, one observation from outside, and its text form for
``outgate lab status``.
What this is not: a change of anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.errors import SourceError
from outgate.lab.agents import is_agent
from outgate.lab.podstatus import timestamp
from outgate.lab.process import lock_owner, read_process, started_at
from outgate.lab.records import find_record
from outgate.lab.settings import (
    DEFAULT_NAME,
    ApiAddress,
    LabSettings,
    StateFolder,
)
from outgate.lab.topology import DEFAULT
from outgate.source.client import Client
from outgate.source.connection import Connection


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node of the lab."""

    name: str
    address: str
    pod_network: str
    is_ready: bool


@dataclass(frozen=True, slots=True)
class PodLine:
    """A pod of the lab."""

    namespace: str
    name: str
    node: str
    address: str
    state: str
    is_ready: bool
    is_agent: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """
    One look at a lab.

    *owner* is the pid of its first process, None when it does not run; *error* is
    why the API did not answer, if it did not.
    """

    name: str
    owner: int | None
    server: str = ""
    settings: LabSettings | None = None
    nodes: tuple[NodeLine, ...] = ()
    all_pods: tuple[PodLine, ...] = ()
    error: str = ""

    @property
    def answers(self) -> bool:
        return self.owner is not None and not self.error

    @property
    def agents(self) -> tuple[PodLine, ...]:
        return tuple(pod for pod in self.all_pods if pod.is_agent)

    @property
    def nodes_not_ready(self) -> tuple[str, ...]:
        """The lab's own nodes that are missing or not Ready; others do not count."""
        ready = {node.name for node in self.nodes if node.is_ready}
        return tuple(node.name for node in DEFAULT.nodes if node.name not in ready)

    @property
    def nodes_without_agent(self) -> tuple[str, ...]:
        """The lab's own nodes where no agent is ready."""
        served = {agent.node for agent in self.agents if agent.is_ready}
        return tuple(node.name for node in DEFAULT.nodes if node.name not in served)

    @property
    def is_whole(self) -> bool:
        return (
            self.answers and not self.nodes_not_ready and not self.nodes_without_agent
        )

    def complaint(self, log: Path) -> str:
        """What is not as it should be, and where to read on."""
        if self.error:
            return f"the lab's API does not answer: {self.error}; see {log}"
        for name in self.nodes_not_ready:
            return f"node {name} is not Ready; see {log}"
        for agent in self.agents:
            if agent.node in self.nodes_without_agent:
                return (
                    f"agent {agent.name} on {agent.node}: {agent.state}; "
                    f"see kubectl -n {agent.namespace} logs {agent.name}"
                )
        return f"no agent on {', '.join(self.nodes_without_agent)}; see {log}"


async def look(folder: StateFolder) -> Overview:
    """Observe the lab of *folder*; never raises for what is missing or broken."""
    owner = lock_owner(folder.lock)
    name = folder.root.name
    if owner is None:
        return Overview(name, None, error="the lab does not run")
    api = find_record(folder.api_address, ApiAddress)
    settings = find_record(folder.settings, LabSettings)
    if api is None:
        return Overview(name, owner, settings=settings, error="it is starting")
    first = read_process(owner)
    began = timestamp(started_at(first)) if first else ""
    connection = Connection(api.server, token=api.token, ca_data=api.certificate)
    try:
        async with Client(connection) as client:
            nodes = await client.request("GET", "/api/v1/nodes")
            pods = await client.request("GET", "/api/v1/pods")
    except SourceError as error:
        return Overview(name, owner, api.server, settings, error=str(error))
    return Overview(
        name,
        owner,
        api.server,
        settings,
        nodes=tuple(_node_line(node) for node in nodes["items"]),
        all_pods=tuple(_pod_line(pod, began) for pod in pods["items"]),
    )


def _is_true(item: dict[str, Any], kind: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def _listed(texts: Iterable[str]) -> str:
    return " ".join(texts) or "none"


def _node_line(node: dict[str, Any]) -> NodeLine:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return NodeLine(
        name=node["metadata"]["name"],
        address=_listed(a["address"] for a in addresses if a["type"] == "InternalIP"),
        pod_network=_listed((node.get("spec") or {}).get("podCIDRs") or ()),
        is_ready=_is_true(node, "Ready"),
    )


def _pod_line(pod: dict[str, Any], began: str) -> PodLine:
    """What the API says of *pod*, unless it says so from before the lab *began*."""
    status = pod.get("status") or {}
    state = status.get("phase", "Pending")
    for container in status.get("containerStatuses") or ():
        state = container["state"].get("waiting", {}).get("reason", state)
        if container["state"].get("running", {}).get("startedAt", began) < began:
            state = "Starting"
    is_ready = _is_true(pod, "Ready") and state == "Running"
    if state == "Running" and not is_ready:
        state = "NotReady"
    if "deletionTimestamp" in pod["metadata"]:
        state = "Terminating"
    return PodLine(
        namespace=pod["metadata"]["namespace"],
        name=pod["metadata"]["name"],
        node=pod["spec"].get("nodeName", "none"),
        address=_listed(item["ip"] for item in status.get("podIPs") or ()),
        state=state,
        is_ready=is_ready and state == "Running",
        is_agent=is_agent(pod),
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """
    Rows as padded columns, the first row being the heads.

    >>> print(table([("A", "B"), ("long", "x")]))
    A      B
    long   x
    """
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "   ".join(
            f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def describe(overview: Overview, current_context: str) -> str:
    """The text of ``outgate lab status``."""
    if overview.owner is None:
        option = f" --name {overview.name}" if overview.name != DEFAULT_NAME else ""
        return f"no lab {overview.name} is running; start it: outgate lab up{option}"
    settings = overview.settings or LabSettings(overview.name)
    head = [
        ("lab", f"{overview.name} (process {overview.owner})"),
        (
            "network",
            f"{settings.network}, {settings.ip_family}, mtu {settings.pod_mtu}",
        ),
        ("gateway path", settings.gateway_path.value),
        ("gateway hook", settings.gateway_hook.value),
        ("API", overview.error or f"{overview.server}, answers"),
        ("kubeconfig", f"current context is {current_context or 'not set'}"),
    ]
    parts = ["\n".join(f"{name + ':':15}{value}" for name, value in head)]
    if overview.nodes:
        rows = [("NODE", "ADDRESS", "PODS", "STATE")]
        rows += [
            (n.name, n.address, n.pod_network, "Ready" if n.is_ready else "NotReady")
            for n in overview.nodes
        ]
        parts.append(table(rows))
    if overview.all_pods:
        lines = [("POD", "NAMESPACE", "NODE", "ADDRESS", "STATE")]
        lines += [
            (pod.name, pod.namespace, pod.node, pod.address, pod.state)
            for pod in overview.all_pods
        ]
        parts.append(table(lines))
    return "\n\n".join(parts)
