"""
``outgate policy``: what policies mean, without a cluster and without root.

What it is: arguments in, text or JSON out; the answers come from ``policy``.
What it is not: the way to change anything.

Exit codes of ``plan``: 0 when the plan could be made; 1 when a file cannot be read
or the node is unknown; 2 when the plan was made and printed, but a policy in the
files is wrong and so is not in it.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

import msgspec
import typer

from outgate.errors import ConfigError
from outgate.policy.compile import Compiled, compile_node
from outgate.policy.model import Cluster, Node
from outgate.source.files import load_cluster
from outgate.state.entries import (
    Excluded,
    InterfaceIndex,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    TunnelDevice,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.snapshot import render, sort_key

EXIT_BAD_POLICY = 2

UPLINK = "uplink0"
"""The interface that a plan imagines: it has the node's addresses, and leads out."""

TUNNEL = TunnelDevice("outgate_vx", 4789)

app = typer.Typer(no_args_is_help=True, help="Ask what policies mean, offline.")


class Output(StrEnum):
    """How an answer is printed."""

    TEXT = "text"
    JSON = "json"


@app.callback()
def policy() -> None:
    """Ask what policies mean, offline."""


@app.command()
def plan(
    files: Annotated[
        list[Path],
        typer.Option(
            "-f",
            "--filename",
            help="YAML or JSON file, folder, or - for standard input; repeatable.",
        ),
    ],
    node: Annotated[str, typer.Option("--node", help="The node to plan for.")],
    output: Annotated[
        Output, typer.Option("-o", "--output", help="How to print the plan.")
    ] = Output.TEXT,
) -> None:
    """
    Print what the kernel of a node would hold for the objects in FILEs.

    FILEs hold ordinary Kubernetes documents: Node, Namespace, Pod (with status),
    and egress policies. Exits with 2 when a policy in them is wrong.
    """
    cluster = load_cluster(files)
    compiled = compile_node(
        cluster, NodeName(node), imagine_facts(find_node(cluster, node)), TUNNEL
    )
    if output is Output.JSON:
        encoded = msgspec.json.format(msgspec.json.encode(_to_json(cluster, compiled)))
        print(encoded.decode())
    else:
        print(render(compiled.snapshot))
        for problem in compiled.problems:
            line = f"{problem.object}: {problem.path}: {problem.message}"
            print(line, file=sys.stderr)
    if cluster.bad_policies:
        raise typer.Exit(EXIT_BAD_POLICY)


def find_node(cluster: Cluster, name: str) -> Node:
    """Return the node *name*, or say which ones the files have."""
    for node in cluster.nodes:
        if node.name == name:
            return node
    known = ", ".join(node.name for node in cluster.nodes) or "none"
    raise ConfigError(f"--node: the files have no Node {name!r}; they have: {known}")


def imagine_facts(node: Node) -> NodeFacts:
    """Return what *node* would observe if its addresses were all on one uplink."""
    return NodeFacts(
        links=(Link(UPLINK, InterfaceIndex(2), addresses=node.addresses),),
        default_interface=UPLINK,
        default_interface_v6=UPLINK,
    )


def _to_json(cluster: Cluster, compiled: Compiled) -> dict[str, object]:
    names = {policy.id: policy.name for policy in cluster.policies}
    snapshot = compiled.snapshot
    rows = [
        (key, value)
        for key, value in sorted(snapshot.items(), key=lambda entry: sort_key(entry[0]))
        if isinstance(key, PolicyKey)
    ]
    return {
        "rows": [
            {
                "source": str(key.source),
                "destination": str(key.destination),
                **_row_to_json(value, names),
            }
            for key, value in rows
            if isinstance(value, PolicyEntry)
        ],
        "problems": [
            {"object": p.object, "path": p.path, "message": p.message}
            for p in compiled.problems
        ],
        "entries": render(snapshot).splitlines(),
    }


def _row_to_json(
    entry: PolicyEntry, names: dict[PolicyId, str]
) -> dict[str, str | None]:
    kind, egress_ip, tunnel_endpoint = "", None, None
    match entry:
        case ViaGateway():
            kind = "gateway"
            egress_ip, tunnel_endpoint = entry.egress_ip, entry.tunnel_endpoint
        case NoEgressIP():
            kind, tunnel_endpoint = "no-egress-ip", entry.tunnel_endpoint
        case NoGateway():
            kind = "no-gateway"
        case Excluded():
            kind = "excluded"
        case _:
            assert_never(entry)
    return {
        "kind": kind,
        "egressIP": str(egress_ip) if egress_ip else None,
        "tunnelEndpoint": str(tunnel_endpoint) if tunnel_endpoint else None,
        "policy": names[entry.policy],
    }
