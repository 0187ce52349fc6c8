"""
Finds the maps that programs have for themselves: only the kernel's numbers lead there.

One counts the ICMP answers that a program may still send.  A program that is out of
answers drops in silence: tests that run millions of frames give it new ones.  Another
holds parts of datagrams.

Source: Linux ``include/uapi/linux/bpf.h``, ``struct bpf_prog_info``.
"""

import ctypes
import os
from collections.abc import Iterable
from enum import IntEnum

from outgate.kernel import syscall
from outgate.kernel.pinned import PinnedMap, possible_cpus

ANSWERERS, HELD_PARTS = b"answerers", b"held_parts"
MAP_NAME_AT = 24
MAPS_AT_MOST = 32


class _ByNumber(IntEnum):
    MAP_GET_FD_BY_ID = 14


class _Number(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint32), ("pad", ctypes.c_uint32 * 3))


class _Programs(ctypes.Structure):
    """``struct bpf_prog_info`` up to the numbers of the maps."""

    _fields_ = (
        ("skipped", ctypes.c_uint8 * 48),
        ("created_by", ctypes.c_uint32),
        ("map_count", ctypes.c_uint32),
        ("maps", ctypes.c_uint64),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


def _info(fd: int, into: ctypes.Structure | ctypes.Array[ctypes.c_char]) -> None:
    request = _Info(fd, ctypes.sizeof(into), ctypes.addressof(into))
    syscall.bpf(syscall.Command.OBJ_GET_INFO_BY_FD, request)


class UnpinnedMap(PinnedMap):
    """A map by its descriptor, which it closes."""

    def __init__(self, fd: int) -> None:
        self.name = f"of descriptor {fd}"
        self._fd = fd
        self.shape = syscall.map_shape(fd)


def unpinned(programs: Iterable[int], name: bytes) -> list[int]:
    """Return a descriptor of each such map of *programs*; the caller closes them."""
    found = []
    for fd in (fd for program in programs for fd in _maps(program)):
        if _is_called(fd, name):
            found.append(fd)
        else:
            os.close(fd)
    return found


def _maps(program: int) -> list[int]:
    numbers = (ctypes.c_uint32 * MAPS_AT_MOST)()
    found = _Programs(map_count=MAPS_AT_MOST, maps=ctypes.addressof(numbers))
    _info(program, found)
    command = _ByNumber.MAP_GET_FD_BY_ID
    return [
        syscall.bpf(command, _Number(number))  # type: ignore[arg-type]
        for number in numbers[: found.map_count]
    ]


def _is_called(fd: int, name: bytes) -> bool:
    raw = ctypes.create_string_buffer(64)
    _info(fd, raw)
    return raw.raw[MAP_NAME_AT:].startswith(name + b"\0")


def allow_answers(fd: int) -> None:
    """Let a program answer as if it had never done so."""
    size = -(-syscall.map_shape(fd).value_size // 8) * 8 * possible_cpus()
    syscall.map_update(fd, bytes(4), bytes(size))
