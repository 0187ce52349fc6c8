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
    RowSet,
    RowsKey,
    Value,
    ViaGateway,
)
from outgate.state.plan import Put, Remove, diff, keep_but_inheritances, keep_none

POD = IPv4Address("10.0.1.7")
NETWORK = IPv4Network("203.0.113.0/24")
GATEWAY = IPv4Address("192.0.2.1")

COVERED: tuple[Key, Value] = (CoveredKey(NETWORK), CoveredEntry(PolicyId(1)))
VIA = ViaGateway(GATEWAY, GATEWAY, PolicyId(1))
ROW: tuple[Key, Value] = (RowsKey(POD), RowSet({NETWORK: VIA}))
OTHER = IPv4Network("198.51.100.0/24")
ENDPOINT: tuple[Key, Value] = (EndpointKey(POD), EndpointEntry(EndpointFlag.POD))
ATTACHED: tuple[Key, Value] = (
    AttachmentKey("veth1", Hook.FROM_CONTAINER),
    Attachment.CURRENT,
)


KEEP_ALL = keep_but_inheritances({}, {}, keep_none)


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
        RowsKey(IPv4Address("10.0.1.8")),
        RowSet({OTHER: VIA}),
    )

    assert diff(dict([other]), dict([ROW])) == (Put(*other), Remove(ROW[0]))


def test_diff_replaces_a_changed_value_with_one_put() -> None:
    key = ROW[0]
    changed = RowSet({NETWORK: NoGateway(PolicyId(1))})

    assert diff({key: changed}, dict([ROW])) == (Put(key, changed),)


def test_diff_keeps_what_it_is_told_to_keep() -> None:
    assert diff({}, dict([ROW]), keep=lambda key, value: True) == ()


def test_diff_of_equals_is_empty() -> None:
    assert diff(dict([ROW]), dict([ROW])) == ()


def test_diff_looks_at_touched_keys_only() -> None:
    assert diff(dict([COVERED, ROW]), {}, touched=[ROW[0]]) == (Put(*ROW),)
    assert diff({}, dict([COVERED, ROW]), touched=[ROW[0]]) == (Remove(ROW[0]),)


def test_diff_keeps_single_rows_beside_what_is_wanted() -> None:
    bad, gone = IPv4Network("192.0.2.0/24"), IPv4Network("192.0.3.0/24")
    of_bad, of_gone = NoGateway(PolicyId(2)), NoGateway(PolicyId(3))
    actual: dict[Key, Value] = {RowsKey(POD): RowSet({bad: of_bad, gone: of_gone})}

    def keep(key: object, value: object) -> bool:
        return (key, value) == (PolicyKey(POD, bad), of_bad)

    expected = Put(RowsKey(POD), RowSet({NETWORK: VIA, bad: of_bad}))
    assert diff(dict([ROW]), actual, keep) == (expected,)
    assert diff({}, actual, keep) == (Put(RowsKey(POD), RowSet({bad: of_bad})),)


def test_diff_of_rows_that_are_all_kept_is_empty() -> None:
    desired: dict[Key, Value] = {RowsKey(POD): RowSet({OTHER: VIA})}
    actual: dict[Key, Value] = {RowsKey(POD): RowSet({OTHER: VIA, NETWORK: VIA})}

    assert diff(desired, actual, KEEP_ALL) == ()


def test_diff_gives_pods_of_one_fate_one_set_of_kept_rows() -> None:
    pods = [RowsKey(POD + i) for i in range(3)]
    wanted, there = RowSet({OTHER: VIA}), RowSet({NETWORK: VIA})
    plan = diff(dict.fromkeys(pods, wanted), dict.fromkeys(pods, there), KEEP_ALL)

    assert len({id(step.value) for step in plan if isinstance(step, Put)}) == 1


def test_an_empty_set_of_rows_is_none() -> None:
    empty: dict[Key, Value] = {RowsKey(POD): RowSet({})}

    assert diff(empty, {}) == ()
    assert diff(empty, dict([ROW])) == (Remove(ROW[0]),)


def test_diff_takes_the_rows_of_a_former_owner_before_the_new_one_is_known() -> None:
    heir = EndpointEntry(EndpointFlag.POD, owner=2)
    desired: dict[Key, Value] = {EndpointKey(POD): heir}

    assert diff(desired, dict([ENDPOINT, ROW])) == (
        Remove(EndpointKey(POD)),
        Remove(RowsKey(POD)),
        Put(EndpointKey(POD), heir),
    )


def test_diff_keeps_a_pod_known_whose_rows_go() -> None:
    desired = dict([ENDPOINT])

    assert diff(desired, dict([ENDPOINT, ROW])) == (Remove(RowsKey(POD)),)
