"""
What the specs of all kinds of egress policies have in common.

What it is: the value that the readers of each kind return, and the readers of its
parts that are the same everywhere.

What it is not: the fields' names; ``parse_nat`` and ``parse_gateway`` know those.
"""

from collections.abc import Callable
from dataclasses import dataclass

from outgate.policy.fields import Field
from outgate.policy.literals import parse_networks
from outgate.policy.model import Gateway, Rule
from outgate.policy.never import is_of_one_link
from outgate.state.entries import Address, Network

MAX_RULES = 1000
"""Rules of one policy: the CRDs bound what their CEL rules may cost."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A spec as far as it can be read; empty where something is wrong."""

    rules: tuple[Rule, ...] = ()
    destinations: tuple[Network, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    excluded: tuple[Network, ...] = ()


def parse_rules(
    rules: Field, parse_rule: Callable[[Field], Rule | None]
) -> tuple[Rule, ...]:
    """
    Read all rules, or return none when one of them is wrong.

    Which pods a policy means is known as a whole or not at all.
    """
    before = len(rules.problems)
    found = [parse_rule(rule) for rule in rules.items(MAX_RULES)]
    if len(rules.problems) > before:
        return ()
    if not found:
        rules.warn("is empty, so no pod is selected; for all pods, add podSelector: {}")
    return tuple(rule for rule in found if rule is not None)


def parse_destinations(destinations: Field) -> tuple[Network, ...]:
    """Read the networks that a policy covers."""
    if destinations.value == []:
        destinations.warn(
            "is empty, so nothing is covered; add a network like 203.0.113.0/24, or"
            " 0.0.0.0/0 and ::/0 for all"
        )
    return parse_networks(destinations)


def warn_of_unanswerable(field: Field, egress_ip: Address) -> None:
    """Tell of an egress IP that no gateway can use."""
    if is_of_one_link(egress_ip) or egress_ip.is_unspecified:
        field.warn(
            f"nobody outside can answer to {egress_ip}, an address of a link, a group"
            " or the host itself; use an address of the gateway that others reach"
        )
