"""
A pinned BPF ring buffer, read by mapping it: records out, in the order they came in.

Programs append records of any size and never wait: while the ring is full, what they
tell is lost.  Positions count bytes since the ring was made and never wrap; what the
reader is done with, it says by its own position, which the kernel reads.

Shape: one page with the reader's position (writable), one with the writers' position,
then the data, mapped twice in a row so that no record is cut.  Each record has a
header of 8 bytes: its length, with a bit for *not written yet* and one for *given up*.

A ring has one reader: two would each miss what the other takes.

Source: Linux ``Documentation/bpf/ringbuf.rst`` and ``kernel/bpf/ringbuf.c``.
"""

import fcntl
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Self

from outgate.errors import KernelError
from outgate.kernel import syscall

HEADER = Struct("=I 4x")
BUSY, DISCARDED = 1 << 31, 1 << 30


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Records that were read; *position* is where the next reading begins.

    *is_full* when there was no room for one more record of the largest size in it:
    others may be lost.
    """

    records: tuple[bytes, ...]
    position: int
    is_full: bool = False


def read_records(data: bytes | memoryview, size: int, start: int, end: int) -> Batch:
    """
    Return the records of a ring of *size* bytes from position *start* up to *end*.

    Stops before a record that is still being written.  *data* holds the ring's bytes
    at least once, and what a record at the end of the ring needs of the second copy.
    """
    records: list[bytes] = []
    position, largest = start, 0
    view = memoryview(data)
    while position < end:
        at = position % size
        (word,) = HEADER.unpack_from(view, at)
        if word & BUSY:
            break
        length = word & ~DISCARDED
        begin = at + HEADER.size
        if not word & DISCARDED:
            records.append(bytes(view[begin : begin + length]))
        taken = HEADER.size + -(-length // 8) * 8
        position, largest = position + taken, max(largest, taken)
    # The kernel keeps one byte free.
    return Batch(tuple(records), position, end - start + largest >= size)


class Ring:
    """
    A pinned ring, opened by its one reader; close it, or use it as a context.

    Errors: KernelError that names the ring; also when somebody else reads it.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._lock = _lock(path.parent)
        try:
            self.size, self._reader, self._writers = _map(path)
        except OSError as error:
            os.close(self._lock)
            raise KernelError(f"open ring {path}", error.errno or 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ring, for another reader; what was not read stays in it."""
        self._reader.close()
        self._writers.close()
        os.close(self._lock)

    def skip(self) -> None:
        """Forget what lies in the ring now."""
        self._publish(_position(self._writers))

    def read(self) -> Batch:
        """Take everything that is written, and make room for more; never waits."""
        start, end = _position(self._reader), _position(self._writers)
        if start == end:
            return Batch((), start)
        with memoryview(self._writers) as whole, whole[mmap.PAGESIZE :] as data:
            batch = read_records(data, self.size, start, end)
        self._publish(batch.position)
        return batch

    def _publish(self, position: int) -> None:
        with memoryview(self._reader) as view, view[:8].cast("Q") as word:
            word[0] = position


def _map(path: Path) -> tuple[int, mmap.mmap, mmap.mmap]:
    """Return the size of a ring's data, the reader's page, and all the rest."""
    fd, page = syscall.obj_get(path), mmap.PAGESIZE
    try:
        size = syscall.map_shape(fd).entries
        reader = mmap.mmap(fd, page)
        rest = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
    finally:
        os.close(fd)
    return size, reader, rest


def _position(mapped: mmap.mmap) -> int:
    """Read a position in one piece: the kernel writes it in one."""
    with memoryview(mapped) as view, view[:8].cast("Q") as word:
        return word[0]


def _lock(folder: Path) -> int:
    """Hold *folder* for one reader until the descriptor is closed."""
    operation = f"read events in {folder}"
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(operation, error.errno or 0) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        detail = "another reader has them: there can be only one"
        raise KernelError(operation, error.errno or 0, detail) from error
    return fd
