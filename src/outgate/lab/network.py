"""
The cables of the lab, as text for ``ip -batch`` and ``nft``.

What this is: pure functions from the topology and the pids of the namespace holders
to the input of the two tools, and one function that feeds a tool inside a namespace.
What this is not: pod cables; those are the CNI plugin's (``cni``).

Nothing here names the machine's own namespace: every command runs inside a holder's.
"""

import subprocess
from collections.abc import Mapping, Sequence

from outgate.lab.errors import LabError
from outgate.lab.topology import Node, Topology, listed
from outgate.state.entries import Network

BRIDGE = "docker0"
UPLINK = "eth0"

# A Debian with systemd has the loose check (2) on every interface and 0 for "all";
# a node forwards.
NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "2",
}
HOST_SYSCTLS = {"net/ipv4/ip_forward": "0"}
NO_IPV6_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
# Addresses are usable at once, and come from nobody but us.
IPV6_SYSCTLS = {
    f"net/ipv6/conf/{scope}/{name}": "0"
    for name in ("accept_dad", "dad_transmits", "accept_ra")
    for scope in ("all", "default")
}
IPV6_NODE_SYSCTLS = {
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
}


def host_sysctls(topology: Topology, *, is_node: bool) -> dict[str, str]:
    """The settings of a host's namespace; keys are paths under ``/proc/sys``."""
    common = NODE_SYSCTLS if is_node else HOST_SYSCTLS
    if 6 not in topology.versions:
        return common | NO_IPV6_SYSCTLS
    return common | IPV6_SYSCTLS | (IPV6_NODE_SYSCTLS if is_node else {})


def pod_sysctls(topology: Topology) -> dict[str, str]:
    """The settings of a pod's namespace."""
    return IPV6_SYSCTLS if 6 in topology.versions else {}


def bridge_commands(topology: Topology, holders: Mapping[str, int]) -> str:
    """
    Commands for the wire's namespace: the bridge, and a cable to each host.

    *holders* maps host names to the pid that holds their network namespace.
    """
    lines = [
        "link set lo up",
        f"link add {BRIDGE} mtu {topology.mtu} type bridge forward_delay 0",
        *(
            f"addr add {router}/{network.prefixlen} dev {BRIDGE}"
            for router, network in zip(topology.routers, topology.networks, strict=True)
        ),
        f"link set {BRIDGE} up",
    ]
    for number, host in enumerate(topology.hosts):
        lines += [
            f"link add port{number} mtu {topology.mtu} type veth peer name {UPLINK}"
            f" mtu {topology.mtu} address {host.mac} netns {holders[host.name]}",
            f"link set port{number} master {BRIDGE} up",
        ]
    return "\n".join(lines) + "\n"


def host_commands(topology: Topology, name: str) -> str:
    """Commands for the namespace of host *name*: its addresses and its routes."""
    host = next(host for host in topology.hosts if host.name == name)
    lines = [
        "link set lo up",
        *(
            f"addr add {address}/{network.prefixlen} dev {UPLINK}"
            for address, network in zip(host.addresses, topology.networks, strict=True)
        ),
        f"link set {UPLINK} up",
        *(f"route add default via {router}" for router in topology.routers),
    ]
    if isinstance(host, Node):
        lines += [
            f"route add {pods} via {address}"
            for peer in topology.peers(host)
            for pods, address in zip(peer.pod_networks, peer.addresses, strict=True)
        ]
    return "\n".join(lines) + "\n"


COMPLETE_CHECKSUMS = ("ethtool", "-K", UPLINK, "tx", "off")
"""
What XDP needs of who sends into its veths: checksums that are finished.

Between veths a sender leaves them to a card that never comes, and XDP cannot see that.
It also ends super-packets, which XDP cannot take.
"""


def xdp_port_commands(topology: Topology) -> list[tuple[str, ...]]:
    """
    Commands for the wire's namespace, so that XDP works at the other ends.

    A veth loses what XDP sends to it unless it has NAPI, which ``gro`` turns on; and
    what GRO has put together leaves in parts again, with finished checksums.
    """
    return [
        ("ethtool", "-K", f"port{number}", "gro", "on", "tx", "off")
        for number, _ in enumerate(topology.hosts)
    ]


def masquerade_rules(topology: Topology) -> str:
    """
    The nft tables of a node: pods leave the cluster under the node's address.

    Like kind's network daemon: what stays among pods and nodes keeps its source.
    """
    return "".join(
        _masquerade_table(topology, pods, number)
        for number, pods in enumerate(topology.pod_networks)
    )


def _masquerade_table(topology: Topology, pods: Network, number: int) -> str:
    """The table for the family whose place in the topology's tuples is *number*."""
    family = "ip" if pods.version == 4 else "ip6"
    inside = listed([pods, *(node.addresses[number] for node in topology.nodes)])
    return f"""table {family} lab_masquerade {{
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		{family} saddr {pods} {family} daddr != {{ {inside} }} masquerade
	}}
}}
"""


def inside_network(holder: int, command: Sequence[str]) -> list[str]:
    """*command* as it runs in the network namespace that pid *holder* holds."""
    return ["nsenter", f"--net=/proc/{holder}/ns/net", "--", *command]


def run_in_network(holder: int, command: Sequence[str], text: str) -> None:
    """
    Feed *text* to *command* in the network namespace that pid *holder* holds.

    Errors: LabError with what the tool printed.
    """
    done = subprocess.run(
        inside_network(holder, command),
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
