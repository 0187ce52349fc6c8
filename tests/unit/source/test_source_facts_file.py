"""Facts from a file: what they become, and how all that is wrong is named."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from outgate.errors import SourceError
from outgate.source.facts_file import load_facts
from outgate.state.entries import InterfaceIndex
from outgate.state.facts import Link, NodeFacts

FACTS = """\
interfaces:
- name: eth0
  altnames: [enp1s0, uplink]
  addresses: [192.0.2.7/24, 192.0.2.1, "2001:db8::7/64"]
- name: eth1
defaultRoute: {ipv4: eth0, ipv6: uplink}
"""


def _load(tmp_path: Path, text: str) -> NodeFacts:
    path = tmp_path / "facts.yaml"
    path.write_text(text)
    return load_facts(path)


def _refusal(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SourceError) as refused:
        _load(tmp_path, text)
    prefix = f"{tmp_path}/facts.yaml: "
    return [line.removeprefix(prefix) for line in str(refused.value).splitlines()]


def test_facts_keep_the_order_of_addresses_with_or_without_a_prefix(
    tmp_path: Path,
) -> None:
    assert _load(tmp_path, FACTS) == NodeFacts(
        links=(
            Link(
                "eth0",
                InterfaceIndex(1),
                addresses=(
                    IPv4Address("192.0.2.7"),
                    IPv4Address("192.0.2.1"),
                    IPv6Address("2001:db8::7"),
                ),
                altnames=("enp1s0", "uplink"),
            ),
            Link("eth1", InterfaceIndex(2)),
        ),
        default_interface="eth0",
        default_interface_v6="eth0",
    )


@pytest.mark.parametrize(
    "text", ["{}", "interfaces: []", "defaultRoute: {}", "defaultRoute: {ipv6: ''}"]
)
def test_facts_may_leave_out_everything(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, text) == NodeFacts()


def test_facts_may_be_json(tmp_path: Path) -> None:
    facts = _load(tmp_path, '{"interfaces": [{"name": "eth0"}]}')

    assert [link.name for link in facts.links] == ["eth0"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{interfaces: [{name: eth0}], defaultRoute: {ipv4: eth7, ipv6: eth8}}",
            [
                "defaultRoute.ipv4: there is no interface 'eth7'; use one of: eth0",
                "defaultRoute.ipv6: there is no interface 'eth8'; use one of: eth0",
            ],
        ),
        (
            "{interfaces: [{name: a, addresses: [192.0.2.300, 'fe80::1%a/64']}]}",
            [
                "interfaces[0].addresses[0]: '192.0.2.300' is no IP address; write it"
                " like 203.0.113.7 or 2001:db8::7",
                "interfaces[0].addresses[1]: 'fe80::1%a' has a zone, which means"
                " something on one node only",
            ],
        ),
        (
            "{interfaces: [{addresses: 192.0.2.1}, {name: 5}]}",
            [
                "interfaces[0].addresses: must be a list, not the string '192.0.2.1'",
                "interfaces[0].name: is missing; write a string",
                "interfaces[1].name: must be a string, not the number 5 (quote it)",
            ],
        ),
        (
            "{interfaces: [{name: a, altnames: [b]}, {name: b}]}",
            [
                "interfaces: 'b' is a name of items 0 and 1; give each interface names"
                " of its own"
            ],
        ),
        (
            "{interface: [], defaultRoute: {v4: a}}",
            [
                "interface: unknown field; there are: defaultRoute, interfaces",
                "defaultRoute.v4: unknown field; there are: ipv4, ipv6",
            ],
        ),
        (
            "{interfaces: [{name: ''}]}",
            ["interfaces[0].name: is empty; write it as `ip link` shows it"],
        ),
        ("[]", ["must be an object, not a list"]),
        ("a: 1\n---\nb: 1", ["facts are one document, not 2"]),
        ("", ["facts are one document, not 0"]),
    ],
)
def test_facts_that_are_wrong_are_refused_with_each_path(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    assert _refusal(tmp_path, text) == said


def test_facts_that_are_no_yaml_are_refused_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"facts\.yaml: no YAML"):
        _load(tmp_path, "interfaces: [")


def test_facts_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.yaml: No such file"):
        load_facts(tmp_path / "none.yaml")
