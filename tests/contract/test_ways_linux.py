"""A pod talks to the world through the real programs, whichever way they hang."""

import ctypes
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from bpf.uplink import UPLINK
from bpf.world import IPV4, IPV6, POLICY, World, gateway_entries, snapshot_of
from contract.isolation import CLONE_NEWNET, skip_without
from contract.kernel_sides import held_by, ip, isolated, start
from outgate.kernel.hooks import AttachWay
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.reasons import Reason
from outgate.state.entries import Attachment, AttachmentKey, Family, Hook
from outgate.state.plan import Put

pytestmark = pytest.mark.kernel

T = TypeVar("T")

PORT = 7
SOCKET_FAMILIES = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
HOOKS = [
    AttachmentKey("veth", Hook.FROM_CONTAINER),
    AttachmentKey("veth", Hook.TO_CONTAINER),
    AttachmentKey("uplink", Hook.TO_NETDEV),
    AttachmentKey("uplink", Hook.FROM_NETDEV),
]


@pytest.fixture(autouse=True)
def _needs_a_kernel(way: AttachWay) -> None:
    skip_without(way)


WAYS = itertools.product((AttachWay.TCX, AttachWay.CLSACT), (IPV4, IPV6))
by_each_way = pytest.mark.parametrize(
    ("way", "world"),
    [pytest.param(way, world, id=f"{way}-{world.name}") for way, world in WAYS],
)


@by_each_way
def test_a_covered_pod_leaves_as_the_egress_ip_and_gets_its_answer(
    way: AttachWay, world: World
) -> None:
    async def body() -> None:
        with node(world) as (pod, server):
            await hooked(way, world)

            assert ask(pod, server, world.LOCAL_POD, world) == (
                world.HERE,
                "ask",
                "answer",
            )

    isolated(body)


@by_each_way
def test_an_unknown_pod_reaches_no_covered_network(
    way: AttachWay, world: World
) -> None:
    async def body() -> None:
        with node(world) as (pod, server):
            kernel = await hooked(way, world)
            with pytest.raises(TimeoutError):
                ask(pod, server, world.UNKNOWN_POD, world)
            reasons = {(record.reason, record.policy) for record in kernel.metrics()}

            assert (Reason.DROP_UNKNOWN_POD, POLICY) in reasons

    isolated(body)


class Place:
    """A network namespace, held by a thread."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, initializer=_unshare)
        self.thread = self.call(threading.get_native_id)

    def call(self, function: Callable[[], T]) -> T:
        return self._worker.submit(function).result()

    def ip(self, *arguments: str) -> None:
        self.call(lambda: ip(*arguments))

    def add_address(self, interface: str, address: str, prefix_length: int) -> None:
        self.call(lambda: add_address(interface, address, prefix_length))

    def udp(self, family: Family, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            opened = socket.socket(SOCKET_FAMILIES[family], socket.SOCK_DGRAM)
            opened.bind((address, port))
            opened.settimeout(1)
            return opened

        return self.call(make)

    def close(self) -> None:
        self._worker.shutdown()


def _unshare() -> None:
    assert not ctypes.CDLL(None).unshare(CLONE_NEWNET)


def add_address(interface: str, address: str, prefix_length: int) -> None:
    no_wait = ("nodad",) if ":" in address else ()
    ip("address", "add", f"{address}/{prefix_length}", "dev", interface, *no_wait)


@contextmanager
def node(world: World) -> Iterator[tuple[Place, Place]]:
    """Make this namespace a node between a pod and a server."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", name).write_text("1")
    pod, server = Place(), Place()
    for name, peer, place in (("veth", "eth0", pod), ("uplink", "wire", server)):
        ip("link", "add", name, "type", "veth", "peer", "name", peer)
        ip("link", "set", peer, "netns", str(place.thread))
        ip("link", "set", name, "up")
        place.ip("link", "set", peer, "up")
    pods = int(world.LOCAL_PODS.rpartition("/")[2])
    uplink = UPLINK[world.family].prefix_length
    add_address("veth", world.POD_ROUTER, pods)
    add_address("uplink", world.HERE, uplink)
    for address in (world.LOCAL_POD, world.UNKNOWN_POD):
        pod.add_address("eth0", address, pods)
    for address in (world.ROUTER, world.SERVER):
        server.add_address("wire", address, uplink)
    version = f"-{world.family}"
    ip(version, "route", "add", "default", "via", world.ROUTER)
    pod.ip(version, "route", "add", "default", "via", world.POD_ROUTER)
    try:
        yield pod, server
    finally:
        pod.close()
        server.close()


async def hooked(way: AttachWay, world: World) -> LinuxKernel:
    """Let an agent give the node its rows and its programs."""
    kernel = await start(way=way)
    await kernel.observe()
    operations = [Put(*entry) for entry in snapshot_of(gateway_entries(world)).items()]
    operations += [Put(key, Attachment.CURRENT) for key in HOOKS]

    assert await kernel.apply(operations) == {}
    found = await held_by(kernel)
    assert {found[key] for key in HOOKS} == {Attachment.CURRENT}
    return kernel


def ask(pod: Place, server: Place, source: str, world: World) -> tuple[str, ...]:
    """Return whom the server saw, what it heard, and what the pod heard."""
    family = world.family
    with (
        pod.udp(family, source, 40000) as client,
        server.udp(family, world.SERVER, PORT) as answering,
    ):
        client.sendto(b"ask", (world.SERVER, PORT))
        heard, seen = answering.recvfrom(64)
        answering.sendto(b"answer", seen)
        return seen[0], heard.decode(), client.recv(64).decode()
