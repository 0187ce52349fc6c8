"""
Ways from a pod to a server: Outgate, nftables, and plain routing.

Outgate three times: ``tc``; ``xdp``, the same with XDP programs on both interfaces of
the gateway; ``tc-device``, where the kernel's VXLAN device handles every outer header.
``plain`` has neither tunnel nor translation: the server sees the pod, which is what
costs least.  ``nftables`` is what one would build with a kernel alone: a mark from a
set, a routing rule into a VXLAN device, masquerade at the gateway; one rule and one
element each, and any real ruleset only adds.  All are built on ``network``.
"""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from bench.network import (
    GATEWAY,
    NODE,
    POD,
    POD_MTU,
    UPLINK_MTU,
    Namespace,
    Network,
    network,
)
from bench.xdp import attach, taken
from bpf.chain import pod_node_entries
from bpf.harness import TUNNEL_PORT, VNI, Node, Setup
from bpf.world import IPV4, gateway_entries
from outgate.kernel import syscall
from outgate.kernel.collector import start_collectors, stop_collectors
from outgate.kernel.settings import TunnelWay
from outgate.kernel.syscall import AttachType
from outgate.state.entries import Family, Hook

TUNNEL = "tunnel"
GATEWAY_LINKS = ("in0", "out0")
VXLAN_MAC = {"node": "02:00:00:00:99:01", "gateway": "02:00:00:00:99:02"}

SIDES = {
    Hook.FROM_CONTAINER: AttachType.TCX_INGRESS,
    Hook.TO_CONTAINER: AttachType.TCX_EGRESS,
    Hook.FROM_NETDEV: AttachType.TCX_INGRESS,
    Hook.TO_NETDEV: AttachType.TCX_EGRESS,
    Hook.FROM_OVERLAY: AttachType.TCX_INGRESS,
}


@contextmanager
def plain() -> Iterator[Network]:
    """Join the four by routes alone."""
    with network() as net:
        yield net


NFT_MARK = """
table ip egress {{
    set pods {{
        type ipv4_addr . ipv4_addr
        flags interval
        elements = {{ {pod} . {servers} }}
    }}
    chain prerouting {{
        type filter hook prerouting priority mangle;
        ip saddr . ip daddr @pods meta mark set 0x2000
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        meta mark 0x2000 accept
        ip saddr {pods} ip daddr != {cluster} masquerade
    }}
}}
"""

NFT_SNAT = """
table ip egress {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {pods} oifname "out0" snat to {egress_ip}
    }}
}}
"""


@contextmanager
def nftables() -> Iterator[Network]:
    """Mark, route into a VXLAN device, masquerade at the gateway."""
    names = {
        "pod": POD,
        "pods": IPV4.REMOTE_PODS,
        "servers": IPV4.NETWORK,
        "cluster": IPV4.CLUSTER_NETWORK,
        "egress_ip": GATEWAY,
    }
    with network() as net:
        ends = (
            (net.node, "node", NODE, GATEWAY, 1, "gateway"),
            (net.gateway, "gateway", GATEWAY, NODE, 2, "node"),
        )
        for at, name, local, remote, number, other in ends:
            at.run(
                f"ip link add vx0 address {VXLAN_MAC[name]} type vxlan id {VNI}"
                f" dstport {TUNNEL_PORT} local {local} remote {remote} nolearning"
            )
            at.set("ipv6/conf/vx0/disable_ipv6", "1")
            at.set("ipv4/conf/vx0/rp_filter", "0")
            at.run(f"ip address add 10.99.0.{number}/24 dev vx0")
            at.run(f"ip link set vx0 mtu {POD_MTU} up")
            far = f"10.99.0.{3 - number} lladdr {VXLAN_MAC[other]}"
            at.run(f"ip neighbour add {far} dev vx0")
        net.node.run("ip route add default via 10.99.0.2 dev vx0 table 100")
        # Of pods alone: the outer packet has the mark too, and must not go in again.
        net.node.run("ip rule add iif pod0 fwmark 0x2000 lookup 100")
        net.gateway.run(f"ip route replace {IPV4.REMOTE_PODS} via 10.99.0.1 dev vx0")
        _nft(net.node, NFT_MARK.format(**names))
        _nft(net.gateway, NFT_SNAT.format(**names))
        yield net


def _nft(at: Namespace, rules: str) -> None:
    def load() -> None:
        subprocess.run(("nft", "-f", "-"), input=rules, text=True, check=True)

    at.inside(load)


@contextmanager
def outgate(
    way: TunnelWay = TunnelWay.AUTO, *, is_xdp: bool = False
) -> Iterator[Network]:
    """Attach our programs as an agent does, with a VXLAN device for the tunnel."""
    setup = Setup(tunnel_way=way)
    with ExitStack() as stack:
        net = stack.enter_context(network())
        pods_node, gateway = (stack.enter_context(Node(setup)) for _ in range(2))
        pods_node.put(pod_node_entries())
        gateway.put(gateway_entries(IPV4))
        of_pods = (Hook.FROM_CONTAINER, Hook.TO_CONTAINER)
        of_uplinks = (Hook.FROM_NETDEV, Hook.TO_NETDEV)
        for at, node, hooks in (
            (net.node, pods_node, {"pod0": of_pods, "up0": of_uplinks}),
            (net.gateway, gateway, {"in0": of_uplinks, "out0": of_uplinks}),
        ):
            _make_tunnel(at, node)
            for name, of in {**hooks, TUNNEL: (Hook.FROM_OVERLAY,)}.items():
                for link in at.inside(partial(_attach, node, name, of)):
                    stack.callback(os.close, link)
            node.inside(partial(start_collectors, node.pins, setup.datapath))
            stack.callback(node.inside, partial(stop_collectors, node.pins))
        if is_xdp:
            _use_xdp(net, gateway)
            net = replace(net, taken=partial(taken, net.gateway, GATEWAY_LINKS))
        # An agent reads what programs tell of new flows.
        yield replace(net, rest=lambda: (pods_node.events(), gateway.events()))


def _use_xdp(net: Network, gateway: Node) -> None:
    """
    Let XDP see both interfaces of the gateway.

    A veth leaves checksums undone, as for a NIC to do; here they must be right when XDP
    sees a packet, as they are on a wire.
    """
    for interface in GATEWAY_LINKS:
        attach(gateway, net.gateway, interface, UPLINK_MTU)
    for sender, interface in (
        (net.pod, "eth0"),
        (net.node, "up0"),
        (net.server, "eth0"),
    ):
        sender.run(f"ethtool -K {interface} tx off")


def _make_tunnel(at: Namespace, node: Node) -> None:
    at.run(f"ip link add {TUNNEL} type vxlan external dstport {TUNNEL_PORT}")
    at.set(f"ipv6/conf/{TUNNEL}/disable_ipv6", "1")
    at.run(f"ip link set {TUNNEL} mtu {POD_MTU} up")
    index = at.inside(lambda: socket.if_nametoindex(TUNNEL))
    node.configure(tunnel=index)


def _attach(node: Node, interface: str, hooks: tuple[Hook, ...]) -> list[int]:
    index = socket.if_nametoindex(interface)
    return [
        syscall.link_create(node.program(hook, family), index, SIDES[hook])
        for hook in hooks
        for family in Family
    ]


PATHS: dict[str, Callable[[], AbstractContextManager[Network]]] = {
    "tc": outgate,
    "xdp": partial(outgate, is_xdp=True),
    "tc-device": partial(outgate, TunnelWay.DEVICE),
    "nftables": nftables,
    "plain": plain,
}
