"""
The small part of JSONPath that printer columns use.

What it is: fields (``.a``, ``.a\\.b``, ``['a']``), positions (``[0]``), all items
(``[*]``) and equality filters (``[?(@.type=="Ready")]``).
What it is not: ``kubectl -o jsonpath``; kubectl evaluates that itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>(?:\\.|[^.\[\\])+)"""
    r"""|\[['"](?P<quoted>[^'"]+)['"]\]"""
    r"""|\[(?P<position>-?\d+)\]"""
    r"""|(?P<all>\[\*\])"""
    r"""|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]"""
)


def find_all(value: Any, path: str) -> list[Any]:
    """
    Every value at *path*; none when the path leads nowhere or cannot be read.

    >>> find_all({"c": [{"t": "A", "s": 1}]}, '.c[?(@.t=="A")].s')
    [1]
    """
    text = path.strip().strip("{}").removeprefix("$")
    if not text.startswith((".", "[")):
        text = f".{text}"
    values = [value]
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            return []
        values = [found for item in values for found in _take(item, step)]
        position = step.end()
    return values


def _take(item: Any, step: re.Match[str]) -> Iterator[Any]:
    field = step["field"] or step["quoted"]
    if field is not None:
        name = field.replace("\\", "")
        if isinstance(item, dict) and name in item:
            yield item[name]
    elif isinstance(item, list):
        if step["all"]:
            yield from item
        elif step["position"] is not None:
            yield from item[int(step["position"]) :][:1]
        else:
            for entry in item:
                if find_all(entry, step["key"]) == [step["value"]]:
                    yield entry
