"""
Spoils frames: one small, nasty change each, from a seeded source of chance.

Pure.  Each mutation names what a parser may believe wrongly; several are combined.
"""

from collections.abc import Callable
from random import Random

Mutation = Callable[[Random, bytearray], bytearray]

L4 = 34
"""Offset of the transport header in a frame without IP options."""

SMALLEST = {b"\x08\x00": 34, b"\x86\xdd": 54}
"""
By ethertype, what the kernel's test run (6.18) takes: whole IP headers, and more than
an Ethernet header of all others.  Shorter ones are for the parser's native tests.
"""

ODD_PROTOCOLS = (0, 1, 2, 4, 6, 17, 41, 47, 50, 58, 132, 255)
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
    return _byte(frame, int(chance.random() * 64), int(chance.random() * 256))


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
    if chance.random() < 0.5:
        return _word(frame, 16, chance.choice(ODD_LENGTHS))
    return _word(frame, 16, len(frame) - 14 + int(chance.random() * 9) - 4)


def fragment(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 20, chance.choice(ODD_FRAGMENTS))


def protocol(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, 23, chance.choice(ODD_PROTOCOLS))


def hops(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, 22, int(chance.random() * 3))


def header_checksum(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 24, chance.choice((0, 0xFFFF, 0x1234)))


def transport_checksum(chance: Random, frame: bytearray) -> bytearray:
    at = L4 + chance.choice((2, 6, 16))
    return _word(frame, at, chance.choice((0, 0xFFFF, 0x4321)))


def tcp_flags(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, L4 + 13, int(chance.random() * 256))


def tcp_offset(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, L4 + 12, int(chance.random() * 256))


def icmp_type(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, L4, int(chance.random() * 20))


def a_port(chance: Random, frame: bytearray) -> bytearray:
    value = chance.choice((0, 1, 1023, 1024, 65535, 40000))
    return _word(frame, L4 + chance.choice((0, 2, 4)), value)


def udp_size(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, L4 + 4, chance.choice(ODD_LENGTHS))


def options(chance: Random, frame: bytearray) -> bytearray:
    """Insert IP options, and let the header tell of them."""
    count = 1 + int(chance.random() * 10)
    frame = frame[:L4] + chance.randbytes(count * 4) + frame[L4:]
    frame[14] = 0x40 | 5 + count
    return _word(frame, 16, len(frame) - 14)


def swap(chance: Random, frame: bytearray) -> bytearray:
    if len(frame) >= L4:
        frame[26:30], frame[30:34] = frame[30:34], frame[26:30]
    return frame


def an_address(chance: Random, frame: bytearray) -> bytearray:
    return _byte(frame, chance.choice((26, 29, 30, 33)), int(chance.random() * 256))


def ethertype(chance: Random, frame: bytearray) -> bytearray:
    return _word(frame, 12, chance.choice(ODD_TYPES))


def noise(chance: Random, frame: bytearray) -> bytearray:
    """Only the Ethernet header is left as it was."""
    return frame[:14] + chance.randbytes(1 + int(chance.random() * 80))


def noise_behind_ip(chance: Random, frame: bytearray) -> bytearray:
    return frame[:L4] + chance.randbytes(int(chance.random() * 40))


MUTATIONS: tuple[Mutation, ...] = (
    *(any_byte, any_bit, cut, pad, version, header_size, total_size, fragment),
    *(protocol, hops, header_checksum, transport_checksum, tcp_flags, tcp_offset),
    *(icmp_type, a_port, udp_size, options, swap, an_address, ethertype, noise),
    noise_behind_ip,
)


def mutate(chance: Random, frame: bytes) -> bytes:
    """Return *frame* with one to three mutations."""
    spoiled = bytearray(frame)
    for _ in range(1 + int(chance.random() ** 2 * 3)):
        spoiled = MUTATIONS[int(chance.random() * len(MUTATIONS))](chance, spoiled)
    missing = SMALLEST.get(bytes(spoiled[12:14]), 15) - len(spoiled)
    return bytes(spoiled) + bytes(max(0, missing))
