"""Events on policies: what is news, how often, and what users then read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from outgate.controller.events import Events
from outgate.controller.notices import (
    BURST,
    REFILL_SECONDS,
    Allowance,
    Notice,
    Subject,
    notices,
)
from outgate.source.client import Client
from unit.controller.api import read, until

SUBJECT = Subject("cilium.io/v2", "CiliumEgressGatewayPolicy", "web", "uid-1")


def of(truth: str, reason: str = "Why") -> dict[str, Any]:
    condition = {"type": "Programmed", "status": truth, "reason": reason}
    return {"conditions": [{**condition, "message": "because"}]}


NORMAL = ("Normal", "Programmed")
WARNING = ("Warning", "Failed")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, of("True"), [NORMAL]),
        ({}, of("False", "Failed"), [WARNING]),
        ({}, of("Unknown"), []),
        (of("True"), of("True", "Other"), []),
        (of("True"), of("False", "Failed"), [WARNING]),
        (of("False", "Failed"), of("False", "Failed"), []),
        (of("False", "Other"), of("False", "Failed"), [WARNING]),
        (of("False", "Failed"), of("True"), [NORMAL]),
        (of("True"), of("False", "Pending"), []),
        ({"conditions": "nonsense"}, of("True"), [NORMAL]),
    ],
)
def test_notices_are_what_changed(
    before: dict[str, Any], after: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = notices(SUBJECT, before, after)

    assert expected == [(notice.type, notice.reason) for notice in found]


def test_allowance_of_a_policy_that_flaps_is_one_a_minute() -> None:
    allowance = Allowance()
    assert all(allowance.take("u", 0.0) for _ in range(BURST))

    assert not allowance.take("u", REFILL_SECONDS / 2)
    assert allowance.take("u", REFILL_SECONDS)
    assert not allowance.take("u", REFILL_SECONDS)


def test_allowance_is_of_one_policy() -> None:
    allowance = Allowance()
    while allowance.take("u", 0.0):
        pass

    assert allowance.take("other", 0.0)


def test_allowance_forgets_the_quiet_ones() -> None:
    allowance = Allowance()
    allowance.take("u", 0.0)
    allowance.forget_full(BURST * REFILL_SECONDS)

    assert 0 == len(allowance)


@pytest.fixture
async def events(client: Client) -> AsyncIterator[Events]:
    events = Events(client, "controller-1")
    task = asyncio.create_task(events.run())
    yield events
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_events_are_written_for_kubectl_describe(
    client: Client, events: Events
) -> None:
    events.tell(Notice(SUBJECT, "Warning", "NoEgressIP", "eth1 has no IPv4 address"))
    await until(lambda: events.written)
    params = {"fieldSelector": "involvedObject.uid=uid-1"}
    found = await client.request("GET", "/api/v1/events", params=params)

    [event] = found["items"]
    assert "eth1 has no IPv4 address" == event["message"]
    assert ("Warning", "NoEgressIP") == (event["type"], event["reason"])
    assert "outgate-controller" == event["source"]["component"]


async def test_events_of_the_same_notice_are_counted(
    client: Client, events: Events
) -> None:
    notice = Notice(SUBJECT, "Warning", "NoEgressIP", "eth1 has no IPv4 address")
    for _ in range(3):
        events.tell(notice)
    await until(lambda: events.written == 3)

    found = await read(client, "/api/v1/namespaces/default/events")
    assert [3] == [event["count"] for event in found["items"]]


async def test_events_that_the_api_forgot_are_written_anew(
    client: Client, events: Events
) -> None:
    notice = Notice(SUBJECT, "Normal", "Programmed", "done")
    events.tell(notice)
    await until(lambda: events.written)
    await client.request("DELETE", "/api/v1/namespaces/default/events")
    events.tell(notice)
    await until(lambda: events.written == 2)

    found = await read(client, "/api/v1/namespaces/default/events")
    assert [1] == [event["count"] for event in found["items"]]


async def test_events_that_the_api_refuses_stop_nothing(
    client: Client, events: Events
) -> None:
    bad = Subject("v1", "Policy", "NOT A NAME", "uid-2")
    events.tell(Notice(bad, "Normal", "Programmed", "done"))
    events.tell(Notice(SUBJECT, "Normal", "Programmed", "done"))
    await until(lambda: events.written)

    assert (1, 1) == (events.written, events.refused)
