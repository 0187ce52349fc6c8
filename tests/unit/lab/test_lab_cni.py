"""The CNI protocol: what a plugin is told."""

from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from outgate.lab.cni import (
    Attachment,
    addresses_of,
    cni_environment,
    network_configuration,
    with_requested,
)
from outgate.lab.settings import PodNetwork

WANTED = (ip_address("10.0.1.42"), ip_address("fd00:10:0:1::42"))
ATTACHMENT = Attachment("default", "a", "u1", 10, 20, WANTED)
PODS = (IPv4Network("10.0.1.0/24"), IPv6Network("fd00:10:0:1::/64"))


def test_environment_of_add_names_the_namespace_by_its_holder() -> None:
    environment = cni_environment("ADD", ATTACHMENT, "eth0")

    assert environment["CNI_NETNS"] == "/proc/20/ns/net"
    assert environment["CNI_CONTAINERID"] == "u1"


def test_environment_of_a_gone_namespace_is_empty() -> None:
    gone = Attachment("default", "a", "u1", 10, 0)

    assert cni_environment("DEL", gone, "eth0")["CNI_NETNS"] == ""


@pytest.mark.parametrize("network", PodNetwork)
def test_configuration_never_masquerades(network: PodNetwork) -> None:
    configuration = network_configuration(network, PODS[:1], 1450, Path("/x"))

    assert configuration["type"] == network.value
    assert configuration["ipMasq"] is False
    assert configuration["mtu"] == 1450


def test_configuration_gives_each_pod_an_address_and_a_route_per_family() -> None:
    ipam = network_configuration(PodNetwork.PTP, PODS, 1450, Path("/x"))["ipam"]

    assert ipam["ranges"] == [
        [{"subnet": "10.0.1.0/24"}],
        [{"subnet": "fd00:10:0:1::/64"}],
    ]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_add_asks_for_the_addresses_that_the_pod_wants() -> None:
    asked = with_requested({"type": "ptp"}, ATTACHMENT)

    assert asked == {
        "type": "ptp",
        "runtimeConfig": {"ips": ["10.0.1.42", "fd00:10:0:1::42"]},
    }


def test_add_asks_for_no_address_that_the_pod_does_not_want() -> None:
    gone = Attachment("default", "a", "u1", 10, 20)

    assert with_requested({"type": "ptp"}, gone) == {"type": "ptp"}


def test_addresses_of_a_result_without_any_is_empty() -> None:
    assert addresses_of({"cniVersion": "1.0.0"}) == ()
