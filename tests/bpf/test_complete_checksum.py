"""
Packets of which the device has summed up all bytes (CHECKSUM_COMPLETE): when a hook has
changed one, the kernel's sum must be that of what it has become.

The kernel checks it (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.16): EBADMSG if not.
"""

import ctypes
import errno
from struct import pack_into

import pytest

from bpf.harness import (
    CB,
    CONTEXT_SIZE,
    IFINDEX,
    MARK,
    MARK_OVERLAY,
    PASS,
    REDIRECT,
    VNI,
    MakeNode,
    Node,
    Setup,
    needs_root,
)
from bpf.icmp_errors import KINDS, IcmpError
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, outbound, parts
from bpf.world import World
from bpf.wrapper import tunnel_source
from outgate.kernel import syscall
from outgate.kernel.settings import GatewayPath
from outgate.kernel.syscall import Command
from outgate.kernel.testrun import RunAttributes
from outgate.state.entries import Address, Hook

pytestmark = [needs_root, pytest.mark.kernel]

COMPLETE = 1 << 2
BIG = bytes(range(256)) * 10
PAYLOADS = {"odd": b"payload", "even": b"payloads", "none": b""}
MSS = b"\x01\x02\x04\x05\xb4\x01\x01\x00"
"""1460, at an odd place."""


def summed(
    node: Node,
    world: World,
    hook: Hook,
    packet: bytes,
    *,
    tunnel: Address | None = None,
    mark: int = 0,
) -> int:
    """Return the verdict of *hook*; OSError (EBADMSG) where the sum is wrong then."""
    context = bytearray(CONTEXT_SIZE)
    pack_into("=I", context, MARK, mark)
    pack_into("=I", context, IFINDEX, node.uplink)
    if tunnel:
        context[CB : CB + 20] = tunnel_source(tunnel, VNI)
    data = ctypes.create_string_buffer(packet, len(packet))
    before = ctypes.create_string_buffer(bytes(context), CONTEXT_SIZE)
    run = RunAttributes(
        prog_fd=node.program(hook, world.family, is_tunnelled=tunnel is not None),
        data_size_in=len(packet),
        data_in=ctypes.addressof(data),
        ctx_size_in=CONTEXT_SIZE,
        ctx_in=ctypes.addressof(before),
        repeat=1,
        tail=(COMPLETE, 0, 0, 0),
    )
    try:
        node.inside(lambda: syscall.bpf(Command.PROG_TEST_RUN, run))
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("this kernel cannot check sums")
        raise
    return ctypes.c_int32(run.retval).value


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_translation_keeps_the_sum_right(
    node: Node, world: World, protocol: str, payload: bytes
) -> None:
    """Out of a pod here, out of the tunnel, and back."""
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER).but(payload=payload)
    remote = packet.but(source=world.REMOTE_POD, source_port=40001).build()
    reply = packet.but(source=world.HERE).reply()

    assert REDIRECT == summed(node, world, Hook.FROM_CONTAINER, packet.build())
    assert REDIRECT == summed(
        node, world, Hook.FROM_OVERLAY, remote, tunnel=world.worker
    )
    assert REDIRECT == summed(node, world, Hook.FROM_NETDEV, reply.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_translation_of_what_was_routed_keeps_the_sum_right(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    frame = outbound(protocol, world.REMOTE_POD, world.SERVER).build()
    node.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)

    assert PASS == summed(node, world, Hook.TO_NETDEV, frame, mark=MARK_OVERLAY)


def test_a_datagram_without_a_checksum_keeps_the_sum_right(
    node: Node, world: World
) -> None:
    """Also with another port: a socket of the node has the pod's own."""
    node.run(Hook.TO_NETDEV, outbound(UDP_NAME, world.HERE, world.SERVER).build())
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER).but(zero_checksum=True)

    assert REDIRECT == summed(node, world, Hook.FROM_CONTAINER, packet.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.FROM_NETDEV])
def test_a_datagram_in_parts_keeps_the_sum_right(
    node: Node, world: World, hook: Hook, protocol: str
) -> None:
    """A later part has no checksum that makes up for its address."""
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    if hook is Hook.FROM_NETDEV:
        packet = packet.but(source=world.HERE).reply()
    frame = packet.but(payload=BIG).build()

    for part in parts(frame, 7100):
        assert REDIRECT == summed(node, world, hook, part)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_the_sum_right(node: Node, world: World, kind: str) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    to_pod = IcmpError(world.HOP, packet.but(source=world.HERE), kind)
    of_pod = IcmpError(world.LOCAL_POD, packet.reply(), kind)

    assert REDIRECT == summed(node, world, Hook.FROM_NETDEV, to_pod.build())
    assert REDIRECT == summed(node, world, Hook.FROM_CONTAINER, of_pod.build())


def test_a_lowered_mss_keeps_the_sum_right(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER).but(tcp_options=MSS)

    assert REDIRECT == summed(node, world, Hook.FROM_CONTAINER, packet.build())
