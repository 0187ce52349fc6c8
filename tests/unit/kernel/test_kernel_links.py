import pytest

from outgate.kernel.links import parse_pin_name, pin_name
from outgate.state.entries import FORWARD_GUARD, AttachmentKey, Hook


@pytest.mark.parametrize("interface", ["eth0", "eth0.7", "a-b", "50%", "%2E", "veth@x"])
def test_pin_name_is_read_back(interface: str) -> None:
    key = AttachmentKey(interface, Hook.FROM_NETDEV)

    assert parse_pin_name(pin_name(key)) == key


def test_pin_name_has_no_dot_because_bpf_file_systems_refuse_it() -> None:
    assert "." not in pin_name(AttachmentKey("eth0.7", Hook.FROM_NETDEV))


def test_pin_name_of_the_guard_has_no_interface() -> None:
    assert pin_name(FORWARD_GUARD) == "forward_guard"
    assert parse_pin_name("forward_guard") == FORWARD_GUARD


def test_an_unfinished_link_is_not_observed() -> None:
    assert parse_pin_name("next_forward_guard") is None


def test_a_file_of_somebody_else_is_not_a_pin_of_ours() -> None:
    assert parse_pin_name("cil_from_netdev-eth0") is None
