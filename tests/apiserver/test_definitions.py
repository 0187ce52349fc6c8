"""
Our definitions, as a real API server takes them, and what it says of bad objects.

The verdicts are compared with those of the lab's server and of the parser, which is
what ``outgate policy check`` asks: one corpus, three judges.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from apiserver.objects import CRDS
from apiserver.wire import Object, Wire, open_url
from kubectl.driver import Server
from outgate.policy.model import EgressPolicy
from outgate.policy.parse import parse_policy
from unit.policy.test_policy_crd import CASES, DEFINITIONS, GATEWAY, MISSING, NAT

PATHS = {
    "CiliumEgressNATPolicy": "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
    "CiliumEgressGatewayPolicy": "/apis/cilium.io/v2/ciliumegressgatewaypolicies",
}


OURS: list[Object] = [yaml.safe_load(path.read_text()) for path in DEFINITIONS]


pytestmark = pytest.mark.usefixtures("definitions")


@pytest.fixture
async def lab(labs_server: Server) -> AsyncIterator[Wire]:
    """Open a session with the lab's server, which has our definitions too."""
    async with open_url(labs_server.url) as wire:
        for definition in OURS:
            await wire.done("POST", CRDS, definition)
        yield wire


@pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours["metadata"]["name"])
async def test_a_definition_is_accepted_whole(wire: Wire, ours: Object) -> None:
    kept = await wire.get(f"{CRDS}/{ours['metadata']['name']}")
    conditions = {c["type"]: c["status"] for c in kept["status"]["conditions"]}

    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert _missing(ours["spec"], kept["spec"]) == []


def _missing(ours: Any, kept: Any, path: str = "spec") -> list[str]:
    """Return what we wrote and the server did not keep."""
    if isinstance(ours, dict) and isinstance(kept, dict):
        pairs = [(f"{path}.{key}", ours[key], kept.get(key)) for key in ours]
    elif isinstance(ours, list) and isinstance(kept, list) and len(ours) == len(kept):
        pairs = [
            (f"{path}[{i}]", *both)
            for i, both in enumerate(zip(ours, kept, strict=True))
        ]
    else:
        return [] if ours == kept else [f"{path}: {ours!r} became {kept!r}"]
    return [lack for name, one, other in pairs for lack in _missing(one, other, name)]


async def test_the_server_judges_the_corpus_as_the_parser_does(wire: Wire) -> None:
    answers = await asyncio.gather(
        *(_try(wire, _with(policy, field, value)) for policy, field, value, _ in CASES)
    )
    disagreed = [
        (field, str(value)[:100], answer.get("message"))
        for (_, field, value, is_good), answer in zip(CASES, answers, strict=True)
        if (answer["kind"] != "Status") is not is_good
    ]

    assert disagreed == []


async def test_the_labs_server_names_the_fields_that_the_real_one_names(
    wire: Wire, lab: Wire
) -> None:
    bad = [
        _with(policy, field, value)
        for policy, field, value, is_good in CASES
        if not is_good
    ]
    real = await asyncio.gather(*(_try(wire, document) for document in bad))
    ours = await asyncio.gather(*(_try(lab, document) for document in bad))

    assert [_fields(answer) for answer in ours] == [_fields(one) for one in real]


def _fields(answer: Object) -> list[str]:
    """Return the fields that are refused, without the note that CEL was not asked."""
    causes = answer["details"]["causes"]
    return sorted({cause["field"] for cause in causes} - {"<nil>"})


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        (NAT, "egress", [{}]),
        (GATEWAY, "selectors", [{"podSelector": {}}, {}]),
        (GATEWAY, "egressGateway", MISSING),
        (
            GATEWAY,
            "egressGateways",
            [{"nodeSelector": {}, "interface": "a", "egressIP": "192.0.2.1"}],
        ),
    ],
)
async def test_the_server_says_the_parsers_words_where_cel_speaks(
    wire: Wire, policy: Object, field: str, value: object
) -> None:
    document = _with(policy, field, value)
    bad = parse_policy(document)
    assert not isinstance(bad, EgressPolicy)
    (problem,) = bad.problems
    answer = await _try(wire, document)
    causes = answer["details"]["causes"]

    assert [cause["field"] for cause in causes] == [problem.path]
    assert causes[0]["message"].endswith(problem.message)


def _with(policy: Object, field: str, value: object) -> Object:
    document = copy.deepcopy(policy)
    document["spec"][field] = value
    if value is MISSING:
        del document["spec"][field]
    return document


async def _try(wire: Wire, document: Object) -> Object:
    """Return what the server makes of *document*, or its refusal."""
    path = PATHS[document["kind"]]
    _, answer = await wire.call("POST", path, document, dryRun="All")
    return answer
