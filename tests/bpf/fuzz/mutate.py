"""
Spoils frames: one small, nasty change each, from a seeded source of chance.

Pure.  Each mutation names what a parser may believe wrongly; several are combined.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random

Mutation = Callable[[Random, bytearray], bytearray]


@dataclass(frozen=True, slots=True)
class Places:
    """Offsets in a frame without options or extensions, by family."""

    l4: int
    size: int
    protocol: int
    hops: int
    source: int
    destination: int
    address: int
    quoted_size: int
    """From the quoted header's start, as the next."""
    quoted_protocol: int


V4_PLACES = Places(34, 16, 23, 22, 26, 30, 4, 2, 9)
V6_PLACES = Places(54, 18, 20, 21, 22, 38, 16, 4, 6)


def _places(frame: bytearray) -> Places:
    return V6_PLACES if frame[12:14] == b"\x86\xdd" else V4_PLACES


SMALLEST = {b"\x08\x00": 34, b"\x86\xdd": 54}
"""
By ethertype, what the kernel's test run (6.18) takes: whole IP headers, and more than
an Ethernet header of all others.  Shorter ones are for the parser's native tests.
"""

ODD_PROTOCOLS = (0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 255)
ODD_ADDRESSES = {
    4: [
        IPv4Address(text).packed
        for text in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1")
    ],
    16: [
        IPv6Address(text).packed
        for text in (
            *("::", "::1", "fe80::1", "ff02::1:ff00:9", "febf::1", "fec0::1", "::2"),
            *("::ffff:10.0.2.86", "::ffff:172.18.0.5", "::ffff:203.0.113.9"),
        )
    ],
}
ODD_TYPES = (0x0806, 0x86DD, 0x8100, 0x0800, 0x0000)
ODD_LENGTHS = (0, 1, 19, 20, 24, 27, 28, 39, 40, 60, 0xFFFF)
ODD_FRAGMENTS = (0x2000, 0x4000, 0x0001, 0x1FFF, 0x3FFF, 0x8000, 0xE000)


def _word(frame: bytearray, at: int, value: int) -> bytearray:
    if at + 2 <= len(frame):
        frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")
    return frame


def _byte(frame: bytearray, at: int, value: int) -> bytearray:
    if at < len(frame):
        frame[at] = value & 0xFF
    return frame


def any_byte(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, int(chance.random() * 90), int(chance.random() * 256))


def any_bit(chance: Random, frame: bytearray) -> bytearray:
    at = int(chance.random() * len(frame))
    return _byte(frame, at, frame[at] ^ 1 << int(chance.random() * 8))


def cut(chance: Random, frame: bytearray) -> bytearray:
    return frame[: max(15, int(chance.random() * len(frame)))]


def pad(chance: Random, frame: bytearray) -> bytearray:
    return frame + chance.randbytes(1 + int(chance.random() * 40))


def version(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, 14, int(chance.random() * 256))


def header_size(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, 14, 0x40 | int(chance.random() * 16))


def total_size(chance: Random, frame: bytearray) -> bytearray:
    at = _places(frame).size
    if chance.random() < 0.5:
        return _word(frame, at, chance.choice(ODD_LENGTHS))
    return _word(frame, at, _declared(frame) + int(chance.random() * 9) - 4)


def _declared(frame: bytearray) -> int:
    """Return what the IP header should say of the packet's size."""
    return len(frame) - (54 if _places(frame) is V6_PLACES else 14)


def fragment(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 20, chance.choice(ODD_FRAGMENTS))


def protocol(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, _places(frame).protocol, chance.choice(ODD_PROTOCOLS))


def hops(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, _places(frame).hops, int(chance.random() * 3))


def header_checksum(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 24, chance.choice((0, 0xFFFF, 0x1234)))


def transport_checksum(chance: Random, frame: bytearray) -> bytearray:
    at = _places(frame).l4 + chance.choice((2, 6, 16))
    return _word(frame, at, chance.choice((0, 0xFFFF, 0x4321)))


def tcp_flags(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, _places(frame).l4 + 13, int(chance.random() * 256))


def tcp_offset(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, _places(frame).l4 + 12, int(chance.random() * 256))


def icmp_type(chance: Random, frame: bytearray) -> bytearray:
    first = 0 if _places(frame) is V4_PLACES or chance.random() < 0.4 else 126
    return _byte(frame, _places(frame).l4, first + int(chance.random() * 20))


def a_port(chance: Random, frame: bytearray) -> bytearray:
    value = chance.choice((0, 1, 1023, 1024, 65535, 40000))
    return _word(frame, _places(frame).l4 + chance.choice((0, 2, 4)), value)


def udp_size(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, _places(frame).l4 + 4, chance.choice(ODD_LENGTHS))


def options(chance: Random, frame: bytearray) -> bytearray:
    """Insert IP options, or an extension header of no sense, and tell of them."""
    count = 1 + int(chance.random() * 10)
    if _places(frame) is V6_PLACES:
        if len(frame) < 54:
            return frame
        number = chance.choice((0, 43, 44, 60, 51))
        extension = bytearray([frame[20], chance.choice((0, 0, 1, 2, 31, 255))])
        frame = frame[:54] + extension + chance.randbytes(6) + frame[54:]
        return _word(_byte(frame, 20, number), 18, len(frame) - 54)
    frame = frame[:34] + chance.randbytes(count * 4) + frame[34:]
    frame[14] = 0x40 | 5 + count
    return _word(frame, 16, len(frame) - 14)


def quoted(chance: Random, frame: bytearray) -> bytearray:
    """Spoil the IP header that an ICMP error quotes, or its ports."""
    places, kind = _places(frame), int(chance.random() * 5)
    at = places.l4 + 8
    if kind == 0:
        return _word(frame, at + places.quoted_size, chance.choice(ODD_LENGTHS))
    if kind == 1:
        return _word(frame, at + 6, chance.choice(ODD_FRAGMENTS))
    if kind == 2:
        protocol = chance.choice(ODD_PROTOCOLS)
        return _byte(frame, at + places.quoted_protocol, protocol)
    if kind == 3:
        return _byte(frame, at, int(chance.random() * 256))
    return _byte(frame, at + 8 + int(chance.random() * 44), int(chance.random() * 256))


def swap(chance: Random, frame: bytearray) -> bytearray:
    places = _places(frame)
    one = slice(places.source, places.source + places.address)
    other = slice(places.destination, places.destination + places.address)
    if len(frame) >= places.l4:
        frame[one], frame[other] = frame[other], frame[one]
    return frame


def an_address(chance: Random, frame: bytearray) -> bytearray:
    places = _places(frame)
    at = chance.choice((places.source, places.destination))
    at += chance.choice((0, 1, places.address - 1))
    return _byte(frame, at, chance.choice((int(chance.random() * 256), 0xFE, 0xFF)))


def odd_address(chance: Random, frame: bytearray) -> bytearray:
    """Write an address with a meaning of its own."""
    places = _places(frame)
    at = chance.choice((places.source, places.destination))
    address = chance.choice(ODD_ADDRESSES[places.address])
    if len(frame) >= places.l4:
        frame[at : at + places.address] = address
    return frame


def ethertype(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 12, chance.choice(ODD_TYPES))


def noise(chance: Random, frame: bytearray) -> bytearray:
    """Only the Ethernet header is left as it was."""
    return frame[:14] + chance.randbytes(1 + int(chance.random() * 80))


def noise_behind_ip(chance: Random, frame: bytearray) -> bytearray:
    return frame[: _places(frame).l4] + chance.randbytes(int(chance.random() * 40))


MUTATIONS: tuple[Mutation, ...] = (
    *(any_byte, any_bit, cut, pad, version, header_size, total_size, fragment),
    *(protocol, hops, header_checksum, transport_checksum, tcp_flags, tcp_offset),
    *(icmp_type, a_port, udp_size, options, swap, an_address, ethertype, noise),
    *(noise_behind_ip, quoted, odd_address),
)


def mutate(chance: Random, frame: bytes) -> bytes:
    """Return *frame* with one to three mutations."""
    spoiled = bytearray(frame)
    for _ in range(1 + int(chance.random() ** 2 * 3)):
        spoiled = MUTATIONS[int(chance.random() * len(MUTATIONS))](chance, spoiled)
    missing = SMALLEST.get(bytes(spoiled[12:14]), 15) - len(spoiled)
    return bytes(spoiled) + bytes(max(0, missing))
