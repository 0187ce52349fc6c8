"""The order of a plan is a promise: adds first, what is read before who reads it."""

from ipaddress import IPv4Address, IPv4Network

from outgate.state.entries import (
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
    Key,
    NoGateway,
    PolicyId,
    PolicyKey,
    Value,
    ViaGateway,
)
from outgate.state.plan import Put, Remove, diff

POD = IPv4Address("10.0.1.7")
NETWORK = IPv4Network("203.0.113.0/24")
GATEWAY = IPv4Address("192.0.2.1")

COVERED: tuple[Key, Value] = (CoveredKey(NETWORK), CoveredEntry(PolicyId(1)))
ROW: tuple[Key, Value] = (
    PolicyKey(POD, NETWORK),
    ViaGateway(GATEWAY, GATEWAY, PolicyId(1)),
)
ENDPOINT: tuple[Key, Value] = (EndpointKey(POD), EndpointEntry(EndpointFlag.POD))
ATTACHED: tuple[Key, Value] = (
    AttachmentKey("veth1", Hook.FROM_CONTAINER),
    Attachment.CURRENT,
)


def test_diff_puts_rows_before_the_pod_and_attaches_last() -> None:
    desired = dict([ATTACHED, ENDPOINT, ROW, COVERED])

    expected = tuple(Put(*entry) for entry in (COVERED, ROW, ENDPOINT, ATTACHED))
    assert expected == diff(desired, {})


def test_diff_attaches_the_guard_and_the_way_back_before_pods_are_captured() -> None:
    desired: dict[Key, Value] = {
        AttachmentKey(interface, hook): Attachment.CURRENT
        for interface, hooks in (
            ("cali1", (Hook.FROM_CONTAINER, Hook.TO_CONTAINER)),
            ("ens3", (Hook.FROM_NETDEV, Hook.TO_NETDEV)),
            ("outgate_vx", (Hook.FROM_OVERLAY,)),
        )
        for hook in hooks
    }

    assert [operation.key for operation in diff(desired, {})] == [
        AttachmentKey("ens3", Hook.TO_NETDEV),
        AttachmentKey("ens3", Hook.FROM_NETDEV),
        AttachmentKey("outgate_vx", Hook.FROM_OVERLAY),
        AttachmentKey("cali1", Hook.TO_CONTAINER),
        AttachmentKey("cali1", Hook.FROM_CONTAINER),
    ]


def test_diff_removes_in_the_reverse_order() -> None:
    actual = dict([ROW, COVERED, ENDPOINT])

    expected = tuple(Remove(key) for key, _ in (ENDPOINT, ROW, COVERED))
    assert expected == diff({}, actual)


def test_diff_adds_before_it_removes() -> None:
    other: tuple[Key, Value] = (
        PolicyKey(POD, IPv4Network("198.51.100.0/24")),
        ViaGateway(GATEWAY, GATEWAY, PolicyId(1)),
    )

    assert diff(dict([other]), dict([ROW])) == (Put(*other), Remove(ROW[0]))


def test_diff_replaces_a_changed_value_with_one_put() -> None:
    key = ROW[0]
    changed = NoGateway(PolicyId(1))

    assert diff({key: changed}, dict([ROW])) == (Put(key, changed),)


def test_diff_keeps_what_it_is_told_to_keep() -> None:
    assert diff({}, dict([ROW]), keep=lambda key, value: True) == ()


def test_diff_of_equals_is_empty() -> None:
    assert diff(dict([ROW]), dict([ROW])) == ()
