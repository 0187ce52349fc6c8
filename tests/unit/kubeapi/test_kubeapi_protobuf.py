"""The few protobuf bodies that kubectl insists on."""

from __future__ import annotations

import pytest

from outgate.kubeapi.protobuf import MAGIC, decode_envelope


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def envelope(kind: str, raw: bytes) -> bytes:
    head = field(1, b"v1") + field(2, kind.encode())
    return MAGIC + field(1, head) + field(2, raw) + field(4, b"")


def test_config_map_is_read() -> None:
    meta = field(1, b"cm") + field(3, b"") + field(11, field(1, b"k") + field(2, b"v"))
    raw = field(1, meta) + field(2, field(1, b"a") + field(2, b"b")) + field(4, 1)

    assert decode_envelope(envelope("ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "labels": {"k": "v"}},
        "data": {"a": "b"},
        "immutable": True,
    }


def test_secret_bytes_become_base64() -> None:
    raw = field(2, field(1, b"k") + field(2, b"\x00\xff"))

    assert decode_envelope(envelope("Secret", raw))["data"] == {"k": "AP8="}


def test_delete_options_keep_a_grace_of_zero() -> None:
    options = decode_envelope(envelope("DeleteOptions", field(1, 0)))

    assert options["gracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        envelope("Pod", b""),
        envelope("ConfigMap", b"\x0a\x7f"),
        envelope("ConfigMap", b"\x80"),
        envelope("ConfigMap", b"\x0d1234"),
    ],
)
def test_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        decode_envelope(body)
