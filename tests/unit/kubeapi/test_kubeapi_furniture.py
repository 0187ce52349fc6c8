"""What every cluster starts with."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.furniture import furnish
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import MERGE_PATCH, Patch, patch

NETWORKS = (IPv4Network("10.96.0.0/16"), IPv6Network("fd00:10:96::/112"))
ADDRESSES = (IPv4Address("172.18.0.3"), IPv6Address("fc00::3"))


def found(objects: Objects, kind: str, namespace: str = "") -> Any:
    resource = objects.catalogue.built_in(kind)
    return objects.find(resource, (namespace, "kubernetes"))


def test_cluster_tells_where_its_services_and_its_api_are(objects: Objects) -> None:
    furnish(objects, NETWORKS, ADDRESSES)
    behind = found(objects, "EndpointSlice", "default")

    assert found(objects, "ServiceCIDR")["spec"] == {
        "cidrs": ["10.96.0.0/16", "fd00:10:96::/112"]
    }
    assert found(objects, "Service", "default")["spec"]["clusterIP"] == "10.96.0.1"
    assert behind["addressType"] == "IPv4"
    assert [one["addresses"] for one in behind["endpoints"]] == [["172.18.0.3"]]
    assert behind["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}


def test_api_that_nobody_finds_inside_has_no_endpoints(objects: Objects) -> None:
    furnish(objects, NETWORKS, ())

    assert found(objects, "EndpointSlice", "default") is None


def test_what_is_there_stays_as_users_left_it(objects: Objects) -> None:
    furnish(objects, NETWORKS, ADDRESSES)
    services = objects.catalogue.built_in("Service")
    change = Patch(MERGE_PATCH, {"metadata": {"labels": {"mine": "1"}}})
    patch(objects, services, ("default", "kubernetes"), change, WriteOptions())
    furnish(objects, NETWORKS, ADDRESSES)

    service = found(objects, "Service", "default")
    assert service["metadata"]["labels"]["mine"] == "1"
