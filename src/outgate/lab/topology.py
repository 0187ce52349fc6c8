"""
The lab's machines, networks and addresses, as data.

What this is: the one place where the lab's addresses are written down, and the
picture of them.  The addresses are those of the lab guide that users know.
What this is not: commands or I/O.  ``network`` turns this into ``ip`` and ``nft``
text, ``init`` runs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

POD_NETWORKS = IPv4Network("10.0.0.0/16")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine on the docker network: a node, or the server outside."""

    name: str
    address: IPv4Address

    @property
    def mac(self) -> str:
        """The MAC that docker would give this address: 02:42 and the address."""
        return "02:42:" + self.address.packed.hex(":")


@dataclass(frozen=True, slots=True)
class Node(Host):
    """A Kubernetes node with the network of its pods."""

    pod_network: IPv4Network
    is_control_plane: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that is cabled together; ``nodes[0]`` carries the API."""

    network: IPv4Network
    router: IPv4Address
    nodes: tuple[Node, ...]
    server: Host
    pod_networks: IPv4Network = POD_NETWORKS
    mtu: int = 1500
    api_port: int = 6443

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*self.nodes, self.server)

    @property
    def control_plane(self) -> Node:
        return next(node for node in self.nodes if node.is_control_plane)

    def node(self, name: str) -> Node:
        """The node called *name*; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def peers(self, node: Node) -> Iterator[Node]:
        """Every other node."""
        return (peer for peer in self.nodes if peer != node)

    def host_names(self) -> str:
        """Lines of ``/etc/hosts`` that every machine and pod of the lab gets."""
        return "".join(f"{host.address}\t{host.name}\n" for host in self.hosts)


DEFAULT = Topology(
    network=IPv4Network("172.18.0.0/16"),
    router=IPv4Address("172.18.0.1"),
    nodes=(
        Node(
            "k8s-guide-control-plane",
            IPv4Address("172.18.0.3"),
            IPv4Network("10.0.0.0/24"),
            is_control_plane=True,
        ),
        Node(
            "k8s-guide-worker",
            IPv4Address("172.18.0.4"),
            IPv4Network("10.0.1.0/24"),
        ),
        Node(
            "k8s-guide-worker2",
            IPv4Address("172.18.0.5"),
            IPv4Network("10.0.2.0/24"),
        ),
    ),
    server=Host("echo", IPv4Address("172.18.0.100")),
)


def draw(topology: Topology) -> str:
    """
    Draw the lab for a terminal.

    Shape: one line for the network, then one line per host hanging from it.

    >>> print(draw(DEFAULT))
    docker 172.18.0.0/16, router 172.18.0.1 (forwards nowhere)
      |-- k8s-guide-control-plane  172.18.0.3    pods 10.0.0.0/24, API on port 6443
      |-- k8s-guide-worker         172.18.0.4    pods 10.0.1.0/24
      |-- k8s-guide-worker2        172.18.0.5    pods 10.0.2.0/24
      `-- echo                     172.18.0.100  the server outside
    """
    names = max(len(host.name) for host in topology.hosts)
    addresses = max(len(str(host.address)) for host in topology.hosts)
    lines = [f"docker {topology.network}, router {topology.router} (forwards nowhere)"]
    for node in topology.nodes:
        port = f", API on port {topology.api_port}" if node.is_control_plane else ""
        lines.append(
            f"  |-- {node.name:{names}}  {node.address!s:{addresses}}"
            f"  pods {node.pod_network}{port}"
        )
    server = topology.server
    lines.append(
        f"  `-- {server.name:{names}}  {server.address!s:{addresses}}"
        "  the server outside"
    )
    return "\n".join(lines)
