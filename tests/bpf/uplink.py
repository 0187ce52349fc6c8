"""
The one wire of a node: a veth pair, ``uplink`` in the node and ``wire`` at the far end.

Both families' addresses and default routes; made where the caller is, which must be a
network namespace of its own.
"""

import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from outgate.state.entries import Address, Family


class UplinkAddress(NamedTuple):
    """An address of the uplink, and the default router behind it."""

    address: Address
    prefix_length: int
    router: str


UPLINK = {
    Family.V4: UplinkAddress(IPv4Address("172.18.0.5"), 16, "172.18.0.1"),
    Family.V6: UplinkAddress(
        IPv6Address("fc00:f853:ccd:e793::5"), 64, "fc00:f853:ccd:e793::1"
    ),
}

PEERS = ("172.18.0.4", "fc00:f853:ccd:e793::4")
PEER_MAC = "02:00:ac:12:00:04"
"""Another node on the same link."""

UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"

SYSCTL = Path("/proc/sys/net")


def command(*words: str) -> None:
    """Run a command; CalledProcessError when it fails."""
    subprocess.run(words, check=True, capture_output=True, text=True)


def build_uplink(has_route: bool) -> None:
    """Make the pair; a node without routes knows not even its own link's network."""
    command("ip", "link", "set", "lo", "up")
    pair = ("type", "veth", "peer", "name", "wire")
    command("ip", "link", "add", "uplink", "address", UPLINK_MAC, *pair)
    (SYSCTL / "ipv6/conf/wire/disable_ipv6").write_text("1")
    command("ip", "link", "set", "uplink", "addrgenmode", "none")
    for link in ("uplink", "wire"):
        command("ip", "link", "set", link, "up")
    for family, at in UPLINK.items():
        ip = ("ip", f"-{family}")
        network = f"{at.address}/{at.prefix_length}"
        no_wait = ("nodad",) if family is Family.V6 else ()
        command(*ip, "address", "add", network, "dev", "uplink", *no_wait)
        if has_route:
            command(*ip, "route", "add", "default", "via", at.router)
        else:
            command(*ip, "route", "flush", "dev", "uplink")
    for peer in PEERS:
        command("ip", "neighbour", "add", peer, "lladdr", PEER_MAC, "dev", "uplink")
    (SYSCTL / "ipv4/ip_forward").write_text("1")
    (SYSCTL / "ipv6/conf/all/forwarding").write_text("1")
