"""
``outgate monitor``: what happens to flows and packets of this node, one line each.

Reads the pinned ring of events, with or without an agent; the agent only adds the
names of policies.  It is the ring's one reader while it runs.  What nobody reads is
kept until the ring is full; what is told while it is full is lost, packets never are.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from outgate.agent.ask import AgentAbsentError, ask
from outgate.cli.render import PROTOCOLS, Output, address_text, policy_text
from outgate.cli.show import (
    DEFAULT_SOCKET,
    OutputOption,
    PinOption,
    SocketOption,
    find_pin_dir,
)
from outgate.errors import ConfigError, KernelError
from outgate.kernel.events import Event, EventKind, decode_event
from outgate.kernel.maps import MapName
from outgate.kernel.records import FlowDecision
from outgate.kernel.ring import Ring
from outgate.state.entries import Address

PAUSE_SECONDS = 0.05
"""Between two looks at the ring: programs wake nobody, because that costs them."""

LOST = "outgate: the ring of events was full: some may be lost"

Names = Mapping[int, str]
"""Policies as users write them, by the number that the datapath knows."""


class KindChoice(StrEnum):
    """Kinds of events as arguments name them."""

    FLOW_OPENED = "flow-opened"
    FLOW_CLOSED = "flow-closed"
    NAT_MADE = "nat-made"
    NAT_RELEASED = "nat-released"
    DROP = "drop"


def kind_name(kind: EventKind) -> str:
    """
    Return the kind as it is printed.

    >>> kind_name(EventKind.NAT_MADE)
    'nat-made'
    """
    return kind.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are printed; what is empty or None means all."""

    kinds: frozenset[str] = frozenset()
    pod: Address | None = None
    policy: str = ""

    def accepts(self, event: Event, names: Names) -> bool:
        """Tell whether *event* is one of those."""
        if self.kinds and kind_name(event.kind) not in self.kinds:
            return False
        if self.pod and self.pod not in (event.source, event.destination):
            return False
        name = names.get(event.policy, "")
        known = (name, name.rpartition(" ")[2], f"{event.policy:#010x}")
        return not self.policy or self.policy in known


def event_fields(event: Event, names: Names, started: float) -> dict[str, Any]:
    """
    Return *event* as JSON has it; what does not apply is null.

    Units: *started* is the wall clock's time, in seconds, at zero of the event's.
    """
    at = datetime.fromtimestamp(started + event.nanoseconds / 1e9, UTC)
    translated = event.translated
    return {
        "time": at.isoformat(timespec="microseconds"),
        "kind": kind_name(event.kind),
        "reason": event.reason or None,
        "direction": event.direction.name.lower(),
        "protocol": PROTOCOLS.get(event.protocol, str(event.protocol)),
        "source": str(event.source),
        "sourcePort": event.source_port,
        "destination": str(event.destination),
        "destinationPort": event.destination_port,
        "translated": None if translated is None else str(translated),
        "translatedPort": event.translated_port or None,
        "decision": None if event.decision is None else event.decision.name.lower(),
        "policyId": event.policy or None,
        "policy": names.get(event.policy),
    }


def event_line(event: Event, names: Names, started: float) -> str:
    """Return *event* as one line for people."""
    fields = event_fields(event, names, started)
    source = address_text(event.source, event.source_port)
    destination = address_text(event.destination, event.destination_port)
    words = [
        f"{fields['time'][11:23]} {fields['kind']:<12} {fields['protocol']}",
        f"{source} -> {destination}",
        *_translation(event),
    ]
    if event.reason:
        words += [event.reason, fields["direction"]]
    if event.decision is FlowDecision.INBOUND:
        words.append("began outside")
    if event.policy:
        words.append(names.get(event.policy) or policy_text(event.policy))
    return " ".join(words)


def _translation(event: Event) -> Iterator[str]:
    if event.translated is None:
        return
    is_pair = event.kind in (EventKind.NAT_MADE, EventKind.NAT_RELEASED)
    port = event.translated_port
    yield f"as {address_text(event.translated, port) if is_pair else event.translated}"


def follow(ring: Ring, pause: Callable[[], None]) -> Iterator[Event]:
    """Yield events for ever, and say on standard error where some may be missing."""
    is_told = False
    while True:
        batch = ring.read()
        if batch.is_full and not is_told:
            print(LOST, file=sys.stderr)
        is_told = batch.is_full
        for record in batch.records:
            if event := decode_event(record):
                yield event
            else:
                print(f"outgate: an unknown event: {record.hex()}", file=sys.stderr)
        if not batch.records:
            pause()


def policy_names(socket: Path) -> dict[int, str]:
    """Return what the running agent calls its policies; nothing without an agent."""
    try:
        answer = ask(socket, "/policies")
    except AgentAbsentError:
        return {}
    return {policy["id"]: policy["name"] for policy in answer["policies"]}


class _Names(dict[int, str]):
    """Names that are asked for once, and once more a second where one is missing."""

    def __init__(self, socket: Path) -> None:
        super().__init__(policy_names(socket))
        self._socket, self._asked = socket, time.monotonic()

    def learn(self, policy: int) -> None:
        if policy and policy not in self and time.monotonic() > self._asked + 1:
            self.update(policy_names(self._socket))
            self._asked = time.monotonic()


def _pod(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise ConfigError(f"--pod: '{text}' is no address") from error


def _open(pin_dir: Path) -> Ring:
    try:
        return Ring(pin_dir / MapName.EVENTS)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        raise ConfigError(
            f"no events are pinned in {pin_dir}; start an agent, or give --pin"
        ) from error


app = typer.Typer(add_completion=False)


@app.command()
def monitor(
    kind: Annotated[
        list[KindChoice] | None, typer.Option("--kind", help="Only these; repeatable.")
    ] = None,
    pod: Annotated[str, typer.Option(help="Only from or to this address.")] = "",
    policy: Annotated[str, typer.Option(help="Only of this policy: name or id.")] = "",
    drops: Annotated[bool, typer.Option("--drops", help="Only drops.")] = False,
    count: Annotated[int, typer.Option(help="End after so many; 0: never.")] = 0,
    history: Annotated[
        bool, typer.Option("--history", help="Begin with what nobody has read yet.")
    ] = False,
    pin: PinOption = None,
    socket: SocketOption = DEFAULT_SOCKET,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print what happens to flows, translations and dropped packets, as it happens."""
    kinds = {*(kind or ()), *((KindChoice.DROP,) if drops else ())}
    wanted = Filter(frozenset(kinds), _pod(pod) if pod else None, policy)
    with _open(find_pin_dir(pin, socket)) as ring, suppress(KeyboardInterrupt):
        if not history:
            ring.skip()
        names = _Names(socket)
        events = _accepted(
            follow(ring, lambda: time.sleep(PAUSE_SECONDS)), wanted, names
        )
        _print(events, names, output, count)


def _accepted(
    events: Iterable[Event], wanted: Filter, names: _Names
) -> Iterator[Event]:
    for event in events:
        names.learn(event.policy)
        if wanted.accepts(event, names):
            yield event


def _print(events: Iterable[Event], names: Names, output: Output, count: int) -> None:
    started = time.time() - time.monotonic()
    try:
        for number, event in enumerate(events, 1):
            if output is Output.JSON:
                print(json.dumps(event_fields(event, names, started)), flush=True)
            else:
                print(event_line(event, names, started), flush=True)
            if number == count:
                return
    except BrokenPipeError:
        # Whoever read is gone; the interpreter would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
