"""
One pinned map, opened: read all rows, write many, remove many.

Bytes in, bytes out; what they mean is ``kernel.maps``' business.  Batches are used
throughout (a row costs about a microsecond instead of four), and a row that the
kernel refuses never stops the others: failures come back by key.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from outgate.errors import KernelError
from outgate.kernel import queues, syscall
from outgate.kernel.syscall import Batch, Command

CHUNK = 4096
"""Rows per call: larger ones were measured to be no faster."""


class PinnedMap:
    """
    A map opened by its pin; close it, or use it as a context.

    Errors: KernelError that names the map, for all methods.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._fd = syscall.obj_get(path)
            self.shape = syscall.map_shape(self._fd)
        except OSError as error:
            raise KernelError(f"open map {path}", error.errno or 0) from error

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
        """Close the file descriptor; the pin and the rows stay."""
        os.close(self._fd)

    @property
    def _stored_value_size(self) -> int:
        """Bytes of a value as the kernel hands it over: per-CPU ones are rounded."""
        if not self.shape.is_per_cpu:
            return self.shape.value_size
        return -(-self.shape.value_size // 8) * 8 * possible_cpus()

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield every row; a queue or a ring has none.

        Rows that programs add or remove meanwhile may be missed, or seen twice.
        """
        for keys, values in self.packed_rows():
            yield from self.split(keys, values)

    def split(self, keys: bytes, values: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield packed rows one by one."""
        key_size, value_size = self.shape.key_size, self._stored_value_size
        for i in range(len(keys) // key_size):
            yield (
                keys[i * key_size : (i + 1) * key_size],
                values[i * value_size : (i + 1) * value_size],
            )

    def packed_rows(self, chunk: int = CHUNK) -> Iterator[tuple[bytes, bytes]]:
        """Yield the same rows, up to *chunk* at once: their keys, and their values."""
        if not self.shape.has_rows:
            return
        key_size, value_size = self.shape.key_size, self._stored_value_size
        keys = ctypes.create_string_buffer(chunk * key_size)
        values = ctypes.create_string_buffer(chunk * value_size)
        position = ctypes.create_string_buffer(max(key_size, 8))
        batch = Batch(
            out_batch=ctypes.addressof(position),
            keys=ctypes.addressof(keys),
            values=ctypes.addressof(values),
            map_fd=self._fd,
        )
        is_more = True
        while is_more:
            batch.count = chunk
            is_more = self._read(batch)
            yield (
                ctypes.string_at(keys, batch.count * key_size),
                ctypes.string_at(values, batch.count * value_size),
            )
            batch.in_batch = batch.out_batch

    def _read(self, batch: Batch) -> bool:
        try:
            syscall.bpf(Command.MAP_LOOKUP_BATCH, batch)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise KernelError(f"read map {self.name}", error.errno or 0) from error
        return True

    def find(self, key: bytes) -> bytes | None:
        """Return the value of *key*, None when there is none."""
        try:
            return syscall.map_lookup(self._fd, key, self._stored_value_size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise KernelError(f"read map {self.name}", error.errno or 0) from error

    def get(self, key: bytes) -> bytes:
        """Return the value of *key*, which must be there."""
        value = self.find(key)
        if value is None:
            raise KernelError(f"read map {self.name}", errno.ENOENT)
        return value

    def is_empty_queue(self) -> bool:
        """Tell whether a queue has no item."""
        try:
            return queues.is_empty(self._fd, self.shape.value_size)
        except OSError as error:
            raise KernelError(f"read map {self.name}", error.errno or 0) from error

    def put(self, key: bytes, value: bytes) -> None:
        """Write one row."""
        try:
            syscall.map_update(self._fd, key, value)
        except OSError as error:
            raise KernelError(f"write map {self.name}", error.errno or 0) from error

    def put_many(self, rows: Mapping[bytes, bytes]) -> dict[bytes, KernelError]:
        """Write *rows* in their order; return the failures by key."""
        keys = list(rows)
        failures = self.put_packed(b"".join(keys), b"".join(rows.values()))
        return {keys[row]: error for row, error in failures.items()}

    def remove_many(self, keys: Sequence[bytes]) -> dict[bytes, KernelError]:
        """Remove *keys*, absent ones too; return the failures by key."""
        failures = self.remove_packed(b"".join(keys))
        return {keys[row]: error for row, error in failures.items()}

    def put_packed(self, keys: bytes, values: bytes) -> dict[int, KernelError]:
        """Write the rows of *keys* in their order; return the failures by number."""
        return self._change(Command.MAP_UPDATE_BATCH, "write", keys, values)

    def remove_packed(self, keys: bytes) -> dict[int, KernelError]:
        """Remove *keys*, absent ones too; return the failures by number."""
        return self._change(Command.MAP_DELETE_BATCH, "remove from", keys, b"")

    def _change(
        self, command: Command, verb: str, keys: bytes, values: bytes
    ) -> dict[int, KernelError]:
        """
        Write or remove in batches, going on behind each row that is refused.

        On failure the kernel reports how many rows it finished; the next one is
        the row that it refused.
        """
        failures: dict[int, KernelError] = {}
        if not keys:
            return failures
        at_keys, at_values = _address(keys), _address(values)
        start, end = 0, len(keys) // self.shape.key_size
        while start < end:
            size = min(CHUNK, end - start)
            batch = Batch(
                keys=at_keys + start * self.shape.key_size,
                values=at_values + start * self.shape.value_size,
                count=size,
                map_fd=self._fd,
            )
            try:
                syscall.bpf(command, batch)
            except OSError as error:
                # A call that is refused as a whole leaves the count as it was.
                is_counted = batch.count < size
                start += batch.count if is_counted else 0
                refused = range(start, start + (1 if is_counted else size))
                if error.errno != errno.ENOENT:
                    operation = f"{verb} map {self.name}"
                    failure = KernelError(operation, error.errno or 0)
                    failures.update(dict.fromkeys(refused, failure))
                start += len(refused)
            else:
                start += batch.count
        return failures


def _address(raw: bytes) -> int:
    """Return where *raw* stands; it must live on while the kernel reads it."""
    return ctypes.cast(ctypes.c_char_p(raw), ctypes.c_void_p).value or 0


def possible_cpus() -> int:
    """Return how many CPUs the kernel keeps per-CPU values for."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().rpartition("-")[2].rpartition(",")[2]) + 1
