"""
``outgate policy``: what policies mean, without a cluster and without root.

What it is: arguments in, text or JSON out; the answers come from ``policy``.
What it is not: the way to change anything.

Exit codes: 0 when all is well; 1 when a file cannot be read or the node is unknown;
2 when the answer was printed, but a policy in the files is wrong, and so is not in a
plan.  Warnings change no exit code.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

import msgspec
import typer

from outgate.cli.render import Output
from outgate.errors import ConfigError, SourceError
from outgate.policy.compile import Compiled, compile_node
from outgate.policy.model import BadPolicy, Cluster, EgressPolicy, Node, Problem
from outgate.policy.parse import is_policy, parse_policy
from outgate.policy.problems import POD_NETWORKS
from outgate.source.facts_file import load_facts
from outgate.source.files import (
    Document,
    build_cluster,
    read_documents,
    reported_facts,
)
from outgate.state.entries import (
    Excluded,
    InterfaceIndex,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    TunnelDevice,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.snapshot import policy_rows, render

EXIT_BAD_POLICY = 2

UPLINK = "uplink0"
"""The interface that a plan imagines: it has the node's addresses, and leads out."""

TUNNEL = TunnelDevice("outgate_vx", 4789)

app = typer.Typer(no_args_is_help=True, help="Ask what policies mean, offline.")


class Severity(StrEnum):
    """Whether what was found is wrong, or only may not be meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and the document that has it."""

    document: Document
    severity: Severity
    problem: Problem

    @property
    def line(self) -> str:
        """Return the finding as text."""
        problem = self.problem
        mark = "warning: " if self.severity is Severity.WARNING else ""
        return (
            f"{self.document.place}: {problem.object}: {problem.path}: "
            f"{mark}{problem.message}"
        )


@app.callback()
def policy() -> None:
    """Ask what policies mean, offline."""


@app.command()
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="YAML or JSON file, folder, or - for standard input.",
        ),
    ],
    output: Annotated[
        Output, typer.Option("-o", "--output", help="How to print what is wrong.")
    ] = Output.TEXT,
) -> None:
    """
    Print what is wrong with the policies in FILEs: field, value, and the mend.

    The CRDs refuse the same, as far as a schema can. Objects of other kinds are passed
    over. Exits with 2 when a policy is wrong, with 1 when a file cannot be read.
    """
    policies, unreadable = _read_policies(files)
    findings = [f for document in policies for f in _find(document)]
    if output is Output.JSON:
        _print_json({"problems": [_finding_to_json(found) for found in findings]})
    else:
        for found in findings:
            print(found.line)
        print(_count(policies, findings))
    if unreadable:
        raise SourceError("\n".join(unreadable))
    if any(found.severity is Severity.ERROR for found in findings):
        raise typer.Exit(EXIT_BAD_POLICY)


def _read_policies(files: list[Path]) -> tuple[list[Document], list[str]]:
    """Return the policies of all *files* that can be read, and why others cannot."""
    policies, unreadable = [], []
    for path in files:
        try:
            for document in read_documents(path):
                if is_policy(str(document.value["kind"])):
                    policies.append(document)
        except SourceError as e:
            unreadable.append(str(e))
    return policies, unreadable


def _find(document: Document) -> Iterator[Finding]:
    policy = parse_policy(document.value)
    match policy:
        case BadPolicy():
            severity, problems = Severity.ERROR, policy.problems
        case EgressPolicy():
            severity, problems = Severity.WARNING, policy.warnings
        case _:
            assert_never(policy)
    for problem in problems:
        yield Finding(document, severity, problem)


def _count(policies: list[Document], findings: list[Finding]) -> str:
    wrong = {
        found.document.place for found in findings if found.severity is Severity.ERROR
    }
    plural = "policy" if len(policies) == 1 else "policies"
    return f"{len(policies)} {plural} checked, {len(wrong) or 'none'} wrong"


def _finding_to_json(found: Finding) -> dict[str, object]:
    return {
        "file": found.document.file,
        "document": found.document.number,
        **_problem_to_json(found.problem),
        "severity": found.severity.value,
    }


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
    facts: Annotated[
        Path | None,
        typer.Option(
            "--facts",
            help="YAML file of what the node would observe: interfaces (name, altnames,"
            " addresses) and defaultRoute (ipv4, ipv6). Without it, what the node's"
            " EgressNode in FILEs tells, or else all addresses of the Node object are"
            " on one interface with the default routes.",
        ),
    ] = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="How to print the plan.")
    ] = Output.TEXT,
) -> None:
    """
    Print what the kernel of a node would hold for the objects in FILEs.

    FILEs hold ordinary Kubernetes documents: Node, Namespace, Pod (with status),
    ServiceCIDR, EndpointSlice, EgressNode, and egress policies. Exits with 2 when a
    policy in them is wrong.
    """
    documents = [document for path in files for document in read_documents(path)]
    cluster = build_cluster(documents)
    found = find_node(cluster, node)
    if facts is not None:
        observed = load_facts(facts)
    else:
        reported = reported_facts(documents).get(found.name)
        observed = reported or imagine_facts(found)
    compiled = compile_node(cluster, found.name, observed, TUNNEL)
    problems = [p for p in compiled.problems if not _is_left_out(p, cluster)]
    if output is Output.JSON:
        _print_json(_plan_to_json(cluster, compiled, problems))
    else:
        print(render(compiled.snapshot))
        for problem in problems:
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


def _is_left_out(problem: Problem, cluster: Cluster) -> bool:
    """
    Return whether *problem* tells of pod networks where the files have none at all.

    An API server's Nodes have them, or an agent's setting; files need not.
    """
    return problem.path == POD_NETWORKS and not any(
        node.pod_networks for node in cluster.nodes
    )


def _plan_to_json(
    cluster: Cluster, compiled: Compiled, problems: list[Problem]
) -> dict[str, object]:
    policies = {policy.id: policy for policy in cluster.policies}
    return {
        "rows": [
            {
                "source": str(key.source),
                "destination": str(key.destination),
                **_row_to_json(entry, policies),
            }
            for key, entry in policy_rows(compiled.snapshot)
        ],
        "problems": [_problem_to_json(problem) for problem in problems],
        "entries": render(compiled.snapshot).splitlines(),
    }


def _row_to_json(
    entry: PolicyEntry, policies: Mapping[PolicyId, EgressPolicy]
) -> dict[str, str | None]:
    kind, interface = "", ""
    egress_ip, tunnel_endpoint = None, None
    match entry:
        case ViaGateway():
            kind, interface = "gateway", entry.interface
            egress_ip, tunnel_endpoint = entry.egress_ip, entry.tunnel_endpoint
        case NoEgressIP():
            kind, tunnel_endpoint = "no-egress-ip", entry.tunnel_endpoint
        case NoGateway():
            kind = "no-gateway"
        case Excluded():
            kind = "excluded"
        case _:
            assert_never(entry)
    policy = policies[entry.policy]
    return {
        "kind": kind,
        "egressIP": str(egress_ip) if egress_ip else None,
        "tunnelEndpoint": str(tunnel_endpoint) if tunnel_endpoint else None,
        "interface": interface or None,
        "policy": policy.name,
        "policyKind": policy.kind,
    }


def _problem_to_json(problem: Problem) -> dict[str, object]:
    return {
        "object": problem.object,
        "path": problem.path,
        "message": problem.message,
    }


def _print_json(answer: dict[str, object]) -> None:
    print(msgspec.json.format(msgspec.json.encode(answer)).decode())
