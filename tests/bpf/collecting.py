"""
What a node's programs leave for others: garbage for the collector, events for readers.

No timer runs in a test's node but while ``collect_all`` waits for it: entries stay as
the test left them.  To be called in the node's namespaces, where its pins are seen.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgate.kernel import queues, syscall
from outgate.kernel.collector import (
    read_collectors,
    start_collectors,
    stop_collectors,
)
from outgate.kernel.events import Event, decode_event
from outgate.kernel.maps import MapName
from outgate.kernel.records import CollectorRecord
from outgate.kernel.ring import Ring
from outgate.kernel.settings import DatapathSettings
from outgate.state.entries import Family

GARBAGE = (MapName.GARBAGE_V4, MapName.GARBAGE_V6)

DUE_SIZE = 8
"""Size of ``due``, the last field of an item."""

DEADLINE_SECONDS = 60.0
TRIES = 3


def take_events(pins: Path) -> list[Event]:
    """Take what programs told since the last time."""
    with Ring(pins / MapName.EVENTS) as ring:
        records = ring.read().records
    events = [event for record in records if (event := decode_event(record))]
    assert len(events) == len(records)
    return events


def take_garbage(pins: Path) -> dict[MapName, list[bytes]]:
    """Take the items that the collector would look at, oldest first."""
    return {name: list(_drained(pins / name)) for name in GARBAGE}


def put_garbage(pins: Path, items: dict[MapName, list[bytes]]) -> None:
    """Put *items* into their queues, due at once."""
    for name, found in items.items():
        with opened(pins / name) as queue:
            for item in found:
                queues.push(queue, item[:-DUE_SIZE] + bytes(DUE_SIZE))


def collect_all(
    pins: Path, settings: DatapathSettings
) -> dict[Family, CollectorRecord]:
    """Let the collector look at every flow once, whether due or not."""
    items = take_garbage(pins)
    put_garbage(pins, items)
    wanted = sum(map(len, items.values()))
    _start(pins, settings)
    try:
        return _wait_checked(pins, wanted)
    finally:
        stop_collectors(pins)


def _start(pins: Path, settings: DatapathSettings) -> None:
    """
    Start the timers; what else happened is told at the end of the run.

    Once in some ten thousand times a whole run of tests saw a refusal that came alone,
    and that 17,600 starts in a row did not show.
    """
    for _ in range(TRIES):
        reason = start_collectors(pins, settings)
        if not reason:
            return
        warnings.warn(f"the collectors did not start: {reason}", stacklevel=2)
    raise AssertionError(reason)


def _wait_checked(pins: Path, wanted: int) -> dict[Family, CollectorRecord]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        records = read_collectors(pins)
        checked = sum(record.checked for record in records.values())
        if checked >= wanted and all(record.ticks for record in records.values()):
            return records
        assert time.monotonic() < deadline, records
        time.sleep(0.002)


def _drained(queue: Path) -> Iterator[bytes]:
    with opened(queue) as fd:
        size = syscall.map_shape(fd).value_size
        while not queues.is_empty(fd, size):
            yield queues.pop(fd, size)


@contextmanager
def opened(pin: Path) -> Iterator[int]:
    """Open what is pinned at *pin*."""
    fd = syscall.obj_get(pin)
    try:
        yield fd
    finally:
        os.close(fd)
