"""
``outgate explain``: what becomes of one pod's packets to one destination, and why.

What it is: arguments in, text or JSON out.  The objects come from files, or from the
API by kubeconfig, each list once; the answer comes from ``policy.explain``.
What it is not: a probe; nothing is sent, and what kernels hold is not looked at
(``outgate map`` shows that).

Exit codes: 0 when it could be told, covered or not; 1 when not.
"""

import asyncio
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from outgate.cli.explanation import explanation_json, explanation_text
from outgate.cli.policy import imagine_facts
from outgate.cli.render import Output
from outgate.errors import ConfigError
from outgate.policy.explain import Explanation, Facts, explain
from outgate.policy.model import Cluster, Endpoint
from outgate.source import kubeconfig
from outgate.source.client import Client
from outgate.source.facts_file import load_facts
from outgate.source.files import (
    Document,
    build_cluster,
    read_documents,
    reported_facts,
)
from outgate.source.glimpse import (
    PodName,
    look,
    no_such_pod,
    parse_pod_name,
)
from outgate.state.entries import Address, Network, NodeName

app = typer.Typer(add_completion=False)


@app.command("explain")
def run(
    pod: Annotated[str, typer.Argument(help="NAME, NAMESPACE/NAME or an address.")],
    destination: Annotated[str, typer.Argument(help="The address that it talks to.")],
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Where a plain NAME is.")
    ] = "default",
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--filename",
            help="Objects from files or folders, - for stdin, instead of the API.",
        ),
    ] = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="What --node observes, as a file.")
    ] = None,
    node: Annotated[
        str, typer.Option("--node", help="The node that --facts tells of.")
    ] = "",
    inside: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster-network",
            help="Inside the cluster too, as the agents' cluster-networks; repeatable.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Else as kubectl does.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="Of it; else the current one.")
    ] = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="How to print.")
    ] = Output.TEXT,
) -> None:
    """
    Say which policy wins for POD and DESTINATION, or why none covers them.

    Also which policies were beaten and why, which gateway and address packets leave
    by, and what other policies that name the destination ask of the pod.
    """
    wanted, address = parse_pod_name(pod, namespace), parse_destination(destination)
    if bool(facts) != bool(node):
        raise ConfigError("--facts and --node: give both: FACTS are those of one node")
    if files:
        documents = [found for path in files for found in read_documents(path)]
    else:
        connection = kubeconfig.load(config, context)
        documents, wanted = asyncio.run(_ask(Client(connection), wanted, address))
    cluster = build_cluster(documents, map(parse_network, inside or ()))
    known = dict(reported_facts(documents))
    if facts:
        known[NodeName(node)] = load_facts(facts)
    told = tell(cluster, wanted, address, known)
    if output is Output.JSON:
        encoded = msgspec.json.encode(explanation_json(told))
        print(msgspec.json.format(encoded).decode())
    else:
        print(explanation_text(told))


def parse_destination(text: str) -> Address:
    """
    Return the address that packets have: an IPv4 one for ``::ffff:192.0.2.1``.

    Errors: ``ConfigError`` for anything but an address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise ConfigError(
            f"DESTINATION: {text!r} is no address; policies cover networks, so give an"
            f" address that it stands for, as `getent ahosts {text}` shows them"
        ) from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """Errors: ``ConfigError`` for anything but a network."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--cluster-network: {error}; write 192.0.2.0/24") from None


def tell(
    cluster: Cluster, wanted: PodName, destination: Address, known: Facts
) -> Explanation:
    """
    Return the explanation for a pod of *cluster*.

    The pod's node is imagined with the addresses of its Node object when nobody tells
    what it observes; that it lacks anything is not told then.
    """
    pod = find_pod(cluster.endpoints, wanted)
    imagined = {
        node.name: imagine_facts(node)
        for node in cluster.nodes
        if node.name == pod.node and node.name not in known
    }
    return explain(cluster, pod, destination, {**known, **imagined}, imagined.keys())


def find_pod(pods: Iterable[Endpoint], wanted: PodName) -> Endpoint:
    """Errors: ``ConfigError`` that tells near names."""
    listed = list(pods)
    found = [
        pod
        for pod in listed
        if (
            wanted.address in pod.addresses and not pod.is_host_network
            if wanted.address is not None
            else (pod.namespace, pod.name) == (wanted.namespace, wanted.name)
        )
    ]
    if not found:
        near = [pod.name for pod in listed if pod.namespace == wanted.namespace]
        raise no_such_pod(wanted, sorted(near))
    return max(found, key=lambda pod: (not pod.is_terminating, pod.created, pod.uid))


async def _ask(
    client: Client, wanted: PodName, destination: Address
) -> tuple[list[Document], PodName]:
    async with client:
        found, documents = await look(client, wanted, destination)
    metadata = found["metadata"]
    return documents, PodName(metadata["namespace"], metadata["name"])
