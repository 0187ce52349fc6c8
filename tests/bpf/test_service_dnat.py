"""A Service address whose backend lies outside: the host changes it behind our hook."""

import subprocess
from ipaddress import ip_network

import pytest

from bpf.forwarding import forwarding
from bpf.harness import needs_root
from bpf.packets import UDP_NAME, outbound
from bpf.world import IPV4, IPV6, World
from outgate.state.entries import CLUSTER, Family, IpcacheEntry, IpcacheKey

pytestmark = [needs_root, pytest.mark.kernel]

SERVICE = {Family.V4: "10.96.0.7", Family.V6: "fd00:96::7"}


def send(world: World, sender: str, backend: str) -> bytes | None:
    """Let a pod send to the Service, which leads to *backend*; return what left."""
    service, ip = SERVICE[world.family], "ip" if world is IPV4 else "ip6"
    rules = f"""table inet service {{
        chain prerouting {{
            type nat hook prerouting priority -100;
            {ip} daddr {service} dnat {ip} to {backend}
        }}
    }}"""
    nft = ("nft", "-f", "-")
    with forwarding() as pod:
        pod.start(world)
        pod.guard()
        pod.hook_pod()
        pod.node.put({IpcacheKey(ip_network(service)): IpcacheEntry(CLUSTER, None)})
        pod.node.inside(lambda: subprocess.run(nft, input=rules, text=True, check=True))
        return pod.send(outbound(UDP_NAME, sender, service).build())


@pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)
def test_a_service_does_not_uncover_a_pod(world: World) -> None:
    assert send(world, world.LOCAL_POD, world.SERVER) is None


@pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)
def test_a_service_leads_a_selected_pod_where_no_policy_covers(world: World) -> None:
    assert send(world, world.LOCAL_POD, world.OTHER_SERVER) is not None


@pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)
def test_a_service_leads_a_pod_outside_that_no_policy_selects(world: World) -> None:
    assert send(world, world.FREE_POD, world.SERVER) is not None
