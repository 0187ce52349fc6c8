"""
Kubernetes JSON of an egress policy -> ``model.EgressPolicy``, or all that is wrong.

What it is: the one judge of policy fields, for objects from an API server and from
files alike.  Each error names the field's path, the value, and the mend; all
errors of an object are reported.  The CRD in ``deploy/crds`` refuses the same
values where a schema can say so; a test compares the two.

What it is not: nodes, namespaces and pods are read by ``source.objects``.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, ip_address, ip_interface, ip_network

from outgate.policy.fields import Field
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayAtAddress,
    Problem,
    policy_id,
)
from outgate.policy.selectors import Selector, parse_rule
from outgate.state.entries import Address, Network

API_VERSION = "cilium.io/v2alpha1"
KIND = "CiliumEgressNATPolicy"

IPV4_MAPPED = ip_network("::ffff:0:0/96")
"""IPv6 addresses that stand for IPv4 ones inside programs (RFC 4291, 2.5.5.2)."""


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
) -> tuple[tuple[Selector, ...], tuple[Network, ...], Address | None]:
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


def parse_network(field: Field) -> Network | None:
    """
    Read one CIDR of either family, in any spelling of its address.

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
        examples = "203.0.113.0/24 or 2001:db8::/32"
        field.refuse(f"{text!r} is no IP network; write it like {examples}")
        return None
    network = interface.network
    if text.partition("/")[2] != str(network.prefixlen):
        field.refuse(f"{text!r} has no plain prefix length; did you mean {network}?")
    elif _is_odd_ipv6(field, text, interface.ip, network.prefixlen):
        return None
    elif interface.ip != network.network_address:
        field.refuse(f"{text!r} has host bits set; did you mean {network}?")
    else:
        return network
    return None


def parse_address(field: Field) -> Address | None:
    """Read one IP address; blanks around it are allowed, as they always were."""
    text = field.text()
    if text is None:
        return None
    try:
        address = ip_address(text.strip())
    except ValueError:
        examples = "203.0.113.7 or 2001:db8::7"
        field.refuse(f"{text!r} is no IP address; write it like {examples}")
        return None
    if _is_odd_ipv6(field, text, address, address.max_prefixlen):
        return None
    return address


def _is_odd_ipv6(field: Field, text: str, address: Address, prefix_len: int) -> bool:
    """Refuse an IPv6 spelling that means something else than an IPv6 address."""
    if "%" in text:
        field.refuse(f"{text!r} has a zone, which means something on one node only")
        return True
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is None or prefix_len < IPV4_MAPPED.prefixlen:
        return False
    mend = IPv4Network((mapped, prefix_len - IPV4_MAPPED.prefixlen), strict=False)
    shown = mapped if prefix_len == address.max_prefixlen else mend
    field.refuse(f"{text!r} is an IPv4 address written as IPv6; did you mean {shown}?")
    return True


def _optional_text(field: Field) -> str:
    """Return a string, or an empty one for anything absent."""
    return "" if field.is_absent else (field.text() or "")
