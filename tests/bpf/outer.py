"""
Outer headers of the tunnel, as bytes: put on frames, and taken off again.

Not scapy, because the fuzzer needs millions.  What comes off is held to what the
kernel's own VXLAN device writes: every field that is not free has one right value.

Source: RFC 7348, section 5; RFC 6040 for the two bits of congestion notification.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct

from bpf.uplink import UPLINK
from outgate.state.entries import Address, Family, family_of

ETHERNET, UDP_SIZE, VXLAN_SIZE = 14, 8, 8
IP_SIZES = {Family.V4: 20, Family.V6: 40}
ETHERTYPES = {Family.V4: b"\x08\x00", Family.V6: b"\x86\xdd"}
VNI, PORT, TTL, UDP = 25959, 8472, 64, 17
VNI_IS_VALID = b"\x08\x00\x00\x00"
SOURCE_PORTS = range(32768, 61000)
CE, ECT_0 = 3, 2
MACS = bytes.fromhex("0200ac1200050200ac120004")
"""This node's uplink, and the node that sends."""

V4_HEADER = Struct("!BBHHHBBH4s4s")
V6_HEADER = Struct("!IHBB16s16s")
UDP_HEADER = Struct("!HHHH")


class OuterError(AssertionError):
    """An outer header is not as the kernel's device would write it."""


@dataclass(frozen=True, slots=True)
class Inner:
    """What was in the tunnel, and where it was going."""

    frame: bytes
    destination: Address
    source_port: int


def words(data: bytes) -> int:
    """Return the one's complement sum of 16-bit words."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(memoryview(padded).cast("H")) if padded else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes(total.to_bytes(2, "little"), "big")


def congestion(frame: bytes) -> int:
    """Return the two bits of an inner frame that tell of congestion."""
    if frame[12:14] == ETHERTYPES[Family.V4]:
        return frame[ETHERNET + 1] & 3
    return frame[ETHERNET + 1] >> 4 & 3


def wrap(
    frame: bytes,
    source: Address,
    vni: int = VNI,
    tos: int = 0,
    here: Address | None = None,
) -> bytes:
    """Return *frame* as node *source* tunnels it to this one, or to address *here*."""
    family = family_of(source)
    here = here or UPLINK[family].address
    vxlan = VNI_IS_VALID + (vni << 8).to_bytes(4, "big")
    size = UDP_SIZE + VXLAN_SIZE + len(frame)
    ends = source.packed, here.packed
    if family is Family.V4:
        udp = UDP_HEADER.pack(50000, PORT, size, 0)
        fields = 0x45, tos, 20 + size, 7, 0, TTL, UDP
        check = words(V4_HEADER.pack(*fields, 0, *ends)) ^ 0xFFFF
        ip = V4_HEADER.pack(*fields, check, *ends)
    else:
        ip = V6_HEADER.pack(6 << 28 | tos << 20, size, UDP, TTL, *ends)
        zero = UDP_HEADER.pack(50000, PORT, size, 0)
        check = udp_sum(ip, zero + vxlan + frame, size)
        udp = UDP_HEADER.pack(50000, PORT, size, check)
    return MACS + ETHERTYPES[family] + ip + udp + vxlan + frame


def udp_sum(ip: bytes, udp: bytes, size: int) -> int:
    """Return the checksum of *udp* of *size* behind the IPv6 header *ip*, as sent."""
    pseudo = ip[8:40] + size.to_bytes(4, "big") + UDP.to_bytes(4, "big")
    return (words(pseudo + udp) ^ 0xFFFF) or 0xFFFF


def unwrap(frame: bytes) -> Inner | None:
    """Take an outer header of ours off; None without one, OuterError for a bad one."""
    family = {ETHERTYPES[f]: f for f in Family}.get(frame[12:14])
    if family is None:
        return None
    udp_at = ETHERNET + IP_SIZES[family]
    at = udp_at + UDP_SIZE + VXLAN_SIZE
    vxlan = VNI_IS_VALID + (VNI << 8).to_bytes(4, "big")
    number = (
        frame[ETHERNET + (9 if family is Family.V4 else 6)] if at < len(frame) else 0
    )
    if number != UDP or frame[udp_at + UDP_SIZE : at] != vxlan:
        return None
    ip, udp, inner = frame[ETHERNET:udp_at], frame[udp_at:at], frame[at:]
    source_port, port, size, check = UDP_HEADER.unpack_from(udp)
    expect("UDP", (port, size), (PORT, len(frame) - udp_at))
    expect("source port", source_port in SOURCE_PORTS, True)
    if family is Family.V4:
        destination = _check_v4(ip, inner, check)
    else:
        expect("no checksum", check == 0, False)
        destination = _check_v6(ip, inner)
        zero = UDP_HEADER.pack(source_port, port, size, 0)
        whole = zero + frame[udp_at + UDP_SIZE : at] + as_if_right(inner)
        expect("checksum", check, udp_sum(ip, whole, size))
    return Inner(inner, ip_address(destination), source_port)


def as_if_right(frame: bytes) -> bytes:
    """
    Return what sums up as an IPv6 *frame* does once its own checksum is right.

    Whoever counts on that needs no look at the rest ("local checksum offload"), and
    what a pod sends with a wrong sum gets a wrong outer one too.
    """
    head, start = frame[: ETHERNET + 40], ETHERNET + 40
    size, number = len(frame) - start, head[ETHERNET + 6]
    pseudo = head[ETHERNET + 8 :] + size.to_bytes(4, "big") + number.to_bytes(4, "big")
    return head + (words(pseudo) ^ 0xFFFF).to_bytes(2, "big")


def _check_v4(ip: bytes, inner: bytes, check: int) -> bytes:
    destination: bytes
    version, tos, size, _, part, ttl, _, _, source, destination = V4_HEADER.unpack(ip)
    told = version, tos, size, part, ttl, source
    here = UPLINK[Family.V4].address.packed
    whole = len(ip) + UDP_SIZE + VXLAN_SIZE + len(inner)
    expect("IPv4 header", told, (0x45, _outer_tos(inner), whole, 0, TTL, here))
    expect("IPv4 checksum", words(ip), 0xFFFF)
    expect("UDP checksum", check, 0)
    return destination


def _check_v6(ip: bytes, inner: bytes) -> bytes:
    destination: bytes
    first, size, _, ttl, source, destination = V6_HEADER.unpack(ip)
    here = UPLINK[Family.V6].address.packed
    whole = UDP_SIZE + VXLAN_SIZE + len(inner)
    wanted = 6 << 28 | _outer_tos(inner) << 20, whole, TTL, here
    expect("IPv6 header", (first, size, ttl, source), wanted)
    return destination


def _outer_tos(inner: bytes) -> int:
    """RFC 6040's mode without copying CE, as Linux has it."""
    bits = congestion(inner)
    return ECT_0 if bits == CE else bits


def expect(what: str, actual: object, wanted: object) -> None:
    """OuterError that names *what* where the two differ."""
    if actual != wanted:
        raise OuterError(f"outer {what}: {actual}, not {wanted}")
