import socket

import pytest

from outgate.kernel.rtnetlink import (
    DUMPS,
    HEADER,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    RouteSocket,
    attributes,
    parse_attributes,
)


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attributes({1: b"bpf\0", 2: b"x"}).hex(" ", 4) == (
        "08000100 62706600 05000200 78000000"
    )


def test_attributes_are_read_back() -> None:
    given = {1: b"clsact\0", 2: b"", 7: b"name"}

    assert parse_attributes(attributes(given)) == given


def test_the_flag_of_a_nested_attribute_is_no_part_of_its_type() -> None:
    assert parse_attributes(bytes.fromhex("05000280 2a000000")) == {2: b"*"}


@pytest.mark.parametrize("raw", ["", "0800", "00000100", "03000100 61626364"])
def test_what_is_no_attribute_ends_the_list(raw: str) -> None:
    assert parse_attributes(bytes.fromhex(raw)) == {}


class Scripted:
    """A socket that answers each dump with the next of *answers*."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers

    def send(self, raw: bytes) -> None:
        """Take the request."""

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


def message(kind: int, content: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(content), kind, flags, 1, 0) + content


DONE = message(NLMSG_DONE, bytes(4))
CUT_SHORT = message(16, b"eth0", NLM_F_DUMP_INTR) + message(
    NLMSG_DONE, bytes(4), NLM_F_DUMP_INTR
)
WHOLE = message(16, b"eth0") + message(16, b"eth1") + DONE


def asking(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> RouteSocket:
    scripted = Scripted(list(answers))
    monkeypatch.setattr(socket, "socket", lambda *_: scripted)
    return RouteSocket()


def test_a_dump_that_a_change_interrupted_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may lack links and addresses that were there all the time."""
    route = asking(monkeypatch, CUT_SHORT, CUT_SHORT, WHOLE)

    assert route.dump_whole(18, b"") == [b"eth0", b"eth1"]


def test_a_dump_that_is_always_interrupted_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    route = asking(monkeypatch, *[CUT_SHORT] * DUMPS)

    with pytest.raises(InterruptedError):
        route.dump_whole(18, b"")
