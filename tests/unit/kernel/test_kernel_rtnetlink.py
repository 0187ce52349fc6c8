import pytest

from outgate.kernel.rtnetlink import attributes, parse_attributes


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
