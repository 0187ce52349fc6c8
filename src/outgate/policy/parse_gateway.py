"""
The spec of a CiliumEgressGatewayPolicy (cilium.io/v2).

What it is: its fields, for ``parse``, in both IP families.
What it is not: the choice among gateways; ``gateways`` makes that.
"""

import re
from collections.abc import Sequence

from outgate.policy.fields import Field
from outgate.policy.literals import parse_address, parse_networks
from outgate.policy.model import Gateway, GatewayOnNodes, Rule
from outgate.policy.parse_spec import (
    PolicySpec,
    parse_destinations,
    parse_rules,
    warn_of_unanswerable,
)
from outgate.policy.selectors import Selector, parse_pod_rule, parse_requirements
from outgate.state.entries import Network

API_VERSION = "cilium.io/v2"
KIND = "CiliumEgressGatewayPolicy"

MAX_GATEWAYS = 100
"""Entries of egressGateways: the CRD bounds what its CEL rules may cost."""

_FIELDS = (
    "selectors",
    "destinationCIDRs",
    "excludedCIDRs",
    "egressGateway",
    "egressGateways",
)
_RULE_FIELDS = ("namespaceSelector", "podSelector", "nodeSelector")
_GATEWAY_FIELDS = ("nodeSelector", "interface", "egressIP")

INTERFACE_NAME = re.compile(r"[^/\s]{1,127}")
"""A name or altname of a link, of the kernel's ALTIFNAMSIZ at most."""


def parse_gateway_spec(spec: Field) -> PolicySpec:
    """Read ``spec``; what is wrong goes to its problems."""
    if not spec.require_object(_FIELDS):
        return PolicySpec()
    rules = parse_rules(spec.get("selectors"), _parse_rule)
    destinations = parse_destinations(spec.get("destinationCIDRs"))
    excluded_field = spec.get("excludedCIDRs")
    excluded = () if excluded_field.is_absent else parse_networks(excluded_field)
    gateways = _parse_gateways(spec)
    if not spec.problems:
        _warn_of_needless_exclusions(excluded_field, excluded, destinations)
    return PolicySpec(rules, destinations, gateways, excluded)


def _parse_rule(rule: Field) -> Rule | None:
    if not rule.require_object(_RULE_FIELDS):
        return None
    nodes_field = rule.get("nodeSelector")
    nodes = None if nodes_field.is_absent else _parse_node_selector(nodes_field)
    pods = parse_pod_rule(rule)
    return Rule(pods, nodes) if pods else None


def _parse_node_selector(field: Field) -> Selector:
    return Selector(parse_requirements(field))


def _parse_gateways(spec: Field) -> tuple[Gateway, ...]:
    one, several = spec.get("egressGateway"), spec.get("egressGateways")
    if several.is_absent or several.value == []:
        if one.is_absent:
            spec.refuse(
                "has neither egressGateway nor egressGateways; to say which nodes may"
                " be the gateway, write egressGateway: {nodeSelector: {…}}"
            )
            return ()
        gateway = _parse_gateway(one)
        return (gateway,) if gateway else ()
    if not one.is_absent:
        _parse_gateway(one)
        one.warn("is ignored, because egressGateways is not empty; remove one of them")
    fields = list(several.items(MAX_GATEWAYS))
    found = [_parse_gateway(field) for field in fields]
    for index, gateway in enumerate(found):
        if gateway is not None and gateway in found[:index]:
            fields[index].warn(
                f"is the same as {fields[found.index(gateway)].path}, and gets no"
                " second share of the pods; remove it"
            )
    return tuple(gateway for gateway in found if gateway is not None)


def _parse_gateway(field: Field) -> GatewayOnNodes | None:
    if not field.require_object(_GATEWAY_FIELDS):
        return None
    before = len(field.problems)
    nodes_field = field.get("nodeSelector")
    if nodes_field.is_absent:
        nodes_field.refuse("is missing; to let any node match, write nodeSelector: {}")
        nodes = Selector()
    else:
        nodes = _parse_node_selector(nodes_field)
    interface = _parse_interface(field.get("interface"))
    address_field = field.get("egressIP")
    address = None if address_field.is_absent else parse_address(address_field)
    if interface and not address_field.is_absent:
        field.refuse(
            "has both interface and egressIP; keep one of them: egressIP finds its"
            " interface, and interface its first address"
        )
    if len(field.problems) > before:
        return None
    if address is not None:
        warn_of_unanswerable(address_field, address)
    return GatewayOnNodes(nodes, interface, address, field.path)


def _parse_interface(field: Field) -> str:
    text = "" if field.is_absent else field.text()
    if text and not INTERFACE_NAME.fullmatch(text):
        field.refuse(
            f"{text!r} is no interface name; use at most 127 characters without blanks"
            " and '/', as `ip link` shows it"
        )
    return text or ""


def _warn_of_needless_exclusions(
    field: Field, excluded: Sequence[Network], destinations: Sequence[Network]
) -> None:
    """Tell of excluded networks that are no part of any destination."""
    if not excluded:
        return
    known = frozenset(destinations)
    lengths = {network.prefixlen for network in known}
    for item, network in zip(field.items(), excluded, strict=True):
        wider = [length for length in lengths if length <= network.prefixlen]
        if not any(network.supernet(new_prefix=length) in known for length in wider):
            item.warn(
                f"{network} is in none of destinationCIDRs, so it can only take"
                " traffic from other policies; remove it, or add the network that it is"
                " a part of"
            )
