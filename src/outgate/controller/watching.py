"""
What the controller watches beside the cluster: agents' reports, and written status.

What it is: two kinds of objects and the informers of them.  Policies are watched a
second time for their status alone: what is written is compared with what stands.
"""

from collections.abc import Callable, Collection

import msgspec

from outgate.controller.notices import Subject
from outgate.controller.writer import Observed
from outgate.policy.reports import NodeReport
from outgate.policy.status import Json
from outgate.source.client import Client
from outgate.source.informer import Informer
from outgate.source.kinds import GATEWAY_POLICIES, NAT_POLICIES
from outgate.source.objects import EgressNodeObject, Metadata
from outgate.source.peer import Peer
from outgate.source.wire import Kind, Raw, decoder

EGRESS_NODES: Kind[NodeReport] = Kind(
    "egressnodes",
    "/apis/outgate.io/v1alpha1/egressnodes",
    decoder(EgressNodeObject),
    may_be_missing=True,
)

_POLICY_KINDS = (
    ("cilium.io/v2alpha1", "CiliumEgressNATPolicy", NAT_POLICIES.path),
    ("cilium.io/v2", "CiliumEgressGatewayPolicy", GATEWAY_POLICIES.path),
)


class _WithStatus(msgspec.Struct, gc=False):
    metadata: Metadata
    status: object = None


_DECODER = msgspec.json.Decoder(_WithStatus)


def _status_kind(api_version: str, kind: str, path: str) -> Kind[Observed]:
    def decode(raw: Raw) -> tuple[Metadata, Observed]:
        found = _DECODER.decode(raw)
        metadata = found.metadata
        status: Json = found.status if isinstance(found.status, dict) else {}
        observed = Observed(
            Subject(api_version, kind, metadata.name, metadata.uid or ""),
            f"{path}/{metadata.name}",
            metadata.resource_version or "",
            status,
        )
        return metadata, observed

    name = f"status of {path.rpartition('/')[2]}"
    return Kind(name, path, decode, may_be_missing=True)


def watch_status(
    client: Client, peer: Peer, note: Callable[[str, Observed | None], None]
) -> tuple[Informer[Observed], ...]:
    """Return informers that call *note* with the key of a policy and what it holds."""

    def make(api_version: str, kind: str, path: str) -> Informer[Observed]:
        def on_change(keys: Collection[str]) -> None:
            for key in keys:
                note(f"{kind}/{key}", informer.get(key))

        watched = _status_kind(api_version, kind, path)
        informer = Informer(client, watched, on_change, peer=peer)
        return informer

    return tuple(make(*row) for row in _POLICY_KINDS)
