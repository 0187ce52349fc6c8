"""
bpf(2) by ctypes: maps, pins, links, programs, one thin function per command.

Knows the kernel's ABI (``union bpf_attr``) and nothing else: no map name, no entry,
no policy.  libbpf is not used here; ``kernel.objects`` needs it for ELF files only.
Everything that fails raises OSError with the kernel's errno: the callers know which
object it was and translate (``KernelError``).

Source: Linux ``include/uapi/linux/bpf.h``.  The structures below are prefixes of
``union bpf_attr``; the kernel takes a short one and reads the rest as zero.
"""

import ctypes
import os
import platform
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
BPF_FS_MAGIC = 0xCAFE4A11

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Command(IntEnum):
    """``enum bpf_cmd``, as far as we use it."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class AttachType(IntEnum):
    """
    Sides of an interface for tc programs (Linux 6.6 and later), netfilter, and XDP.
    """

    XDP = 37
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class Element(ctypes.Structure):
    """One row of a map, or with *key* 0 an item of a queue."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class Batch(ctypes.Structure):
    """``bpf_attr.batch``; *count* holds the number of rows on return."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _Object(ctypes.Structure):
    _fields_ = (
        ("pathname", ctypes.c_uint64),
        ("bpf_fd", ctypes.c_uint32),
        ("file_flags", ctypes.c_uint32),
    )


class _Query(ctypes.Structure):
    _fields_ = (
        ("target", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("optional", ctypes.c_uint64 * 4),
    )


class _Words(ctypes.Structure):
    """Commands that take file descriptors and numbers only."""

    _fields_ = (("words", ctypes.c_uint32 * 16),)


class _Info(ctypes.Structure):
    _fields_ = (
        ("bpf_fd", ctypes.c_uint32),
        ("info_len", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


def bpf(command: Command, attribute: ctypes.Structure) -> int:
    """Issue one bpf(2) call and return its result; OSError when it fails."""
    number = BPF_SYSCALL[platform.machine()]
    size = ctypes.sizeof(attribute)
    result = int(_libc.syscall(number, int(command), ctypes.byref(attribute), size))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"bpf {command.name.lower()}")
    return result


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Write one row, whether or not it is there."""
    keys, values = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    at_key, at_value = ctypes.addressof(keys), ctypes.addressof(values)
    bpf(Command.MAP_UPDATE_ELEM, Element(fd, at_key, at_value, 0))


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes:
    """Return the value of one row; OSError(ENOENT) when there is none."""
    keys, value = (
        ctypes.create_string_buffer(key),
        ctypes.create_string_buffer(value_size),
    )
    at_key, at_value = ctypes.addressof(keys), ctypes.addressof(value)
    bpf(Command.MAP_LOOKUP_ELEM, Element(fd, at_key, at_value, 0))
    return value.raw


def obj_pin(fd: int, path: Path) -> None:
    """Pin *fd* at *path*, which must lie on a bpf file system."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(Command.OBJ_PIN, _Object(ctypes.addressof(name), fd, 0))


def obj_get(path: Path) -> int:
    """Return a new file descriptor of what is pinned at *path*."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(Command.OBJ_GET, _Object(ctypes.addressof(name), 0, 0))


BEFORE = 1 << 3
BEFORE_LINK = BEFORE | 1 << 13
"""BPF_F_BEFORE, and with BPF_F_LINK."""


def link_create(
    program: int,
    ifindex: int,
    attach_type: AttachType,
    before: int | None = None,
    *,
    is_first: bool = False,
) -> int:
    """
    Attach *program* to an interface of the caller's network namespace.

    It runs after what is there already, or right before the link *before*, or before
    all (*is_first*).

    Errors: ENODEV for no such index, EEXIST when this program is there already, EINVAL
    from kernels before 6.6.
    """
    attribute = _Words()
    attribute.words[0:3] = [program, ifindex, attach_type]
    if is_first:
        attribute.words[3] = BEFORE
    elif before is not None:
        attribute.words[3:5] = [BEFORE_LINK, before]
    return bpf(Command.LINK_CREATE, attribute)


XDP_NATIVE = 1 << 2
"""XDP_FLAGS_DRV_MODE: by the driver, before a packet's buffer is made."""


def link_create_xdp(program: int, ifindex: int) -> int:
    """
    Attach *program* to an interface of the caller's network namespace, natively.

    Errors: ENODEV for no such index, EBUSY or EEXIST when it has a program already,
    EOPNOTSUPP and others as its driver refuses.
    """
    attribute = _Words()
    attribute.words[0:4] = [program, ifindex, AttachType.XDP, XDP_NATIVE]
    return bpf(Command.LINK_CREATE, attribute)


NF_PROTO_IPV4, NF_PROTO_IPV6, NF_INET_FORWARD = 2, 10, 2


def link_create_forward(
    program: int, priority: int, protocol: int = NF_PROTO_IPV4
) -> int:
    """
    Attach *program* to what the caller's network namespace forwards of *protocol*.

    Errors: EBUSY when another BPF link has that *priority*, EINVAL from kernels
    without such links.
    """
    attribute = _Words()
    attribute.words[0:3] = [program, 0, AttachType.NETFILTER]
    attribute.words[4:7] = [protocol, NF_INET_FORWARD, priority % 2**32]
    return bpf(Command.LINK_CREATE, attribute)


def link_update(link: int, program: int) -> None:
    """Replace the program of *link* at once; ENOLINK when its interface is gone."""
    attribute = _Words()
    attribute.words[0:2] = [link, program]
    bpf(Command.LINK_UPDATE, attribute)


def link_detach(link: int) -> None:
    """Take *link* off its interface now, whoever else holds it open."""
    attribute = _Words()
    attribute.words[0] = link
    bpf(Command.LINK_DETACH, attribute)


def _object_info(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    bpf(Command.OBJ_GET_INFO_BY_FD, _Info(fd, size, ctypes.addressof(buffer)))
    return buffer.raw


def _word(raw: bytes, index: int) -> int:
    return ctypes.c_uint32.from_buffer_copy(raw, index * 4).value


@dataclass(frozen=True, slots=True)
class LinkState:
    """*ifindex* is 0 once the interface is gone."""

    program_id: int
    ifindex: int
    attach_type: int


def link_state(fd: int) -> LinkState:
    """Return what a tcx or XDP link attaches, and where (``struct bpf_link_info``)."""
    raw = _object_info(fd, 64)
    return LinkState(_word(raw, 2), _word(raw, 4), _word(raw, 5))


def program_id(fd: int) -> int:
    """Return the kernel's number of a program (``struct bpf_prog_info``)."""
    return _word(_object_info(fd, 80), 1)


@dataclass(frozen=True, slots=True)
class MapShape:
    """
    Sizes in bytes; *is_per_cpu* maps hold a value for each possible CPU.

    Without *has_rows* it is a queue or a ring: what is read from it is gone; or an
    array of programs.
    """

    key_size: int
    value_size: int
    entries: int
    is_per_cpu: bool
    has_rows: bool


PER_CPU_TYPES = (5, 6, 10)
"""Hash, array, LRU hash."""

PROGRAMS_TYPE, QUEUE_TYPE, RING_TYPE = 3, 22, 27


def map_shape(fd: int) -> MapShape:
    """Return the layout of a map (``struct bpf_map_info``)."""
    raw = _object_info(fd, 80)
    kind, _, key_size, value_size, entries = (_word(raw, i) for i in range(5))
    is_per_cpu = kind in PER_CPU_TYPES
    has_rows = kind not in (PROGRAMS_TYPE, QUEUE_TYPE, RING_TYPE)
    return MapShape(key_size, value_size, entries, is_per_cpu, has_rows)


def attached_programs(ifindex: int, attach_type: AttachType) -> tuple[int, ...]:
    """Return the ids of all tcx programs on one side of an interface, in order."""
    ids = (ctypes.c_uint32 * 64)()
    query = _Query(ifindex, attach_type, 0, 0, ctypes.addressof(ids), len(ids))
    bpf(Command.PROG_QUERY, query)
    return tuple(ids[: query.count])


def is_on_bpf_fs(path: Path) -> bool:
    """Tell whether *path* (which must exist) lies on a bpf file system."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == BPF_FS_MAGIC
