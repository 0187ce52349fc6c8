"""
The spec of a CiliumEgressNATPolicy (cilium.io/v2alpha1).

What it is: its fields, for ``parse``.
What it is not: the meaning of egressSourceIP, which is gateway and egress IP at once;
``model.GatewayAtAddress`` tells that.
"""

from outgate.policy.fields import Field
from outgate.policy.literals import read_address
from outgate.policy.model import GatewayAtAddress, Rule
from outgate.policy.parse_spec import (
    PolicySpec,
    parse_destinations,
    parse_rules,
    warn_of_unanswerable,
)
from outgate.policy.selectors import parse_pod_rule
from outgate.state.entries import Address

API_VERSION = "cilium.io/v2alpha1"
KIND = "CiliumEgressNATPolicy"

_FIELDS = ("egress", "destinationCIDRs", "egressSourceIP")
_RULE_FIELDS = ("namespaceSelector", "podSelector")


def parse_nat_spec(spec: Field) -> PolicySpec:
    """Read ``spec``; what is wrong goes to its problems."""
    if not spec.require_object(_FIELDS):
        return PolicySpec()
    rules = parse_rules(spec.get("egress"), _parse_rule)
    destinations = parse_destinations(spec.get("destinationCIDRs"))
    address = _parse_egress_ip(spec.get("egressSourceIP"))
    return PolicySpec(
        rules=rules,
        destinations=destinations,
        gateways=(GatewayAtAddress(address),) if address else (),
    )


def _parse_rule(rule: Field) -> Rule | None:
    if not rule.require_object(_RULE_FIELDS):
        return None
    pods = parse_pod_rule(rule)
    return Rule(pods) if pods else None


def _parse_egress_ip(field: Field) -> Address | None:
    """Read an address; blanks around it are allowed, as they always were."""
    text = field.text()
    address = None if text is None else read_address(field, text.strip())
    if address is not None:
        warn_of_unanswerable(field, address)
    return address
