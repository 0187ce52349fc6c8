"""
The seals of NAT entries that tests write (``bpf/include/seal.h``).

Shape: keys are ``struct tuple``, address and port as rows hold them; a seal is an int.
"""

import re
import sys
from functools import cache
from pathlib import Path
from struct import unpack

HEADER = Path(__file__).resolve().parents[2] / "bpf" / "include" / "seal.h"


@cache
def _factors() -> tuple[int, ...]:
    found = re.findall(r"(0x[0-9a-f]{16})ULL", HEADER.read_text())
    return tuple(int(number, 16) for number in found)


def seal_of(key: bytes, address: bytes, port: bytes) -> int:
    """Return the seal of an entry under *key* that leads to *address* and *port*."""
    size = len(address)
    ends = key[:size], key[size : 2 * size], address
    source, destination, becomes = (unpack(f"={size // 4}I", end) for end in ends)
    ports, rest = key[2 * size : 2 * size + 4], port + key[2 * size + 4 : 2 * size + 6]
    words = [int.from_bytes(four, sys.byteorder) for four in (ports, rest)]
    for triple in zip(source, destination, becomes, strict=True):
        words += triple
    total = sum(w * f for w, f in zip(words, _factors(), strict=False))
    return total % 2**64 >> 32
