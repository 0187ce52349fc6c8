"""TCP and UDP from a pod to a server, by both ways into the tunnel and mixed."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import product

import pytest

from bpf.chain import GATEWAY, SERVER, TUNNEL, Chain, chain
from bpf.harness import needs_root
from outgate.kernel.settings import TunnelWay

pytestmark = [needs_root, pytest.mark.kernel]

AUTO, DEVICE = TunnelWay.AUTO, TunnelWay.DEVICE
PORT, SECONDS = 80, 10
CONTENT = bytes(range(256)) * 4000
OFFLOADS = {
    "everywhere": {"eth0", "pod0", "up0", "in0", "out0"},
    "not on uplinks": {"eth0", "pod0"},
    "nowhere": set[str](),
}
"""Which links complete checksums, and take super-packets."""


@pytest.fixture(scope="module", params=product(TunnelWay, TunnelWay), ids="-".join)
def ways(request: pytest.FixtureRequest) -> tuple[TunnelWay, TunnelWay]:
    """The way of the pod's node, and of the gateway."""
    pair: tuple[TunnelWay, TunnelWay] = request.param
    return pair


@pytest.fixture(scope="module")
def wired(ways: tuple[TunnelWay, TunnelWay]) -> Iterator[Chain]:
    """The whole chain."""
    with chain(*ways) as made:
        yield made


@pytest.fixture(params=OFFLOADS)
def offloaded(request: pytest.FixtureRequest, wired: Chain) -> Chain:
    """The same, with checksums and segments left to links, or not."""
    for place, link in wired.links:
        state = "on" if link in OFFLOADS[request.param] else "off"
        place.run(f"ethtool -K {link} tx {state} tso {state} gso {state} gro {state}")
    return wired


def listen() -> socket.socket:
    return socket.create_server((SERVER, PORT))


def answer(listener: socket.socket) -> tuple[str, bytes]:
    """Take all that one client sends, send it back, and say whose it was."""
    with listener, listener.accept()[0] as client:
        received = bytearray()
        while len(received) < len(CONTENT):
            received += client.recv(1 << 20)
        client.sendall(received)
        return client.getpeername()[0], sha256(received).digest()


def converse() -> bytes:
    """Send all to the server, and return what comes back."""
    with socket.create_connection((SERVER, PORT), SECONDS) as server:
        with ThreadPoolExecutor(1) as sender:
            sent = sender.submit(server.sendall, CONTENT)
            received = bytearray()
            while len(received) < len(CONTENT):
                received += server.recv(1 << 20)
            sent.result()
        return bytes(received)


def test_a_connection_carries_every_byte_both_ways(offloaded: Chain) -> None:
    listener = offloaded.server.inside(listen)
    with ThreadPoolExecutor(1) as waiting:
        seen = waiting.submit(offloaded.server.inside, lambda: answer(listener))
        back = offloaded.pod.inside(converse)

        assert (GATEWAY, sha256(CONTENT).digest()) == seen.result()
    assert CONTENT == back


def ask(count: int) -> list[bytes]:
    """Send datagrams one after the other; return what comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.settimeout(SECONDS)
        door.connect((SERVER, PORT))
        answers = []
        for number in range(count):
            door.send(b"%d" % number * number)
            answers.append(door.recv(2048))
        return answers


def echo(door: socket.socket, count: int) -> set[str]:
    """Send *count* datagrams back; return from whom they came."""
    with door:
        senders = set()
        for _ in range(count):
            data, sender = door.recvfrom(2048)
            door.sendto(data, sender)
            senders.add(sender[0])
        return senders


def bind() -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.settimeout(SECONDS)
    door.bind((SERVER, PORT))
    return door


def test_datagrams_go_both_ways(offloaded: Chain) -> None:
    door = offloaded.server.inside(bind)
    with ThreadPoolExecutor(1) as waiting:
        seen = waiting.submit(offloaded.server.inside, lambda: echo(door, 50))
        answers = offloaded.pod.inside(lambda: ask(50))

        assert {GATEWAY} == seen.result()
    assert [b"%d" % number * number for number in range(50)] == answers


def test_the_device_gets_nothing_where_programs_can(
    wired: Chain, ways: tuple[TunnelWay, TunnelWay]
) -> None:
    before = [place.received(TUNNEL) for place in (wired.node, wired.gateway)]
    test_datagrams_go_both_ways(wired)
    after = [place.received(TUNNEL) for place in (wired.node, wired.gateway)]
    by_device = [now - then for now, then in zip(after, before, strict=True)]

    assert [0 if way is AUTO else 50 for way in ways] == by_device
