"""
What a node observes of itself, from a YAML or JSON file instead of a kernel.

What it is: the reader of ``outgate policy plan --facts``.  All that is wrong is named
by its path, with the mend::

    interfaces:
    - name: eth0
      altnames: [enp1s0]
      addresses: [192.0.2.7/24, "2001:db8::7/64"]
    defaultRoute: {ipv4: eth0, ipv6: eth0}

What it is not: ``kernel``, which makes the same value of what a node has.
"""

from collections.abc import Iterable
from ipaddress import ip_interface
from pathlib import Path

from outgate.errors import SourceError
from outgate.policy.fields import Field
from outgate.policy.literals import read_address
from outgate.source.files import name_of, read_yaml
from outgate.state.entries import Address, InterfaceIndex
from outgate.state.facts import Link, NodeFacts

_FIELDS = ("interfaces", "defaultRoute")
_INTERFACE_FIELDS = ("name", "altnames", "addresses")
_ROUTE_FIELDS = ("ipv4", "ipv6")


def load_facts(path: Path) -> NodeFacts:
    """
    Return the facts in the file *path*; ``-`` is standard input.

    Errors: ``SourceError`` with the file and all that is wrong in it.
    """
    name = name_of(path)
    documents = [value for value in read_yaml(path) if value is not None]
    if len(documents) != 1:
        count = len(documents)
        raise SourceError(f"{name}: facts are one document, not {count}")
    root = Field(documents[0], "")
    facts = parse_facts(root)
    if root.problems:
        lines = (str(problem).removeprefix(": ") for problem in root.problems)
        raise SourceError("\n".join(f"{name}: {line}" for line in lines))
    return facts


def parse_facts(root: Field) -> NodeFacts:
    """Read facts; what is wrong goes to the field's problems."""
    if not root.require_object(_FIELDS):
        return NodeFacts()
    interfaces = root.get("interfaces")
    found = () if interfaces.is_absent else interfaces.items()
    links = [_parse_link(item, index) for index, item in enumerate(found, 1)]
    _refuse_repeated_names(links, interfaces)
    routes = root.get("defaultRoute")
    default, default_v6 = None, None
    if not routes.is_absent and routes.require_object(_ROUTE_FIELDS):
        default = _parse_route(routes.get("ipv4"), links)
        default_v6 = _parse_route(routes.get("ipv6"), links)
    return NodeFacts(tuple(links), default, default_v6)


def _parse_link(item: Field, index: int) -> Link:
    number = InterfaceIndex(index)
    if not item.require_object(_INTERFACE_FIELDS):
        return Link("", number)
    addresses = [_parse_address(field) for field in _optional_items(item, "addresses")]
    altnames = [field.text() for field in _optional_items(item, "altnames")]
    name = item.get("name")
    if name.value == "":
        name.refuse("is empty; write it as `ip link` shows it")
    return Link(
        name=name.text() or "",
        index=number,
        addresses=tuple(address for address in addresses if address is not None),
        altnames=tuple(name for name in altnames if name is not None),
    )


def _optional_items(item: Field, key: str) -> Iterable[Field]:
    field = item.get(key)
    return () if field.is_absent else field.items()


def _parse_address(field: Field) -> Address | None:
    """Read an address as ``ip address`` shows it, with its prefix length or without."""
    text = field.text()
    if text is None:
        return None
    try:
        ip_interface(text)
    except ValueError:
        return read_address(field, text)
    return read_address(field, text.partition("/")[0])


def _refuse_repeated_names(links: Iterable[Link], interfaces: Field) -> None:
    """Refuse a name that two interfaces have: a kernel gives it to one only."""
    owners: dict[str, int] = {}
    for index, link in enumerate(links):
        for name in filter(None, (link.name, *link.altnames)):
            first = owners.setdefault(name, index)
            if first != index:
                interfaces.refuse(
                    f"{name!r} is a name of items {first} and {index}; give each"
                    " interface names of its own"
                )


def _parse_route(field: Field, links: Iterable[Link]) -> str | None:
    """Return the name of the interface with a default route, None without one."""
    if field.is_absent or field.value == "":
        return None
    given = field.text()
    for link in links:
        if given and given in (link.name, *link.altnames):
            return link.name
    if given is not None:
        known = ", ".join(link.name for link in links) or "none"
        field.refuse(f"there is no interface {given!r}; use one of: {known}")
    return None
