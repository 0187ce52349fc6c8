"""Label and field selectors."""

from __future__ import annotations

import pytest

from outgate.kubeapi.selectors import Selector, parse_fields, parse_labels
from outgate.kubeapi.status import ApiError

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (db, web)", True),
        ("app notin (db,web)", False),
        ("missing notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("example.test/key=", False),
    ],
)
def test_label_selector_selects(text: str, selected: bool) -> None:
    selector = Selector(labels=parse_labels(text))

    assert selector.matches(LABELS, lambda _: "") is selected


@pytest.mark.parametrize("text", ["app in web", "a=b=c", "=x", "a in (b", "a b"])
def test_label_selector_that_is_none_is_a_bad_request(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_labels(text)

    assert caught.value.code == 400


def test_field_selector_joins_terms() -> None:
    terms = parse_fields("spec.nodeName=n1,status.phase!=Failed", _FIELDS)
    selector = Selector(fields=terms)

    assert selector.matches({}, {"spec.nodeName": "n1", "status.phase": ""}.__getitem__)
    assert not selector.matches(
        {}, {"spec.nodeName": "n1", "status.phase": "Failed"}.__getitem__
    )


def test_field_selector_of_an_unknown_field_is_a_bad_request() -> None:
    with pytest.raises(ApiError, match=r"field label not supported: spec\.x"):
        parse_fields("spec.x=1", _FIELDS)


_FIELDS = ("spec.nodeName", "status.phase")
