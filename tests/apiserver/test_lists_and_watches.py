"""
What lists and watches do, asked of both servers: the real one and the lab's.

The source relies on each of these; that the lab's server passes them too is why tests
against it count.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apiserver.objects import CRDS, NAMESPACES, NOW, pod
from apiserver.wire import Object, Wire, open_kubeconfig, open_url
from kubectl.driver import Server

INITIAL_END = "k8s.io/initial-events-end"


@pytest.fixture(params=["real", "lab"])
async def wire(
    request: pytest.FixtureRequest, kubeconfig: Path, labs_server: Server
) -> AsyncIterator[Wire]:
    is_real = request.param == "real"
    opened = open_kubeconfig(kubeconfig) if is_real else open_url(labs_server.url)
    async with opened as wire:
        yield wire


@pytest.fixture
async def pods(wire: Wire) -> str:
    """Make a namespace; gives the path of its pods."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await wire.done("POST", NAMESPACES, {"metadata": {"name": name}})
    return f"{NAMESPACES}/{name}/pods"


async def test_pages_of_a_list_are_of_one_moment(wire: Wire, pods: str) -> None:
    for number in range(5):
        await wire.done("POST", pods, pod(f"p{number}"))
    first = await wire.get(pods, limit="2")
    await wire.done("POST", pods, pod("p9"))
    second = await wire.get(
        pods, limit="3", **{"continue": first["metadata"]["continue"]}
    )

    names = [item["metadata"]["name"] for item in first["items"] + second["items"]]
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    assert not second["metadata"].get("continue")
    versions = [page["metadata"]["resourceVersion"] for page in (first, second)]
    assert versions[0] == versions[1]


async def test_items_of_a_list_have_a_kind_only_if_it_is_custom(
    wire: Wire, pods: str
) -> None:
    await wire.done("POST", pods, pod("p"))
    listed = await wire.get(pods)
    definitions = await wire.get(CRDS)
    plural = await defined(wire)
    things = f"/apis/{plural}.test/v1/{plural}"
    thing = {"apiVersion": f"{plural}.test/v1", "kind": plural.title()}
    await wire.done("POST", things, {**thing, "metadata": {"name": "one"}})
    custom = await wire.get(things)

    assert (listed["kind"], listed["apiVersion"]) == ("PodList", "v1")
    assert "kind" not in listed["items"][0]
    assert all("kind" not in item for item in definitions["items"])
    assert custom["items"][0]["kind"] == plural.title()


async def test_a_streamed_list_ends_with_its_bookmark(wire: Wire, pods: str) -> None:
    for number in range(3):
        await wire.done("POST", pods, pod(f"p{number}"))
    async with wire.watch(
        pods,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    ) as watch:
        events = [await watch.next() for _ in range(4)]
        await wire.done("POST", pods, pod("later"))
        later = await watch.next_of("later")

    assert [event["type"] for event in events] == [*["ADDED"] * 3, "BOOKMARK"]
    end = events[-1]["object"]["metadata"]
    assert end["annotations"] == {INITIAL_END: "true"}
    assert int(end["resourceVersion"]) > 0
    assert later[0] == "ADDED"


async def test_a_bookmark_tells_what_others_did(wire: Wire, pods: str) -> None:
    listed = await wire.get(pods)
    version = listed["metadata"]["resourceVersion"]
    async with wire.watch(
        pods,
        resourceVersion=version,
        allowWatchBookmarks="true",
        timeoutSeconds="4",
    ) as watch:
        other = await wire.done("POST", "/api/v1/namespaces/default/pods", pod("p"))
        events = await watch.rest()
    await wire.done("DELETE", "/api/v1/namespaces/default/pods/p", **NOW)

    assert {event["type"] for event in events} == {"BOOKMARK"}
    told = events[-1]["object"]["metadata"]["resourceVersion"]
    assert int(told) >= int(other["metadata"]["resourceVersion"])


async def test_a_watch_may_be_silent_to_its_end(wire: Wire) -> None:
    """Of a kind that nobody changes there are no bookmarks: silence is no fault."""
    plural = await defined(wire)
    path = f"/apis/{plural}.test/v1/{plural}"
    listed = await wire.get(path)
    async with wire.watch(
        path,
        resourceVersion=listed["metadata"]["resourceVersion"],
        allowWatchBookmarks="true",
        timeoutSeconds="1",
    ) as watch:
        events = await watch.rest()

    assert {event["type"] for event in events} <= {"BOOKMARK"}


async def test_a_field_selector_watches_the_pods_of_a_node(
    wire: Wire, pods: str
) -> None:
    await wire.done("POST", pods, pod("here", node="n1"))
    await wire.done("POST", pods, pod("there", node="n2"))
    await wire.done("POST", pods, pod("unbound"))
    chosen = {"fieldSelector": "spec.nodeName=n1"}
    listed = await wire.get(pods, **chosen)
    version = listed["metadata"]["resourceVersion"]
    async with wire.watch(pods, resourceVersion=version, **chosen) as watch:
        target = {"metadata": {"name": "unbound"}, "target": {"name": "n1"}}
        await wire.done("POST", f"{pods}/unbound/binding", target)
        bound = await watch.next()

    assert [item["metadata"]["name"] for item in listed["items"]] == ["here"]
    assert bound["type"] == "ADDED"
    assert bound["object"]["metadata"]["name"] == "unbound"


async def test_a_label_that_no_longer_matches_is_a_deletion(
    wire: Wire, pods: str
) -> None:
    await wire.done("POST", pods, pod("p", app="web"))
    listed = await wire.get(pods, labelSelector="app in (web)")
    version = listed["metadata"]["resourceVersion"]
    async with wire.watch(
        pods, resourceVersion=version, labelSelector="app in (web)"
    ) as watch:
        for label in ("db", "web"):
            change = {"metadata": {"labels": {"app": label}}}
            changed = await wire.done("PATCH", f"{pods}/p", change)
            event = await watch.next()

            expected = "ADDED" if label == "web" else "DELETED"
            assert event["type"] == expected
            seen = event["object"]["metadata"]["resourceVersion"]
            assert seen == changed["metadata"]["resourceVersion"]
    assert [item["metadata"]["name"] for item in listed["items"]] == ["p"]


async def test_a_finalizer_turns_a_deletion_into_a_change_first(
    wire: Wire, pods: str
) -> None:
    made = await wire.done("POST", pods, pod("p", finalizer="example.test/hold"))
    version = made["metadata"]["resourceVersion"]
    async with wire.watch(pods, resourceVersion=version) as watch:
        await wire.done("DELETE", f"{pods}/p", **NOW)
        going = await watch.next()
        await wire.done("PATCH", f"{pods}/p", {"metadata": {"finalizers": None}})
        gone = await watch.next_of("p")
        while gone[0] == "MODIFIED":
            gone = await watch.next_of("p")

    assert going["type"] == "MODIFIED"
    assert going["object"]["metadata"]["deletionTimestamp"]
    assert gone[0] == "DELETED"


async def test_a_pod_made_again_under_its_name_is_another(
    wire: Wire, pods: str
) -> None:
    made = await wire.done("POST", pods, pod("web-0"))
    version = made["metadata"]["resourceVersion"]
    async with wire.watch(pods, resourceVersion=version) as watch:
        await wire.done("DELETE", f"{pods}/web-0", **NOW)
        await wire.done("POST", pods, pod("web-0"))
        events = [await watch.next_of("web-0")]
        while events[-1][0] != "ADDED":
            events.append(await watch.next_of("web-0"))

    kinds = [kind for kind, _ in events if kind != "MODIFIED"]
    assert kinds == ["DELETED", "ADDED"]
    uids = {one["metadata"]["uid"] for _, one in events}
    assert len(uids | {made["metadata"]["uid"]}) == 2


async def test_a_kind_is_missing_until_its_definition_comes(wire: Wire) -> None:
    status, _ = await wire.call("GET", "/apis/nobody.test/v1/things")
    plural = await defined(wire)
    later, _ = await wire.call("GET", f"/apis/{plural}.test/v1/{plural}")

    assert (status, later) == (404, 200)


async def test_a_streamed_list_needs_its_three_parameters(
    wire: Wire, pods: str
) -> None:
    """A server that ignores them (before 1.32) would answer 200 to each."""
    half = {"sendInitialEvents": "true"}
    status, answer = await wire.call("GET", pods, watch="true", **half)
    other, _ = await wire.call("GET", pods, resourceVersionMatch="NotOlderThan", **half)

    assert (status, answer["reason"]) == (422, "Invalid")
    assert other == 422


async def test_a_stale_write_is_a_conflict(wire: Wire, pods: str) -> None:
    made = await wire.done("POST", pods, pod("p"))
    await wire.done("PATCH", f"{pods}/p", {"metadata": {"labels": {"a": "b"}}})
    stale = {
        "metadata": {
            "resourceVersion": made["metadata"]["resourceVersion"],
            "labels": {"a": "c"},
        }
    }
    status, answer = await wire.call("PATCH", f"{pods}/p", stale)

    assert (status, answer["reason"]) == (409, "Conflict")


async def defined(wire: Wire) -> str:
    """Define a kind and wait until it is served; gives its plural."""
    plural = f"things{uuid.uuid4().hex[:6]}"
    await wire.done("POST", CRDS, definition(plural))
    for _ in range(100):
        status, _ = await wire.call("GET", f"/apis/{plural}.test/v1/{plural}")
        if status == 200:
            return plural
        await asyncio.sleep(0.1)
    raise AssertionError(f"{plural} are not served")


def definition(plural: str) -> Object:
    """Return a definition of a kind that anything may be written into."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": plural.title(), "plural": plural, "singular": plural}
    group = f"{plural}.test"
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": [version]}
    metadata = {"name": f"{plural}.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }
