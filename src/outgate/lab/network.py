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
from outgate.lab.topology import Node, Topology

BRIDGE = "docker0"
UPLINK = "eth0"

# A Debian with systemd has the loose check (2) on every interface and 0 for "all";
# a node forwards.  IPv6 stays off until the lab has addresses for it.
NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "2",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
HOST_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


def bridge_commands(topology: Topology, holders: Mapping[str, int]) -> str:
    """
    Commands for the wire's namespace: the bridge, and a cable to each host.

    *holders* maps host names to the pid that holds their network namespace.
    """
    lines = [
        "link set lo up",
        f"link add {BRIDGE} mtu {topology.mtu} type bridge forward_delay 0",
        f"addr add {topology.router}/{topology.network.prefixlen} dev {BRIDGE}",
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
    """Commands for the namespace of host *name*: its address and its routes."""
    host = next(host for host in topology.hosts if host.name == name)
    lines = [
        "link set lo up",
        f"addr add {host.address}/{topology.network.prefixlen} dev {UPLINK}",
        f"link set {UPLINK} up",
        f"route add default via {topology.router}",
    ]
    if isinstance(host, Node):
        lines += [
            f"route add {peer.pod_network} via {peer.address}"
            for peer in topology.peers(host)
        ]
    return "\n".join(lines) + "\n"


def masquerade_rules(topology: Topology) -> str:
    """
    The nft table of a node: pods leave the cluster under the node's address.

    Like kind's network daemon: what stays among pods and nodes keeps its source.
    """
    inside = ", ".join(
        [str(topology.pod_networks), *(str(node.address) for node in topology.nodes)]
    )
    return f"""table ip lab_masquerade {{
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {topology.pod_networks} ip daddr != {{ {inside} }} masquerade
	}}
}}
"""


def run_in_network(holder: int, command: Sequence[str], text: str) -> None:
    """
    Feed *text* to *command* in the network namespace that pid *holder* holds.

    Errors: LabError with what the tool printed.
    """
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{holder}/ns/net", "--", *command],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
