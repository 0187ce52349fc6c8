"""What a lab may be asked to be."""

import pytest

from outgate.lab.errors import LabError
from outgate.lab.settings import GatewayPath, IpFamily, LabSettings
from outgate.policy.xdp import GatewayHook


@pytest.mark.parametrize(
    ("family", "mtu"),
    [(IpFamily.IPV4, 1450), (IpFamily.DUAL, 1450), (IpFamily.IPV6, 1430)],
)
def test_pods_leave_room_for_the_tunnel_between_nodes(
    family: IpFamily, mtu: int
) -> None:
    assert LabSettings(ip_family=family).pod_mtu == mtu


def test_mtu_that_was_asked_for_is_kept() -> None:
    assert LabSettings(ip_family=IpFamily.IPV6, mtu=1500).pod_mtu == 1500


def test_mtu_below_what_ipv6_needs_is_refused() -> None:
    with pytest.raises(LabError, match=r"--mtu: 1200 is too small for IPv6"):
        LabSettings(ip_family=IpFamily.DUAL, mtu=1200)


def test_mtu_of_an_ipv4_lab_may_be_small() -> None:
    assert LabSettings(mtu=576).pod_mtu == 576


def test_xdp_beside_the_hosts_stack_is_refused() -> None:
    with pytest.raises(LabError, match="--gateway-hook: xdp needs --gateway-path dir"):
        LabSettings(gateway_path=GatewayPath.STACK, gateway_hook=GatewayHook.XDP)
