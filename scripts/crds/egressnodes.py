"""
The definition of EgressNode: what an agent tells of its node (``policy.reports``).

What it is: status only; nobody writes a spec.
"""

from parts import AGE, Json, array, column, definition, root, struct, text


def egress_node() -> Json:
    """Return the CRD of EgressNode."""
    columns = [
        column(
            "READY",
            ".status.ready",
            "boolean",
            description="Whether the agent can do its job.",
        ),
        column("VERSION", ".status.version", description="The agent's version."),
        column(
            "RENEWED",
            ".status.renewTime",
            "date",
            description="When a candidate gateway's agent last said that it lives.",
        ),
        column("MESSAGE", ".status.message", description="What is wrong, if anything."),
        AGE,
    ]
    names = {
        "kind": "EgressNode",
        "plural": "egressnodes",
        "shortNames": ["egn"],
        "categories": ["outgate"],
    }
    schema = root(
        {"status": _status()},
        "What the agent of the node of the same name observes and holds.",
        [],
    )
    return definition("outgate.io", "v1alpha1", names, columns, schema)


def _status() -> Json:
    interface = struct(
        {
            "name": text(),
            "altnames": array(text()),
            "addresses": array(text(), "In the order in which the kernel has them."),
        },
        required=["name"],
    )
    policy = struct(
        {
            "kind": text(),
            "name": text(),
            "uid": text(),
            "generation": {"type": "integer", "format": "int64"},
            "programmed": {
                "type": "boolean",
                "description": "Whether the node's kernel holds all of its rows.",
            },
            "message": text("Why it does not."),
        },
        required=["kind", "name", "uid", "programmed"],
    )
    return struct(
        {
            "renewTime": text(
                "Renewed every few seconds by candidate gateways.", format="date-time"
            ),
            "ready": {"type": "boolean"},
            "message": text(),
            "version": text(),
            "interfaces": _map(interface, "name", "Links, without the cables of pods."),
            "defaultRoute": struct(
                {"ipv4": text(), "ipv6": text()},
                "Names of the interfaces with the default route of each IP family.",
            ),
            "policies": _map(policy, "uid", "Policies with rows on this node."),
        },
        "Written by the agent of the node.",
    )


def _map(items: Json, key: str, description: str) -> Json:
    marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return array(items, description, **marks)
