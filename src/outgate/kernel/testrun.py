"""
Runs a program on a packet without any interface (``BPF_PROG_TEST_RUN``).

Called by ``kernel.collector``, whose programs run only so, and by tests and benches.
Raises OSError as ``kernel.syscall`` does.
"""

import ctypes
from dataclasses import dataclass

from outgate.kernel.syscall import Command, bpf


class RunAttributes(ctypes.Structure):
    """``bpf_attr.test``: one run of a program on one packet."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("tail", ctypes.c_uint32 * 4),
    )


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a program did to a packet; *nanoseconds* is the mean of all repeats."""

    verdict: int
    packet: bytes
    context: bytes
    nanoseconds: int


def run_program(
    program: int, packet: bytes, context: bytes = b"", repeat: int = 1
) -> RunOutcome:
    """
    Run *program* on *packet* once or more, without any interface.

    Shape: *context* is a ``struct __sk_buff`` (or its start), empty for none; the
    verdict is signed, so that TC_ACT_UNSPEC is -1.
    """
    room = ctypes.create_string_buffer(len(packet) + 512)
    given = ctypes.create_string_buffer(packet, len(packet))
    context_in = ctypes.create_string_buffer(context, max(len(context), 1))
    context_out = ctypes.create_string_buffer(max(len(context), 1))
    run = RunAttributes(
        prog_fd=program,
        data_size_in=len(packet),
        data_size_out=len(room),
        data_in=ctypes.addressof(given),
        data_out=ctypes.addressof(room),
        repeat=repeat,
    )
    if context:
        run.ctx_size_in = run.ctx_size_out = len(context)
        run.ctx_in = ctypes.addressof(context_in)
        run.ctx_out = ctypes.addressof(context_out)
    bpf(Command.PROG_TEST_RUN, run)
    return RunOutcome(
        ctypes.c_int32(run.retval).value,
        room.raw[: run.data_size_out],
        context_out.raw[: run.ctx_size_out] if context else b"",
        run.duration,
    )
