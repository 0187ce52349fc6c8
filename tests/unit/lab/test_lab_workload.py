"""Pod objects as the lab reads them."""

from ipaddress import ip_address
from typing import Any

import pytest

from outgate.lab.settings import IpFamily
from outgate.lab.topology import topology_of
from outgate.lab.workload import hosts_text, parse_workload


def pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "a",
            "namespace": "default",
            "uid": "u1",
            "annotations": {"lab.outgate.io/ip": "10.0.1.42, fd00::42"},
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", **container}],
            **spec,
        },
    }


def test_parse_workload_joins_command_and_arguments() -> None:
    parsed = parse_workload(pod({"command": ["sh", "-c"], "args": ["true"]}))

    assert parsed.containers[0].command == ("sh", "-c", "true")
    assert parsed.requested_ips == (ip_address("10.0.1.42"), ip_address("fd00::42"))


def test_parse_workload_resolves_fields_of_the_pod() -> None:
    node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    own = {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    parsed = parse_workload(pod({"env": [node, own, {"name": "X", "value": "1"}]}))

    environment = dict(parsed.containers[0].environment)
    assert (environment["NODE"], environment["ME"], environment["X"]) == (
        "n1",
        "a",
        "1",
    )


def test_parse_workload_names_what_the_lab_does_not_act_on() -> None:
    probe = {"exec": {"command": ["true"]}}
    parsed = parse_workload(pod({"readinessProbe": probe}, volumes=[{"name": "v"}]))

    assert parsed.ignored == ("spec.volumes", "spec.containers[0].readinessProbe")


@pytest.mark.parametrize("text", ["10.0.1.x", "10.0.1.42,", "10.0.1.42 fd00::42"])
def test_parse_workload_names_an_address_that_is_none(text: str) -> None:
    asked = pod({})
    asked["metadata"]["annotations"] = {"lab.outgate.io/ip": text}
    parsed = parse_workload(asked)

    assert parsed.requested_ips == ()
    assert parsed.ignored == (
        f"metadata.annotations[lab.outgate.io/ip] ({text!r} is no IP address)",
    )


def test_parse_workload_resolves_all_addresses_of_the_pod() -> None:
    source = {"fieldRef": {"fieldPath": "status.podIPs"}}
    asked = pod({"env": [{"name": "IPS", "valueFrom": source}]})
    asked["status"] = {"podIPs": [{"ip": "10.0.1.42"}, {"ip": "fd00::42"}]}
    environment = dict(parse_workload(asked).containers[0].environment)

    assert environment["IPS"] == "10.0.1.42,fd00::42"


def test_parse_workload_reads_an_http_probe() -> None:
    get = {"port": 80, "path": "/ready"}
    parsed = parse_workload(pod({"readinessProbe": {"httpGet": get}}))

    probe = parsed.containers[0].probe
    assert probe is not None
    assert (probe.port, probe.path, probe.host) == (80, "/ready", "")
    assert parsed.ignored == ()


def test_parse_workload_prefers_the_grace_of_the_deletion() -> None:
    text = pod({}, terminationGracePeriodSeconds=30)
    text["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 1,
    }
    parsed = parse_workload(text)

    assert (parsed.is_deleting, parsed.grace_seconds) == (True, 1)


def test_hosts_text_names_the_pod_the_lab_and_the_aliases() -> None:
    aliases = [{"ip": "10.9.9.9", "hostnames": ["db", "cache"]}]
    parsed = parse_workload(pod({}, hostAliases=aliases))

    text = hosts_text(parsed, [ip_address("10.0.1.42")], topology_of(IpFamily.IPV4))
    assert text == (
        "127.0.0.1\tlocalhost\n10.0.1.42\ta\n"
        "172.18.0.3\tk8s-guide-control-plane\n172.18.0.4\tk8s-guide-worker\n"
        "172.18.0.5\tk8s-guide-worker2\n172.18.0.100\techo\n10.9.9.9\tdb cache\n"
    )


def test_hosts_text_of_ipv6_names_no_ipv4_but_loopback() -> None:
    parsed = parse_workload(pod({}))
    text = hosts_text(parsed, [ip_address("fd00::42")], topology_of(IpFamily.IPV6))

    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost\nfd00::42\ta\n")
    assert text.endswith("fc00:f853:ccd:e793::100\techo echo6\n")
    assert text.count(".") == 3
