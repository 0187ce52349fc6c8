"""
Kubernetes JSON of an egress policy -> ``model.EgressPolicy``, or all that is wrong.

What it is: the one judge of policy fields, for objects from an API server and from
files alike.  Each error names the field's path, the value, and the mend; all
errors of an object are reported.  The CRDs in ``deploy/crds`` refuse the same
values where a schema can say so; a test compares the two.

What it is not: the fields of each kind; ``parse_nat`` and ``parse_gateway`` know
those.  Nodes, namespaces and pods are read by ``source.objects``.
"""

from collections.abc import Callable, Mapping

from outgate.policy import parse_gateway, parse_nat
from outgate.policy.fields import Field
from outgate.policy.literals import parse_address
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayHealth,
    Problem,
    policy_id,
)
from outgate.policy.parse_spec import PolicySpec
from outgate.state.entries import NodeName

PolicyKind = tuple[str, str]
"""The apiVersion and the kind of a policy."""

_READERS: Mapping[PolicyKind, Callable[[Field], PolicySpec]] = {
    (parse_nat.API_VERSION, parse_nat.KIND): parse_nat.parse_nat_spec,
    (parse_gateway.API_VERSION, parse_gateway.KIND): parse_gateway.parse_gateway_spec,
}

POLICY_KINDS: tuple[PolicyKind, ...] = tuple(_READERS)
"""The policies that there are."""

_API_VERSIONS = {kind: api_version for api_version, kind in POLICY_KINDS}


def is_policy(kind: str) -> bool:
    """Return whether *kind* is one of egress policies, in whatever version."""
    return kind in _API_VERSIONS


def parse_policy(document: Mapping[str, object]) -> EgressPolicy | BadPolicy:
    """
    Read one policy of any kind; never raises for what a user can write in it.

    Errors: ``ValueError`` when the document is none; ask ``is_policy`` first.

    >>> bad = parse_policy({
    ...     "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumEgressNATPolicy",
    ...     "metadata": {"name": "a"},
    ...     "spec": {"egress": [], "destinationCIDRs": ["10.0.0.1/8"],
    ...              "egressSourceIP": "172.18.0.5"}})
    >>> [problem.message for problem in bad.problems]
    ["'10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?"]
    """
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(kind, str) or not is_policy(kind):
        raise ValueError(f"{kind!r} is no kind of egress policies")
    root = Field(document, "")
    metadata = root.get("metadata")
    name = _optional_text(metadata.get("name"))
    uid = _optional_text(metadata.get("uid"))
    created = _optional_text(metadata.get("creationTimestamp"))
    if not name:
        metadata.get("name").refuse("a policy needs a name")
    spec = _parse_spec(root, str(api_version), kind)
    identifier = policy_id(uid, _API_VERSIONS[kind], kind, name)
    generation = _count(metadata.get("generation").value)
    reference = f"{kind} {name}"
    if root.problems:
        return BadPolicy(
            kind=kind,
            name=name,
            uid=uid,
            id=identifier,
            problems=tuple(Problem(reference, p.path, p.reason) for p in root.problems),
            rules=spec.rules,
            generation=generation,
        )
    return EgressPolicy(
        kind=kind,
        name=name,
        uid=uid,
        created=created,
        id=identifier,
        rules=spec.rules,
        destinations=spec.destinations,
        gateways=spec.gateways,
        excluded=spec.excluded,
        generation=generation,
        health=_parse_health(document.get("status")),
        warnings=tuple(Problem(reference, w.path, w.reason) for w in root.warnings),
    )


def _parse_spec(root: Field, api_version: str, kind: str) -> PolicySpec:
    reader = _READERS.get((api_version, kind))
    if reader is not None:
        return reader(root.get("spec"))
    known = _API_VERSIONS[kind]
    root.get("apiVersion").refuse(
        f"there is no {kind} of {api_version!r}; write apiVersion: {known}"
    )
    return PolicySpec()


def _parse_health(status: object) -> tuple[GatewayHealth, ...]:
    """
    Read ``status.gateways``; what cannot be read is left out.

    No user writes it, and a status of somebody else's must not turn a good policy
    bad.
    """
    gateways = Field(status, "status").get("gateways")
    if not isinstance(gateways.value, list):
        return ()
    found = [_read_health(item) for item in gateways.items()]
    return tuple(health for health in found if health is not None)


def _read_health(item: Field) -> GatewayHealth | None:
    node, is_usable = item.get("node").value, item.get("usable").value
    if not isinstance(node, str) or not isinstance(is_usable, bool):
        return None
    texts = item.get("egressIPs")
    addresses = texts.items() if isinstance(texts.value, list) else ()
    interface = item.get("interface").value
    return GatewayHealth(
        node=NodeName(node),
        is_usable=is_usable,
        egress_ips=tuple(
            address for address in map(parse_address, addresses) if address is not None
        ),
        interface=interface if isinstance(interface, str) else "",
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _optional_text(field: Field) -> str:
    """Return a string, or an empty one for anything absent."""
    return "" if field.is_absent else (field.text() or "")
