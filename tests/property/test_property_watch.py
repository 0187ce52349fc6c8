"""Whatever a server does in whatever order, the items end up as the server's are."""

from hypothesis import given
from hypothesis import strategies as st

from outgate.source.answers import (
    Bookmark,
    Deleted,
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Stored,
    StreamList,
    Wait,
)
from outgate.source.timing import Timing
from outgate.source.watch import Reflection

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


@given(CHANGES, FAULTS, st.integers(0, 30), st.booleans())
def test_reflection_converges_through_any_faults(
    changes: list[tuple[str, int | None]],
    faults: list[int | None],
    behind: int,
    can_stream: bool,
) -> None:
    """The first list sees an old state; each fault interrupts one step."""
    server = Server(changes)
    reflection: Reflection[int] = Reflection(
        Timing(confirm=0), may_be_missing=True, can_stream=can_stream
    )
    seen_at_list = max(0, len(changes) - behind)
    listed = [Stored(k, v, "0") for k, v in server.states[seen_at_list].items()]
    now = 0.0
    pending = list(faults)
    for _ in range(300):
        step = reflection.next_step(now)
        if isinstance(step, Wait):
            now += step.seconds
            continue
        fault = pending.pop() if pending else None
        if fault is not None:
            reflection.receive_failure(Failure(fault, "fault"), now, 0.5)
            continue
        if isinstance(step, FetchPage):
            page = Page(tuple(listed), str(seen_at_list))
            reflection.receive_page(page, now, 0.5)
        elif isinstance(step, StreamList):
            reflection.receive_opened(now)
            for item in listed:
                reflection.receive_event(item, now, 0.5)
            mark = Bookmark(str(seen_at_list), ends_list=True)
            reflection.receive_event(mark, now, 0.5)
        elif isinstance(step, OpenWatch):
            reflection.receive_opened(now)
            version = int(step.resource_version)
            if version == len(changes):
                break
            for late in range(max(0, version - 2), version + 1):
                reflection.receive_event(server.event(late), now, 0.5)
            reflection.receive_event(Bookmark(""), now, 0.5)
            now += 2
            reflection.receive_end(now, 0.5)

    assert _items(reflection) == server.states[-1]
    assert reflection.is_complete


@given(CHANGES, st.sampled_from((0, 410, 429, 500, 403, 404)))
def test_failure_never_removes_an_item(
    changes: list[tuple[str, int | None]], status: int
) -> None:
    reflection: Reflection[int] = Reflection(may_be_missing=True, can_stream=False)
    state = Server(changes).states[-1]
    items = tuple(Stored(key, value, "1") for key, value in state.items())
    reflection.receive_page(Page(items, "1"), 0, 0.5)
    reflection.receive_failure(Failure(status, "fault"), 0, 0.5)

    assert _items(reflection) == state


def _items(reflection: Reflection[int]) -> dict[str, int]:
    return {key: held.value for key, held in reflection.items.items()}
