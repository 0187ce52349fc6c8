"""``apply(diff(desired, actual)) == desired``, whichever keys were touched."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from outgate.state.entries import (
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Key,
    Network,
    NodeEntry,
    NodeKey,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.plan import Operation, Put, diff
from outgate.state.snapshot import Snapshot, policy_rows

ADDRESSES = st.sampled_from([IPv4Address("10.0.1.1") + i for i in range(3)])
NETWORKS: st.SearchStrategy[Network] = st.sampled_from(
    [IPv4Network(f"203.0.{i}.0/24") for i in range(3)]
)
POLICIES = st.integers(1, 3).map(PolicyId)
FATES: st.SearchStrategy[PolicyEntry] = POLICIES.map(NoGateway)
ROWS = st.dictionaries(NETWORKS, FATES, min_size=1).map(RowSet)
SNAPSHOTS = st.builds(
    lambda *parts: {key: value for part in parts for key, value in part.items()},
    st.dictionaries(ADDRESSES.map(NodeKey), st.just(NodeEntry())),
    st.dictionaries(NETWORKS.map(CoveredKey), POLICIES.map(CoveredEntry)),
    st.dictionaries(ADDRESSES.map(RowsKey), ROWS),
    st.dictionaries(
        ADDRESSES.map(EndpointKey), st.just(EndpointEntry(EndpointFlag.POD))
    ),
)


def applied(plan: tuple[Operation, ...], actual: Snapshot) -> Snapshot:
    held = dict(actual)
    for operation in plan:
        if isinstance(operation, Put):
            held[operation.key] = operation.value
        else:
            del held[operation.key]
    return held


@given(SNAPSHOTS, SNAPSHOTS)
def test_the_plan_brings_what_is_to_what_should_be(
    desired: Snapshot, actual: Snapshot
) -> None:
    assert applied(diff(desired, actual), actual) == desired


@given(SNAPSHOTS, SNAPSHOTS, st.data())
def test_touched_keys_are_brought_and_others_stay(
    desired: Snapshot, actual: Snapshot, data: st.DataObject
) -> None:
    keys = list({**desired, **actual})
    touched = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    after = applied(diff(desired, actual, touched=touched), actual)

    assert {key: after.get(key) for key in keys} == {
        key: (desired if key in touched else actual).get(key) for key in keys
    }


@given(SNAPSHOTS, SNAPSHOTS)
def test_who_keeps_all_loses_no_row(desired: Snapshot, actual: Snapshot) -> None:
    after = dict(
        policy_rows(applied(diff(desired, actual, lambda key, value: True), actual))
    )

    assert after == dict(policy_rows(actual)) | dict(policy_rows(desired))


@given(SNAPSHOTS, SNAPSHOTS, POLICIES)
def test_what_is_kept_of_one_policy_is_all_of_it(
    desired: Snapshot, actual: Snapshot, bad: PolicyId
) -> None:
    def keep(key: Key | PolicyKey, value: Value | PolicyEntry) -> bool:
        return isinstance(value, NoGateway) and value.policy == bad

    after = dict(policy_rows(applied(diff(desired, actual, keep), actual)))
    kept = {key: row for key, row in policy_rows(actual) if keep(key, row)}

    assert after == kept | dict(policy_rows(desired))
