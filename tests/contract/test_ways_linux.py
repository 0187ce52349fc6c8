"""A pod talks to the world through the real programs, whichever way they hang."""

import ctypes
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from bpf.world import HERE, LOCAL_POD, POLICY, SERVER, UNKNOWN_POD, gateway_entries
from contract.isolation import CLONE_NEWNET, skip_without_root
from contract.kernel_sides import ip, isolated, start
from outgate.kernel.hooks import AttachWay
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.reasons import Reason
from outgate.state.entries import Attachment, AttachmentKey, Hook
from outgate.state.plan import Put

pytestmark = pytest.mark.kernel

T = TypeVar("T")

ROUTER, PORT = "172.18.0.1", 7
HOOKS = [
    AttachmentKey("veth", Hook.FROM_CONTAINER),
    AttachmentKey("veth", Hook.TO_CONTAINER),
    AttachmentKey("uplink", Hook.TO_NETDEV),
    AttachmentKey("uplink", Hook.FROM_NETDEV),
]


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    skip_without_root()


@pytest.mark.parametrize("way", [AttachWay.TCX, AttachWay.CLSACT])
def test_a_covered_pod_leaves_as_the_egress_ip_and_gets_its_answer(
    way: AttachWay,
) -> None:
    async def body() -> None:
        with node() as (pod, world):
            await hooked(way)

            assert ask(pod, world, LOCAL_POD) == (HERE, b"ask", b"answer")

    isolated(body)


@pytest.mark.parametrize("way", [AttachWay.TCX, AttachWay.CLSACT])
def test_an_unknown_pod_reaches_no_covered_network(way: AttachWay) -> None:
    async def body() -> None:
        with node() as (pod, world):
            kernel = await hooked(way)
            with pytest.raises(TimeoutError):
                ask(pod, world, UNKNOWN_POD)
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

    def udp(self, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.bind((address, port))
            opened.settimeout(1)
            return opened

        return self.call(make)

    def close(self) -> None:
        self._worker.shutdown()


def _unshare() -> None:
    assert not ctypes.CDLL(None).unshare(CLONE_NEWNET)


@contextmanager
def node() -> Iterator[tuple[Place, Place]]:
    """Make this namespace a node between a pod and the world."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    pod, world = Place(), Place()
    for name, peer, place in (("veth", "eth0", pod), ("uplink", "wire", world)):
        ip("link", "add", name, "type", "veth", "peer", "name", peer)
        ip("link", "set", peer, "netns", str(place.thread))
        ip("link", "set", name, "up")
        place.ip("link", "set", peer, "up")
    ip("address", "add", "10.0.2.1/24", "dev", "veth")
    ip("address", "add", f"{HERE}/16", "dev", "uplink")
    ip("route", "add", "default", "via", ROUTER)
    for address in (LOCAL_POD, UNKNOWN_POD):
        pod.ip("address", "add", f"{address}/24", "dev", "eth0")
    pod.ip("route", "add", "default", "via", "10.0.2.1")
    world.ip("address", "add", f"{ROUTER}/16", "dev", "wire")
    world.ip("address", "add", f"{SERVER}/32", "dev", "wire")
    try:
        yield pod, world
    finally:
        pod.close()
        world.close()


async def hooked(way: AttachWay) -> LinuxKernel:
    """Let an agent give the node its rows and its programs."""
    kernel = await start(way=way)
    await kernel.observe()
    operations = [Put(key, value) for key, value in gateway_entries().items()]
    operations += [Put(key, Attachment.CURRENT) for key in HOOKS]

    assert await kernel.apply(operations) == {}
    found = await kernel.observe()
    assert {found[key] for key in HOOKS} == {Attachment.CURRENT}
    return kernel


def ask(pod: Place, world: Place, source: str) -> tuple[str, bytes, bytes]:
    """Return whom the server saw and what it heard, and what the pod heard."""
    with pod.udp(source, 40000) as client, world.udp(SERVER, PORT) as server:
        client.sendto(b"ask", (SERVER, PORT))
        heard, seen = server.recvfrom(64)
        server.sendto(b"answer", seen)
        return seen[0], heard, client.recv(64)
