"""
Queues of the kernel: append, take the oldest, look whether there is one.

Maps without keys and without rows: what is read from them is gone.  As in
``kernel.syscall``, what fails raises OSError, and the callers know which map it was.
"""

import ctypes
import errno

from outgate.kernel import syscall
from outgate.kernel.syscall import Command, Element


def push(fd: int, item: bytes) -> None:
    """Append *item* to a queue; OSError(E2BIG) when it is full."""
    value = ctypes.create_string_buffer(item)
    syscall.bpf(Command.MAP_UPDATE_ELEM, Element(fd, 0, ctypes.addressof(value), 0))


def pop(fd: int, size: int) -> bytes:
    """Take the oldest item off a queue; OSError(ENOENT) when it is empty."""
    value = ctypes.create_string_buffer(size)
    element = Element(fd, 0, ctypes.addressof(value), 0)
    syscall.bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, element)
    return value.raw


def is_empty(fd: int, size: int) -> bool:
    """Look at a queue's oldest item and leave it there."""
    value = ctypes.create_string_buffer(size)
    try:
        syscall.bpf(Command.MAP_LOOKUP_ELEM, Element(fd, 0, ctypes.addressof(value), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return True
        raise
    return False
