"""
What the definitions have in common: small builders, selectors, networks.

What it is: pieces of OpenAPI schemas as data.
What it is not: a definition; ``policies`` and ``egressnodes`` are those.
"""

from typing import Any

from outgate.policy.selectors import MAX_EXPRESSIONS

Json = dict[str, Any]

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_H = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    (
        f"({_H}:){{7}}{_H}",
        f"({_H}:){{1,7}}:",
        *(f"({_H}:){{1,{7 - n}}}(:{_H}){{1,{n}}}" for n in range(1, 7)),
        f":((:{_H}){{1,7}}|:)",
        f"({_H}:){{6}}{_IPV4}",
        f"::({_H}:){{0,5}}{_IPV4}",
        *(f"({_H}:){{1,{n}}}:({_H}:){{0,{5 - n}}}{_IPV4}" for n in range(1, 5)),
        f"({_H}:){{1,5}}:{_IPV4}",
    )
)
ADDRESS = f"({_IPV4}|{_IPV6})"
NETWORK = f"^({_IPV4}/(3[0-2]|[12]?[0-9])|({_IPV6})/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"
LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_KEY = (
    rf"^({_LABEL}(\.{_LABEL})*/)?"
    "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)


def text(description: str = "", **more: Any) -> Json:
    """Return a string's schema."""
    return _described({"type": "string"}, description) | more


def array(items: Json, description: str = "", **more: Any) -> Json:
    """Return a list's schema."""
    return _described({"type": "array"}, description) | more | {"items": items}


def struct(properties: Json, description: str = "", **more: Any) -> Json:
    """Return an object's schema."""
    return (
        _described({"type": "object"}, description) | more | {"properties": properties}
    )


def must(rule: str, message: str) -> Json:
    """Return one CEL rule, as an item of x-kubernetes-validations."""
    return {"rule": rule, "message": message}


def _described(schema: Json, description: str) -> Json:
    return schema | ({"description": description} if description else {})


def selector(description: str) -> Json:
    """Return a LabelSelector's schema."""
    value = text(maxLength=63, pattern=LABEL_VALUE)
    operator = text("How the label is compared with values.")
    expression = struct(
        {
            "key": text(
                "The label key that the expression looks at.",
                maxLength=317,
                pattern=LABEL_KEY,
            ),
            "operator": operator | {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": array(value, "At least one for In and NotIn, else none."),
        },
        required=["key", "operator"],
        **{
            "x-kubernetes-validations": [
                must(
                    "!(self.operator in ['In', 'NotIn']) ||"
                    " (has(self.values) && size(self.values) > 0)",
                    "operators In and NotIn need at least one value; add values",
                ),
                must(
                    "!(self.operator in ['Exists', 'DoesNotExist']) ||"
                    " !has(self.values) || size(self.values) == 0",
                    "operators Exists and DoesNotExist take no values; remove them",
                ),
            ]
        },
    )
    return struct(
        {
            "matchLabels": {"type": "object", "additionalProperties": value},
            "matchExpressions": array(expression, maxItems=MAX_EXPRESSIONS),
        },
        description,
    )


def networks(description: str) -> Json:
    """Return the schema of a list of networks, of any length."""
    return array(text(pattern=NETWORK), description)


def column(name: str, path: str, kind: str = "string", **more: Any) -> Json:
    """Return one printer column."""
    return {"name": name, "type": kind, "jsonPath": path} | more


AGE = column("AGE", ".metadata.creationTimestamp", "date")


def definition(
    group: str, version: str, names: Json, columns: list[Json], schema: Json
) -> Json:
    """Return a CRD of cluster scope with a status subresource."""
    kind = names["kind"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"listKind": f"{kind}List", "singular": kind.lower()} | names,
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def root(properties: Json, description: str, required: list[str]) -> Json:
    """Return the schema of a whole object."""
    head = {"apiVersion": text(), "kind": text(), "metadata": {"type": "object"}}
    return struct(head | properties, description, required=["metadata", *required])
