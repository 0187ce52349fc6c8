"""
What kubectl shows of our kinds, on a real API server and on the lab's: the same words.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from apiserver.conftest import install_definitions
from kubectl.driver import Answer, Kubectl, Server

pytestmark = pytest.mark.usefixtures("definitions")

OBJECTS = Path(__file__).with_name("same_words.yaml")
BAD = """
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {{name: same-bad}}
spec: {{{spec}}}
"""
CHOSEN = ("-l", "same=words")

VARYING = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"(?i)(resource ?version: +)\"?\d+\"?", r"\1VERSION"),
    (r"\b(\d+[smhd])+\b", "AGE"),
    (r"https?://[\d.:]+", "SERVER"),
    (r" +", " "),
    (r'Invalid value: "object": ', "Invalid value: "),
    (r'Invalid value: "null": ', "Invalid value: null: "),
)
"""What differs between any two servers; and, last, between releases of the real one."""


@pytest.fixture(scope="module")
def both(
    admin: Kubectl, labs_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Kubectl, Kubectl]:
    """Put the same objects, with the same status, on both servers."""
    cache = tmp_path_factory.mktemp("lab")
    lab = Kubectl(admin.binary, labs_server.url, cache, "")
    install_definitions(lab)
    for kubectl in (admin, lab):
        for document in yaml.safe_load_all(OBJECTS.read_text()):
            text, name = yaml.safe_dump(document), document["metadata"]["name"]
            kubectl("apply", "-f", "-", stdin=text)
            status = yaml.safe_dump({"status": document["status"]})
            how = ("--subresource=status", "--type=merge", "-p", status)
            kubectl("patch", document["kind"], name, *how)
    return admin, lab


@pytest.mark.parametrize(
    "words",
    [
        ("api-resources", "--api-group=cilium.io"),
        ("api-resources", "--api-group=outgate.io"),
        ("get", "cegp", *CHOSEN),
        ("get", "cegp", *CHOSEN, "-o", "wide"),
        ("get", "ciliumegressnatpolicies", *CHOSEN, "-o", "wide"),
        ("get", "egressnodes", *CHOSEN),
        ("get", "egressnodes", *CHOSEN, "-o", "wide"),
        ("get", "ciliumpolicy", *CHOSEN),
        ("get", "cegp", *CHOSEN, "-o", "yaml"),
        ("describe", "cegp", "same"),
        ("describe", "ciliumegressnatpolicies", *CHOSEN),
        ("describe", "egressnodes", *CHOSEN),
        ("explain", "cegp.spec", "--recursive"),
        ("explain", "cegp.spec.egressGateway"),
        ("explain", "cegp.spec.selectors.podSelector"),
        ("explain", "egressnodes.status"),
        ("wait", "--for=condition=Programmed=false", "cegp/same", "--timeout=5s"),
        ("get", "cegp", "nobody"),
        ("label", "cegp", "same", "same=words"),
        ("patch", "cegp", "same", "--type=merge", "-p", "{}"),
    ],
    ids=" ".join,
)
def test_kubectl_shows_the_same(
    both: tuple[Kubectl, Kubectl], words: tuple[str, ...]
) -> None:
    real, lab = (_normal(kubectl.run(*words)) for kubectl in both)

    assert lab == real


GATEWAY = "egressGateway: {nodeSelector: {}}"
RULE = "selectors: [{podSelector: {}}]"
NETWORKS = "destinationCIDRs: [192.0.2.0/24]"


@pytest.mark.parametrize(
    "spec",
    [
        f"selectors: [{{}}], {NETWORKS}, {GATEWAY}",
        f"{RULE}, {NETWORKS}",
        f"{RULE}, {NETWORKS}, egressGateway: {{interface: eth0}}",
        f"{RULE}, {NETWORKS}, egressGateway: {{nodeSelector: {{}}, egressIP: nowhere}}",
        f"{RULE}, {GATEWAY}, destinationCIDRs: [10.0.0.0/33, 10.0.0.0/8]",
        f"{RULE}, {GATEWAY}, destinationCIDRs: 10.0.0.0/8",
        f"{RULE}, {GATEWAY}, {NETWORKS}, destinations: []",
        f"{GATEWAY}, {NETWORKS}",
    ],
)
def test_a_refusal_says_the_same(both: tuple[Kubectl, Kubectl], spec: str) -> None:
    text = BAD.format(spec=spec)
    answers = [kubectl.run("apply", "-f", "-", stdin=text) for kubectl in both]
    real, lab = (_normal(answer) for answer in answers)

    assert answers[0].code == 1
    assert lab == real


def _normal(answer: Answer) -> list[str]:
    """Return the lines of an answer, without what differs between any two servers."""
    text = f"{answer.out}\n{answer.err}\nexit code {answer.code}"
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return text.splitlines()
