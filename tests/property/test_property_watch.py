"""Whatever a server does in whatever order, the items end up as the server's are."""

from hypothesis import given
from hypothesis import strategies as st

from outgate.source.watch import (
    Bookmark,
    Deleted,
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Reflection,
    Stored,
    Wait,
)

CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3))),
    max_size=30,
)
FAULTS = st.lists(
    st.one_of(st.none(), st.sampled_from((0, 410, 429, 500, 403, 404))),
    max_size=30,
)


class Server:
    """An API server of one kind: a log of changes, and the state at each version."""

    def __init__(self, changes: list[tuple[str, int | None]]) -> None:
        self.states: list[dict[str, int]] = [{}]
        self.log = list(changes)
        for key, value in changes:
            state = dict(self.states[-1])
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
            self.states.append(state)

    def event(self, version: int) -> Stored[int] | Deleted:
        key, value = self.log[version]
        if value is None:
            return Deleted(key, str(version + 1))
        return Stored(key, value, str(version + 1))


@given(CHANGES, FAULTS, st.integers(0, 30))
def test_reflection_converges_through_any_faults(
    changes: list[tuple[str, int | None]], faults: list[int | None], behind: int
) -> None:
    """The first list sees an old state; each fault interrupts one step."""
    server = Server(changes)
    reflection: Reflection[int] = Reflection(may_be_missing=True)
    seen_at_list = max(0, len(changes) - behind)
    now = 0.0
    pending = list(faults)
    for _ in range(200):
        step = reflection.next_step(now)
        if isinstance(step, Wait):
            now += step.seconds
            continue
        fault = pending.pop() if pending else None
        if fault is not None:
            reflection.receive_failure(Failure(fault, "fault"), now, 0.5)
            continue
        if isinstance(step, FetchPage):
            items = tuple(server.states[seen_at_list].items())
            reflection.receive_page(Page(items, str(seen_at_list)))
        elif isinstance(step, OpenWatch):
            reflection.receive_opened(now)
            version = int(step.resource_version)
            if version == len(changes):
                break
            reflection.receive_event(server.event(version))
            reflection.receive_event(Bookmark(""))
            now += 2
            reflection.receive_end(now, 0.5)

    assert reflection.items == server.states[-1]
    assert reflection.is_complete


@given(CHANGES, st.sampled_from((0, 410, 429, 500, 403, 404)))
def test_failure_never_removes_an_item(
    changes: list[tuple[str, int | None]], status: int
) -> None:
    reflection: Reflection[int] = Reflection(may_be_missing=True)
    state = Server(changes).states[-1]
    reflection.receive_page(Page(tuple(state.items()), "1"))
    reflection.receive_failure(Failure(status, "fault"), 0, 0.5)

    assert reflection.items == state
