"""
The lab's machines, networks and addresses, as data.

What this is: the one place where the lab's addresses are written down, and the
picture of them.  The IPv4 addresses are those of the lab guide that users know, the
IPv6 network is the one that kind gives its nodes.
What this is not: commands or I/O.  ``network`` turns this into ``ip`` and ``nft``
text, ``init`` runs it.

Wherever addresses or networks stand in a tuple, there is one per family of the lab,
the primary one first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

from outgate.lab.settings import IpFamily
from outgate.state.entries import Address, Network

Versioned = TypeVar("Versioned", Address, Network)

VERSIONS = {IpFamily.IPV4: (4,), IpFamily.DUAL: (4, 6), IpFamily.IPV6: (6,)}


@dataclass(frozen=True, slots=True)
class Host:
    """A machine on the docker network: a node, or the server outside."""

    name: str
    addresses: tuple[Address, ...]

    @property
    def address(self) -> Address:
        """The primary address."""
        return self.addresses[0]

    @property
    def mac(self) -> str:
        """The MAC as docker would give it: 02:42 and the end of the address."""
        return "02:42:" + self.address.packed[-4:].hex(":")


@dataclass(frozen=True, slots=True)
class Node(Host):
    """A Kubernetes node with the networks of its pods."""

    pod_networks: tuple[Network, ...]
    is_control_plane: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that is cabled together; ``nodes[0]`` carries the API."""

    networks: tuple[Network, ...]
    routers: tuple[Address, ...]
    nodes: tuple[Node, ...]
    server: Host
    pod_networks: tuple[Network, ...]
    service_networks: tuple[Network, ...]
    mtu: int = 1500
    api_port: int = 6443

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*self.nodes, self.server)

    @property
    def control_plane(self) -> Node:
        return next(node for node in self.nodes if node.is_control_plane)

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions of the lab, the primary one first."""
        return tuple(network.version for network in self.networks)

    def node(self, name: str) -> Node:
        """The node called *name*; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def peers(self, node: Node) -> Iterator[Node]:
        """Every other node."""
        return (peer for peer in self.nodes if peer != node)

    def local_names(self) -> str:
        """The lines of ``/etc/hosts`` for loopback."""
        ipv6 = "::1\tlocalhost\n" if 6 in self.versions else ""
        return f"127.0.0.1\tlocalhost\n{ipv6}"

    def host_names(self) -> str:
        """
        Lines of ``/etc/hosts`` that every machine and pod of the lab gets.

        The server's name stands for its primary address alone, and with a ``6``
        behind it for its IPv6 address: who asks by name knows by which family.
        """
        nodes = "".join(
            f"{address}\t{node.name}\n"
            for node in self.nodes
            for address in node.addresses
        )
        server = "".join(
            f"{address}\t{' '.join(_server_names(self.server, address))}\n"
            for address in self.server.addresses
        )
        return nodes + server


def _server_names(server: Host, address: Address) -> Iterator[str]:
    if address == server.address:
        yield server.name
    if address.version == 6:
        yield f"{server.name}6"


def in_url(address: Address) -> str:
    """
    The address as the host of a URL.

    >>> in_url(IPv4Address("192.0.2.1")), in_url(IPv6Address("2001:db8::1"))
    ('192.0.2.1', '[2001:db8::1]')
    """
    return str(address) if address.version == 4 else f"[{address}]"


def _addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(ip_address(text) for text in texts)


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


WHOLE = Topology(
    networks=_networks("172.18.0.0/16", "fc00:f853:ccd:e793::/64"),
    routers=_addresses("172.18.0.1", "fc00:f853:ccd:e793::1"),
    nodes=(
        Node(
            "k8s-guide-control-plane",
            _addresses("172.18.0.3", "fc00:f853:ccd:e793::3"),
            _networks("10.0.0.0/24", "fd00:10::/64"),
            is_control_plane=True,
        ),
        Node(
            "k8s-guide-worker",
            _addresses("172.18.0.4", "fc00:f853:ccd:e793::4"),
            _networks("10.0.1.0/24", "fd00:10:0:1::/64"),
        ),
        Node(
            "k8s-guide-worker2",
            _addresses("172.18.0.5", "fc00:f853:ccd:e793::5"),
            _networks("10.0.2.0/24", "fd00:10:0:2::/64"),
        ),
    ),
    server=Host("echo", _addresses("172.18.0.100", "fc00:f853:ccd:e793::100")),
    pod_networks=_networks("10.0.0.0/16", "fd00:10::/48"),
    service_networks=_networks("10.96.0.0/16", "fd00:10:96::/112"),
)


def topology_of(family: IpFamily) -> Topology:
    """The lab with the addresses of *family* and no others."""
    versions = VERSIONS[family]

    def kept(items: Iterable[Versioned]) -> tuple[Versioned, ...]:
        return tuple(item for item in items if item.version in versions)

    return replace(
        WHOLE,
        networks=kept(WHOLE.networks),
        routers=kept(WHOLE.routers),
        nodes=tuple(
            replace(
                node,
                addresses=kept(node.addresses),
                pod_networks=kept(node.pod_networks),
            )
            for node in WHOLE.nodes
        ),
        server=replace(WHOLE.server, addresses=kept(WHOLE.server.addresses)),
        pod_networks=kept(WHOLE.pod_networks),
        service_networks=kept(WHOLE.service_networks),
    )


DEFAULT = topology_of(IpFamily.IPV4)


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
    addresses = max(len(listed(host.addresses)) for host in topology.hosts)
    lines = [
        f"docker {listed(topology.networks)}, "
        f"router {listed(topology.routers)} (forwards nowhere)"
    ]
    for node in topology.nodes:
        port = f", API on port {topology.api_port}" if node.is_control_plane else ""
        lines.append(
            f"  |-- {node.name:{names}}  {listed(node.addresses):{addresses}}"
            f"  pods {listed(node.pod_networks)}{port}"
        )
    server = topology.server
    lines.append(
        f"  `-- {server.name:{names}}  {listed(server.addresses):{addresses}}"
        "  the server outside"
    )
    return "\n".join(lines)


def listed(items: Iterable[Address | Network]) -> str:
    """The items as text, with commas between them."""
    return ", ".join(map(str, items))
