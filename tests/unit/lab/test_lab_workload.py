"""Pod objects as the lab reads them."""

from ipaddress import IPv4Address
from typing import Any

from outgate.lab.workload import hosts_text, parse_workload


def pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "a",
            "namespace": "default",
            "uid": "u1",
            "annotations": {"lab.outgate.io/ip": "10.0.1.42"},
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
    assert parsed.requested_ip == IPv4Address("10.0.1.42")


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


def test_parse_workload_names_an_address_that_is_none() -> None:
    asked = pod({})
    asked["metadata"]["annotations"] = {"lab.outgate.io/ip": "10.0.1.x"}
    parsed = parse_workload(asked)

    assert parsed.requested_ip is None
    assert parsed.ignored == (
        "metadata.annotations[lab.outgate.io/ip] ('10.0.1.x' is no IPv4 address)",
    )


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

    assert hosts_text(parsed, "10.0.1.42", "172.18.0.100\techo\n") == (
        "127.0.0.1\tlocalhost\n10.0.1.42\ta\n172.18.0.100\techo\n10.9.9.9\tdb cache\n"
    )
