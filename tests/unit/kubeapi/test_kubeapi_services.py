"""The addresses that services get."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import create
from outgate.kubeapi.wire import JsonObject

PLAIN = WriteOptions(manager="test")


@pytest.fixture
def ipv6_objects(objects: Objects) -> Objects:
    return replace(objects, service_network=IPv6Network("fd00:10:96::/112"))


def make(objects: Objects, name: str, spec: JsonObject) -> JsonObject:
    services = objects.catalogue.built_in("Service")
    made = create(objects, services, ("default", name), {"spec": spec}, PLAIN)
    given: JsonObject = made.obj["spec"]
    return given


def test_services_get_addresses_of_their_own(objects: Objects) -> None:
    made = [make(objects, name, {}) for name in ("a", "b")]

    assert [spec["clusterIP"] for spec in made] == ["10.96.0.2", "10.96.0.3"]
    assert [spec["ipFamilies"] for spec in made] == [["IPv4"], ["IPv4"]]


def test_services_of_an_ipv6_cluster_get_ipv6_addresses(ipv6_objects: Objects) -> None:
    made = [make(ipv6_objects, name, {}) for name in ("a", "b")]

    assert [spec["clusterIP"] for spec in made] == ["fd00:10:96::2", "fd00:10:96::3"]
    assert [spec["ipFamilies"] for spec in made] == [["IPv6"], ["IPv6"]]


def test_headless_service_has_the_clusters_family(ipv6_objects: Objects) -> None:
    assert make(ipv6_objects, "a", {"clusterIP": "None"})["ipFamilies"] == ["IPv6"]
