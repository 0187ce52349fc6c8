"""Policies of stories: CiliumEgressGatewayPolicy as text, and in force for a while."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab.harness import SIDE4, SIDE6, Lab, Side, wait_until
from lab.test_lab_pods import pod

HOSTNAME = "kubernetes.io/hostname"
OF_DEFAULT = {
    "podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "default"}}
}
BOTH = (SIDE4.network, SIDE6.network)

Json = dict[str, Any]


def through(node: str, **more: str) -> Json:
    """An egressGateway that is *node*."""
    return {"nodeSelector": {"matchLabels": {HOSTNAME: node}}, **more}


def gateway_policy(
    name: str,
    *gateways: Json,
    selector: Json = OF_DEFAULT,
    networks: Sequence[str] = BOTH,
    excluded: Sequence[str] = (),
) -> str:
    """One that covers the lab's outside; several *gateways* share its pods."""
    spec: Json = {"selectors": [selector], "destinationCIDRs": list(networks)}
    if excluded:
        spec["excludedCIDRs"] = list(excluded)
    if len(gateways) == 1:
        spec["egressGateway"] = gateways[0]
    else:
        spec["egressGateways"] = list(gateways)
    return json.dumps(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumEgressGatewayPolicy",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


@contextmanager
def in_force(lab: Lab, text: str) -> Iterator[str]:
    """Apply a policy; afterwards delete it, and wait until no pod is covered."""
    name = json.loads(text)["metadata"]["name"]
    lab.kubectl("apply -f -", text=text)
    try:
        yield name
    finally:
        lab.kubectl(f"delete ciliumegressgatewaypolicy {name} --timeout=20s")
        wait_until(lambda: all(leave_as_nodes(lab, side) for side in (SIDE4, SIDE6)))


def leave_as_nodes(lab: Lab, side: Side) -> bool:
    """Whether each of the three pods is seen under its node's address."""
    return [seen(lab, name, side) for name in side.pods] == side.nodes


def seen(lab: Lab, name: str, side: Side = SIDE4) -> str:
    """The address that the server sees, empty when nothing gets there."""
    ask = f"exec {name} -- wget -T 1 -t 1 -q -O - {side.server}"
    return lab.try_kubectl(ask).stdout.strip()


def status_of(lab: Lab, name: str) -> Json:
    """The status of a CiliumEgressGatewayPolicy."""
    text = lab.kubectl(f"get ciliumegressgatewaypolicy {name} -o json")
    status: Json = json.loads(text).get("status") or {}
    return status


def condition(lab: Lab, name: str, kind: str) -> tuple[str, str]:
    """One condition of a policy: its status, and its message."""
    for each in status_of(lab, name).get("conditions", ()):
        if each["type"] == kind:
            return each["status"], each["message"]
    return "", ""


@contextmanager
def running(lab: Lab, name: str, command: str, **more: Any) -> Iterator[str]:
    """A pod that is there, Ready, for a while; *labels* beside its spec's fields."""
    labels = more.pop("labels", {})
    made = json.loads(pod(name, command, **more))
    made["metadata"]["labels"] = labels
    lab.kubectl("apply -f -", text=json.dumps(made))
    try:
        lab.kubectl(f"wait pod/{name} --for=condition=Ready --timeout=20s")
        yield name
    finally:
        lab.kubectl(f"delete pod {name} --timeout=20s --ignore-not-found")


@contextmanager
def asking(lab: Lab, name: str, side: Side = SIDE4, **more: Any) -> Iterator[str]:
    """A pod that asks the server for ever, and prints what that saw, or ``failed``."""
    ask = f"wget -T 1 -t 1 -qO- {side.server} || echo failed"
    with running(lab, name, f"while sleep 0.05; do {ask}; done", **more):
        yield name


def answers(lab: Lab, name: str) -> list[str]:
    """What a pod of ``asking`` has printed so far."""
    return lab.kubectl(f"logs {name}").split()
