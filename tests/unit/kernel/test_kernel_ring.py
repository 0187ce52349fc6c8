"""A ring's bytes become records, in order; a picture of each ring is in the test."""

from outgate.kernel.ring import BUSY, DISCARDED, HEADER, Batch, read_records

SIZE = 128


def ring(*pieces: bytes, start: int = 0) -> bytes:
    """Return a ring that holds *pieces* from *start* on, mapped twice."""
    data = bytearray(2 * SIZE)
    for at, byte in enumerate(b"".join(pieces), start):
        data[at % SIZE] = data[at % SIZE + SIZE] = byte
    return bytes(data)


def piece(content: bytes, bits: int = 0) -> bytes:
    padding = bytes(-len(content) % 8)
    return HEADER.pack(len(content) | bits) + content + padding


def test_records_come_in_the_order_in_which_they_were_written() -> None:
    data = ring(piece(b"first"), piece(b"the second"))

    assert Batch((b"first", b"the second"), 40) == read_records(data, SIZE, 0, 40)


def test_a_record_that_is_given_up_is_passed_over() -> None:
    data = ring(piece(b"no", DISCARDED), piece(b"yes"))

    assert Batch((b"yes",), 32) == read_records(data, SIZE, 0, 32)


def test_a_record_that_is_being_written_ends_the_batch() -> None:
    data = ring(piece(b"yes"), piece(b"not yet", BUSY), piece(b"later"))

    assert Batch((b"yes",), 16) == read_records(data, SIZE, 0, 48)


def test_a_record_behind_the_rings_end_is_whole() -> None:
    data = ring(piece(b"over the edge"), start=112)

    assert Batch((b"over the edge",), 136) == read_records(data, SIZE, 112, 136)


def test_positions_never_wrap() -> None:
    start = SIZE * 2**40
    data = ring(piece(b"late"))

    assert Batch((b"late",), start + 16) == read_records(data, SIZE, start, start + 16)


def test_an_empty_ring_has_no_record() -> None:
    assert Batch((), 16) == read_records(bytes(2 * SIZE), SIZE, 16, 16)


def test_a_ring_without_room_for_one_more_is_full() -> None:
    data = ring(piece(bytes(56)), piece(bytes(56)))

    assert read_records(data, SIZE, 0, 128).is_full


def test_a_ring_with_room_for_one_more_is_not_full() -> None:
    data = ring(piece(bytes(8)), piece(bytes(8)))

    assert not read_records(data, SIZE, 0, 32).is_full
