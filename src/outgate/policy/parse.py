"""
Kubernetes JSON of an egress policy -> ``model.EgressPolicy``, or all that is wrong.

What it is: the one judge of policy fields, for objects from an API server and from
files alike.  Each error names the field's path, the value, and the mend; all
errors of an object are reported.  The CRD in ``deploy/crds`` refuses the same
values where a schema can say so; a test compares the two.

What it is not: nodes, namespaces and pods are read by ``source.objects``.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network

from outgate.policy.fields import Field
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayAtAddress,
    Problem,
    policy_id,
)
from outgate.policy.selectors import Selector, parse_rule

API_VERSION = "cilium.io/v2alpha1"
KIND = "CiliumEgressNATPolicy"


def parse_policy(document: Mapping[str, object]) -> EgressPolicy | BadPolicy:
    """
    Read one CiliumEgressNATPolicy; never raises for what a user can write.

    >>> bad = parse_policy({
    ...     "metadata": {"name": "a"},
    ...     "spec": {"egress": [], "destinationCIDRs": ["10.0.0.1/8"],
    ...              "egressSourceIP": "172.18.0.5"}})
    >>> [problem.message for problem in bad.problems]
    ["'10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?"]
    """
    root = Field(document, "", [])
    metadata = root.get("metadata")
    name = _optional_text(metadata.get("name"))
    uid = _optional_text(metadata.get("uid"))
    created = _optional_text(metadata.get("creationTimestamp"))
    if not name:
        metadata.get("name").refuse("a policy needs a name")
    selectors, destinations, egress_ip = _parse_spec(root.get("spec"))
    identifier = policy_id(uid, API_VERSION, KIND, name)
    if root.problems or egress_ip is None:
        return BadPolicy(
            kind=KIND,
            name=name,
            uid=uid,
            id=identifier,
            problems=tuple(
                Problem(f"{KIND} {name}", problem.path, problem.reason)
                for problem in root.problems
            ),
            selectors=selectors,
        )
    return EgressPolicy(
        kind=KIND,
        name=name,
        uid=uid,
        created=created,
        id=identifier,
        selectors=selectors,
        destinations=destinations,
        gateway=GatewayAtAddress(egress_ip),
    )


def refuse_kind(api_version: str, kind: str, name: str, uid: str) -> BadPolicy:
    """Return a policy of a kind that we know of and cannot honour yet."""
    known = f"{KIND} ({API_VERSION})"
    message = f"{kind} ({api_version}) is not supported yet; there is: {known}"
    return BadPolicy(
        kind=kind,
        name=name,
        uid=uid,
        id=policy_id(uid, api_version, kind, name),
        problems=(Problem(f"{kind} {name}", "kind", message),),
    )


def _parse_spec(
    spec: Field,
) -> tuple[tuple[Selector, ...], tuple[IPv4Network, ...], IPv4Address | None]:
    if not spec.require_object(("egress", "destinationCIDRs", "egressSourceIP")):
        return (), (), None
    rules = [parse_rule(rule) for rule in spec.get("egress").items()]
    is_selection_whole = not spec.problems and None not in rules
    networks = [parse_network(cidr) for cidr in spec.get("destinationCIDRs").items()]
    return (
        tuple(rule for rule in rules if rule) if is_selection_whole else (),
        tuple(network for network in networks if network is not None),
        parse_address(spec.get("egressSourceIP")),
    )


def parse_network(field: Field) -> IPv4Network | None:
    """
    Read one CIDR.

    Host bits are refused, not cut off as Go's ``net.ParseCIDR`` does: who writes
    10.0.0.1/8 meant a /32 or a typing error, and a wider match is a wrong source
    address for somebody.
    """
    text = field.text()
    if text is None:
        return None
    try:
        interface = ip_interface(text)
    except ValueError:
        field.refuse(f"{text!r} is no IPv4 network; write it like 203.0.113.0/24")
        return None
    if interface.version == 6:
        field.refuse(f"{text!r}: IPv6 is not supported yet; use an IPv4 network")
        return None
    if text.partition("/")[2] != str(interface.network.prefixlen):
        mend = interface.network.compressed
        field.refuse(f"{text!r} has no plain prefix length; did you mean {mend}?")
        return None
    if interface.ip != interface.network.network_address:
        mend = ip_network(text, strict=False).compressed
        field.refuse(f"{text!r} has host bits set; did you mean {mend}?")
        return None
    return IPv4Network(text)


def parse_address(field: Field) -> IPv4Address | None:
    """Read one IPv4 address; blanks around it are allowed, as they always were."""
    text = field.text()
    if text is None:
        return None
    try:
        address = ip_address(text.strip())
    except ValueError:
        field.refuse(f"{text!r} is no IPv4 address; write it like 203.0.113.7")
        return None
    if address.version == 6:
        field.refuse(f"{text!r}: IPv6 is not supported yet; use an IPv4 address")
        return None
    return address


def _optional_text(field: Field) -> str:
    """Return a string, or an empty one for anything absent."""
    return "" if field.is_absent else (field.text() or "")
