"""The CNI protocol: what a plugin is told."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from outgate.lab.cni import (
    Attachment,
    addresses_of,
    cni_environment,
    network_configuration,
)
from outgate.lab.settings import PodNetwork

ATTACHMENT = Attachment("default", "a", "u1", 10, 20, IPv4Address("10.0.1.42"))


def test_environment_of_add_names_the_namespace_by_its_holder() -> None:
    environment = cni_environment("ADD", ATTACHMENT, "eth0")

    assert environment["CNI_NETNS"] == "/proc/20/ns/net"
    assert environment["CNI_CONTAINERID"] == "u1"
    assert "IP=10.0.1.42" in environment["CNI_ARGS"].split(";")


def test_environment_of_a_gone_namespace_is_empty() -> None:
    gone = Attachment("default", "a", "u1", 10, 0)

    assert cni_environment("DEL", gone, "eth0")["CNI_NETNS"] == ""


@pytest.mark.parametrize("network", PodNetwork)
def test_configuration_never_masquerades(network: PodNetwork) -> None:
    configuration = network_configuration(
        network, IPv4Network("10.0.1.0/24"), 1450, Path("/x")
    )

    assert configuration["type"] == network.value
    assert configuration["ipMasq"] is False
    assert configuration["mtu"] == 1450


def test_addresses_of_a_result_without_any_is_empty() -> None:
    assert addresses_of({"cniVersion": "1.0.0"}) == ()
