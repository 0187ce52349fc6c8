"""
The made-up cluster's objects as an API server sends them.  Pure but for two files.

Pods and nodes are JSON documents of realistic size (``templates/``), cut where objects
differ: an object costs one formatting of bytes, so that the server is never the
bottleneck.  A pod is 6.7 KB and a node 8 KB, most of it managed fields, environment,
conditions and images: what an agent has to skip.
"""

import json
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bench.world import (
    Node,
    Pod,
    Policy,
    PolicyKind,
    destination,
    node_address,
    node_name,
    uid,
)
from outgate.policy.model import policy_id

CREATED = "2026-01-01T00:00:00Z"

API_VERSIONS = {
    PolicyKind.GATEWAY: "cilium.io/v2",
    PolicyKind.NAT: "cilium.io/v2alpha1",
}


@cache
def _template(name: str) -> bytes:
    """Return a compact document; ``<field>`` in it is a place for formatting."""
    path = Path(__file__).parent / "templates" / f"{name}.json"
    text = _compact(json.loads(path.read_text())).decode().replace("%", "%%")
    return text.replace("<", "%(").replace(">", ")s").encode()


def _compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def pod_json(pod: Pod) -> bytes:
    """Return *pod* as it runs, with its address."""
    return _template("pod") % {
        b"name": pod.name.encode(),
        b"namespace": pod.namespace.encode(),
        b"uid": uid(2, pod.number).encode(),
        b"version": b"%d" % pod.version,
        b"app": b"%d" % pod.app,
        b"node": node_name(pod.node).encode(),
        b"host_ip": str(node_address(pod.node)).encode(),
        b"ip": str(pod.address).encode(),
    }


def node_json(node: Node, gateways: int) -> bytes:
    """
    Return a ready node; the first *gateways* are labelled with their numbers.

    Each version is a heartbeat: nothing but its time changes.
    """
    number, version = node
    minute, second = divmod(version % 3600, 60)
    return _template("node") % {
        b"name": node_name(number).encode(),
        b"uid": uid(1, number).encode(),
        b"version": b"%d" % version,
        b"gateway": _gateway_label(number, gateways).encode(),
        b"ip": str(node_address(number)).encode(),
        b"pod_network": f"{Pod(0, number, 0, 0).address}/24".encode(),
        b"heartbeat": f"2026-01-02T00:{minute:02}:{second:02}Z".encode(),
    }


def _gateway_label(node: int, gateways: int) -> str:
    return str(node) if node < gateways else "none"


def pod_labels(pod: Pod) -> dict[str, str]:
    """Return the labels that the document has."""
    return {"app": str(pod.app), "pod-template-hash": "7c9f6d5b4", "track": "stable"}


def node_labels(node: Node, gateways: int) -> dict[str, str]:
    """Return the labels that the document has, as far as anybody asks for them."""
    return {
        "kubernetes.io/hostname": node.name,
        "egress-gateway": _gateway_label(node.number, gateways),
    }


def policy_json(policy: Policy, kind: PolicyKind) -> bytes:
    """Return *policy* written as one of *kind*."""
    egress_ip = str(node_address(policy.gateway))
    selected = {"podSelector": {"matchLabels": {"app": str(policy.app)}}}
    networks = [destination(network) for network in policy.networks]
    spec: dict[str, Any] = {"destinationCIDRs": networks}
    if kind is PolicyKind.NAT:
        spec |= {"egress": [selected], "egressSourceIP": egress_ip}
    else:
        labels = {"egress-gateway": str(policy.gateway)}
        gateway = {"nodeSelector": {"matchLabels": labels}, "egressIP": egress_ip}
        spec |= {"selectors": [selected], "egressGateway": gateway}
    metadata = _metadata(policy.name, policy.uid, policy.version)
    metadata["generation"] = policy.version
    head = {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": metadata}
    return _compact({**head, "spec": spec, "status": _policy_status(policy)})


CONDITIONS = ("Accepted", "GatewaySelected", "EgressIPReady", "Programmed")


def _policy_status(policy: Policy) -> dict[str, Any]:
    """Return what the controller says of a policy of which all is well."""
    gateway, address = node_name(policy.gateway), str(node_address(policy.gateway))
    condition = {
        "status": "True",
        "reason": "AsWanted",
        "message": "",
        "lastTransitionTime": CREATED,
        "observedGeneration": policy.version,
    }
    chosen = {
        "node": gateway,
        "usable": True,
        "selected": True,
        "reason": "Usable",
        "egressIPs": [address],
        "interface": "eth0",
        "tunnelEndpoint": address,
    }
    return {
        "observedGeneration": policy.version,
        "matchedPods": 100,
        "conditions": [{"type": name, **condition} for name in CONDITIONS],
        "gateways": [chosen],
        "summary": {
            "ready": "True",
            "reason": "-",
            "gateways": gateway,
            "egressIPs": address,
        },
    }


def policy_number(policy: Policy, kind: PolicyKind) -> int:
    """Return the number by which the datapath knows *policy*."""
    return policy_id(policy.uid, API_VERSIONS[kind], kind, policy.name)


def small_json(kind: str, api_version: str, name: str, **more: Any) -> bytes:
    """Return an object that is there once and never changes, like a namespace."""
    metadata = _metadata(name, uid(4, hash_of(kind + name)), 1)
    metadata["labels"] = {"kubernetes.io/metadata.name": name}
    head = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
    return _compact({**head, **more})


def hash_of(text: str) -> int:
    """Return a number for *text*, the same in every run."""
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest(), "big")


def _metadata(name: str, uid: str, version: int) -> dict[str, Any]:
    stamps = {"resourceVersion": str(version), "creationTimestamp": CREATED}
    return {"name": name, "uid": uid, **stamps}
