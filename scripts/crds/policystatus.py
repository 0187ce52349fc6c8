"""
The status of egress policies, which the controller alone writes, and its columns.
"""

from parts import AGE, Json, array, column, struct, text

REASON = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
"""What the API takes for the reason of a condition."""


def policy_status() -> Json:
    """Return the schema of what the controller writes on each policy."""
    condition = struct(
        {
            "type": text(maxLength=316),
            "status": text(enum=["True", "False", "Unknown"]),
            "reason": text(minLength=1, maxLength=1024, pattern=REASON),
            "message": text("What to do about it.", maxLength=32768),
            "lastTransitionTime": text(format="date-time"),
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
        required=["type", "status", "reason", "message", "lastTransitionTime"],
    )
    node = struct(
        {
            "node": text(),
            "usable": {
                "type": "boolean",
                "description": "Whether the node can do the job now.",
            },
            "selected": {
                "type": "boolean",
                "description": "Whether pods leave through it.",
            },
            "reason": text("Why the node is not usable."),
            "egressIPs": array(text(), "At most one of each IP family."),
            "interface": text("The interface that has them."),
            "tunnelEndpoint": text("Where other nodes send the traffic of pods."),
        },
        required=["node", "usable"],
    )
    return struct(
        {
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "The generation that all of this is about.",
            },
            "matchedPods": {
                "type": "integer",
                "format": "int32",
                "description": "How many pods the policy selects.",
            },
            "conditions": array(
                condition,
                "Accepted, GatewaySelected, EgressIPReady and Programmed.",
                **{
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                },
            ),
            "gateways": array(
                node,
                "The chosen gateways, and candidates that cannot be one now.",
                **{"x-kubernetes-list-type": "atomic"},
            ),
            "summary": struct(
                {
                    "ready": text("Whether all conditions are True."),
                    "reason": text("The reason of the first condition that is not."),
                    "gateways": text("Names of the chosen gateways."),
                    "egressIPs": text("The addresses that the outside sees."),
                },
                "The same in short, as kubectl get shows it.",
            ),
        },
        "Written by outgate controller.",
    )


def policy_columns(egress_ips: Json) -> list[Json]:
    """Return what ``kubectl get`` shows of a policy: what is wrong comes first."""
    return [
        column(
            "READY",
            ".status.summary.ready",
            description="Whether the policy is in force everywhere.",
        ),
        column(
            "REASON",
            ".status.summary.reason",
            description="Why it is not; kubectl describe says what to do.",
        ),
        column(
            "GATEWAYS",
            ".status.summary.gateways",
            description="Nodes through which the pods leave.",
        ),
        egress_ips,
        column(
            "PODS",
            ".status.matchedPods",
            "integer",
            description="How many pods the policy selects.",
        ),
        AGE,
        column(
            "DESTINATIONS",
            ".spec.destinationCIDRs",
            description="Networks that selected pods reach through the gateway.",
            priority=1,
        ),
    ]
