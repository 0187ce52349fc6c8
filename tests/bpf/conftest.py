"""One node's datapath per test, with the rows of the guide's gateway."""

from collections.abc import Iterator

import pytest

from bpf.harness import Node
from bpf.world import gateway_entries


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that is the gateway 172.18.0.5 and has the pod 10.0.2.86."""
    with Node() as node:
        node.put(gateway_entries())
        yield node
