"""Topology and cables, as text."""

from outgate.lab.holders import WIRE
from outgate.lab.network import bridge_commands, host_commands, masquerade_rules
from outgate.lab.topology import DEFAULT, draw

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
