import pytest

from outgate.kernel.links import parse_pin_name, pin_name
from outgate.state.entries import FORWARD_GUARD, AttachmentKey, Family, Hook

FAMILIES = (None, *Family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "interface", ["eth0", "eth0.7", "a-b", "50%", "%2E", "veth@x", "x_v4", "_v6-y"]
)
def test_pin_name_is_read_back(interface: str, family: Family | None) -> None:
    key = AttachmentKey(interface, Hook.FROM_NETDEV)

    assert parse_pin_name(pin_name(key, family)) == (key, family)


def test_pin_name_has_no_dot_because_bpf_file_systems_refuse_it() -> None:
    key = AttachmentKey("eth0.7", Hook.FROM_NETDEV)

    assert "." not in pin_name(key, Family.V4)


@pytest.mark.parametrize("family", FAMILIES)
def test_pin_name_of_the_guard_has_no_interface(family: Family | None) -> None:
    name = pin_name(FORWARD_GUARD, family)

    assert "-" not in name
    assert parse_pin_name(name) == (FORWARD_GUARD, family)


def test_a_link_of_a_former_version_is_known_by_its_pin() -> None:
    key = AttachmentKey("veth1", Hook.FROM_CONTAINER)

    assert parse_pin_name("from_container-veth1") == (key, None)


@pytest.mark.parametrize(
    "name",
    [
        "next_forward_guard_v4",
        "cil_from_netdev-eth0",
        "from_netdev",
        "from_netdev_v4",
        "from_netdev_v5-eth0",
        "forward_guard_v4-eth0",
    ],
)
def test_a_file_that_is_no_pin_of_ours_is_left_out(name: str) -> None:
    assert parse_pin_name(name) is None
