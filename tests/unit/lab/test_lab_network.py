"""Topology and cables, as text."""

from outgate.lab.holders import WIRE
from outgate.lab.network import (
    bridge_commands,
    host_commands,
    host_sysctls,
    masquerade_rules,
    pod_sysctls,
    xdp_port_commands,
)
from outgate.lab.settings import IpFamily
from outgate.lab.topology import DEFAULT, draw, topology_of

DUAL, IPV6 = topology_of(IpFamily.DUAL), topology_of(IpFamily.IPV6)
PIDS = {host.name: 100 + n for n, host in enumerate(DEFAULT.hosts)} | {WIRE: 99}


def test_draw_shows_every_host() -> None:
    picture = draw(DEFAULT)

    for host in DEFAULT.hosts:
        assert host.name in picture
        assert str(host.address) in picture


def test_bridge_commands_cable_each_host_from_the_wires_namespace() -> None:
    text = bridge_commands(DEFAULT, PIDS)

    assert text.splitlines()[:4] == [
        "link set lo up",
        "link add docker0 mtu 1500 type bridge forward_delay 0",
        "addr add 172.18.0.1/16 dev docker0",
        "link set docker0 up",
    ]
    assert (
        "link add port1 mtu 1500 type veth peer name eth0 mtu 1500"
        " address 02:42:ac:12:00:04 netns 101\nlink set port1 master docker0 up\n"
    ) in text


def test_each_port_takes_from_xdp_and_hands_finished_checksums_to_it() -> None:
    commands = [" ".join(command) for command in xdp_port_commands(DEFAULT)]

    assert len(commands) == len(DEFAULT.hosts)
    assert commands[1] == "ethtool -K port1 gro on tx off"


def test_host_commands_route_to_the_pods_of_other_nodes() -> None:
    assert host_commands(DEFAULT, "k8s-guide-worker") == (
        "link set lo up\n"
        "addr add 172.18.0.4/16 dev eth0\n"
        "link set eth0 up\n"
        "route add default via 172.18.0.1\n"
        "route add 10.0.0.0/24 via 172.18.0.3\n"
        "route add 10.0.2.0/24 via 172.18.0.5\n"
    )


def test_host_commands_give_the_server_no_way_to_pods() -> None:
    assert "10.0." not in host_commands(DEFAULT, "echo")


def test_masquerade_spares_pods_and_nodes_but_not_the_server() -> None:
    rules = masquerade_rules(DEFAULT)

    assert (
        "ip saddr 10.0.0.0/16 ip daddr != "
        "{ 10.0.0.0/16, 172.18.0.3, 172.18.0.4, 172.18.0.5 } masquerade"
    ) in rules


def test_dual_stack_hosts_have_an_address_and_routes_of_each_family() -> None:
    assert host_commands(DUAL, "k8s-guide-worker") == (
        "link set lo up\n"
        "addr add 172.18.0.4/16 dev eth0\n"
        "addr add fc00:f853:ccd:e793::4/64 dev eth0\n"
        "link set eth0 up\n"
        "route add default via 172.18.0.1\n"
        "route add default via fc00:f853:ccd:e793::1\n"
        "route add 10.0.0.0/24 via 172.18.0.3\n"
        "route add fd00:10::/64 via fc00:f853:ccd:e793::3\n"
        "route add 10.0.2.0/24 via 172.18.0.5\n"
        "route add fd00:10:0:2::/64 via fc00:f853:ccd:e793::5\n"
    )


def test_an_ipv6_lab_has_no_ipv4_address_but_loopback() -> None:
    commands = [host_commands(IPV6, host.name) for host in IPV6.hosts]
    text = "".join([*commands, bridge_commands(IPV6, PIDS), masquerade_rules(IPV6)])

    assert "." not in text.replace("127.0.0.1", "")
    assert "." not in IPV6.host_names()


def test_masquerade_of_ipv6_spares_pods_and_nodes_but_not_the_server() -> None:
    nodes = ", ".join(f"fc00:f853:ccd:e793::{number}" for number in (3, 4, 5))

    assert masquerade_rules(DUAL).startswith(masquerade_rules(DEFAULT))
    assert (
        f"ip6 saddr fd00:10::/48 ip6 daddr != {{ fd00:10::/48, {nodes} }} masquerade"
    ) in masquerade_rules(DUAL)


def test_ipv6_stays_off_where_the_lab_has_no_address_of_it() -> None:
    off = "net/ipv6/conf/default/disable_ipv6"

    assert host_sysctls(DEFAULT, is_node=True)[off] == "1"
    assert off not in host_sysctls(DUAL, is_node=True)
    assert pod_sysctls(DEFAULT) == {}


def test_ipv6_addresses_are_usable_at_once_everywhere() -> None:
    names = ("accept_dad", "accept_ra")
    for sysctls in (
        host_sysctls(IPV6, is_node=True),
        host_sysctls(IPV6, is_node=False),
        pod_sysctls(IPV6),
    ):
        assert {sysctls[f"net/ipv6/conf/default/{name}"] for name in names} == {"0"}


def test_hosts_of_an_ipv6_lab_have_macs_of_their_own() -> None:
    assert IPV6.nodes[1].mac == "02:42:00:00:00:04"
    assert len({host.mac for host in IPV6.hosts}) == len(IPV6.hosts)
