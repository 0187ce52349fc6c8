"""
The definitions of CiliumEgressNATPolicy and CiliumEgressGatewayPolicy.

What it is: what users write, and the status that the controller writes.
What it is not: checked here; a test holds it against ``policy.parse``, which has the
same limits.
"""

from parts import (
    ADDRESS,
    Json,
    array,
    column,
    definition,
    must,
    networks,
    root,
    selector,
    struct,
    text,
)
from policystatus import policy_columns, policy_status

from outgate.policy import parse_gateway, parse_nat
from outgate.policy.parse_gateway import MAX_GATEWAYS
from outgate.policy.parse_spec import MAX_RULES


def rules(description: str, more: Json) -> Json:
    """Return the schema of a list of rules; *more* are fields of one kind only."""
    rule = struct(
        {
            "namespaceSelector": selector(
                "Looks at the labels of the pod's namespace; an empty one selects the"
                " pods of all namespaces."
            ),
            "podSelector": selector(
                "Looks at the labels of the pod, and at its namespace's name as"
                " io.kubernetes.pod.namespace; an empty one selects all."
            ),
        }
        | more,
        "All selectors must match; a rule needs podSelector or namespaceSelector.",
        **{
            "x-kubernetes-validations": [
                must(
                    "has(self.podSelector) || has(self.namespaceSelector)",
                    "has neither podSelector nor namespaceSelector; to select all pods,"
                    " write podSelector: {}",
                )
            ]
        },
    )
    return array(rule, description, maxItems=MAX_RULES)


def gateway(description: str) -> Json:
    """Return the schema of egressGateway."""
    return struct(
        {
            "nodeSelector": selector(
                "Nodes that may be the gateway; an empty one matches every node."
            ),
            "interface": text(
                "Pods leave under the first address of this interface of the gateway;"
                " its name or an altname.",
                maxLength=127,
                pattern=r"^[^/\s]*$",
            ),
            "egressIP": text(
                "Pods leave under this address, IPv4 or IPv6, which an interface of the"
                " gateway must have.",
                pattern=f"^{ADDRESS}$",
            ),
        },
        description,
        required=["nodeSelector"],
        **{
            "x-kubernetes-validations": [
                must(
                    "!has(self.egressIP) || !has(self.interface) ||"
                    " size(self.interface) == 0",
                    "has both interface and egressIP; keep one of them: egressIP finds"
                    " its interface, and interface its first address",
                )
            ]
        },
    )


def nat_policy() -> Json:
    """Return the CRD of CiliumEgressNATPolicy."""
    spec = struct(
        {
            "egress": rules(
                "A pod is selected when any of these rules selects it.", {}
            ),
            "destinationCIDRs": networks(
                "Networks that are reached through the gateway, without host bits, like"
                " 203.0.113.0/24 or 2001:db8::/32. Those of the family that"
                " egressSourceIP is not of are dropped."
            ),
            "egressSourceIP": text(
                "The address under which the pods leave, IPv4 or IPv6; it must be an"
                " address of the node that is to be their gateway.",
                pattern=rf"^\s*{ADDRESS}\s*$",
            ),
        },
        required=["egress", "destinationCIDRs", "egressSourceIP"],
    )
    group, _, version = parse_nat.API_VERSION.partition("/")
    return definition(
        group,
        version,
        {
            "kind": parse_nat.KIND,
            "plural": "ciliumegressnatpolicies",
            "categories": ["cilium", "ciliumpolicy"],
        },
        policy_columns(
            column(
                "EGRESS-IP",
                ".spec.egressSourceIP",
                description="The address that the outside sees.",
            )
        ),
        root(
            {"spec": spec, "status": policy_status()},
            "Pods that a rule selects reach the destinations through the node that has"
            " egressSourceIP, and under that address.",
            ["spec"],
        ),
    )


def gateway_policy() -> Json:
    """Return the CRD of CiliumEgressGatewayPolicy."""
    nodes = selector(
        "Looks at the labels of the pod's node; absent: pods of every node."
    )
    spec = struct(
        {
            "selectors": rules(
                "A pod is selected when any of these rules selects it.",
                {"nodeSelector": nodes},
            ),
            "destinationCIDRs": networks(
                "Networks that are reached through the gateway, without host bits, like"
                " 203.0.113.0/24 or 2001:db8::/32."
            ),
            "excludedCIDRs": networks(
                "Parts of destinationCIDRs that are not covered."
            ),
            "egressGateway": gateway(
                "The gateway of all pods; ignored when egressGateways is not empty."
            ),
            "egressGateways": array(
                gateway("One gateway, which gets its share of the pods."),
                "Several gateways; each pod gets one of them.",
                maxItems=MAX_GATEWAYS,
            ),
        },
        required=["selectors", "destinationCIDRs"],
        **{
            "x-kubernetes-validations": [
                must(
                    "has(self.egressGateway) ||"
                    " (has(self.egressGateways) && size(self.egressGateways) > 0)",
                    "has neither egressGateway nor egressGateways; to say which nodes"
                    " may be the gateway, write egressGateway: {nodeSelector: {…}}",
                )
            ]
        },
    )
    group, _, version = parse_gateway.API_VERSION.partition("/")
    return definition(
        group,
        version,
        {
            "kind": parse_gateway.KIND,
            "plural": "ciliumegressgatewaypolicies",
            "shortNames": ["cegp"],
            "categories": ["cilium", "ciliumpolicy"],
        },
        policy_columns(
            column(
                "EGRESS-IPS",
                ".status.summary.egressIPs",
                description="The addresses that the outside sees.",
            )
        ),
        root(
            {"spec": spec, "status": policy_status()},
            "Pods that a rule selects reach the destinations through a gateway node,"
            " and under an address of it.",
            ["spec"],
        ),
    )
