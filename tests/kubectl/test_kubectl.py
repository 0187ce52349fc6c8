"""What a user reads: get, describe, explain, wait, discovery."""

from __future__ import annotations

import json

from kubectl.driver import Kubectl, apply_route, words


def test_version_reads_the_servers(kubectl: Kubectl) -> None:
    assert "Server Version: v1." in kubectl("version")


def test_cluster_info_names_the_server(kubectl: Kubectl) -> None:
    said = kubectl("cluster-info")

    assert "is running at" in said
    assert kubectl.url in said


def test_api_resources_lists_custom_kinds_with_short_names(kubectl: Kubectl) -> None:
    lines = kubectl("api-resources").splitlines()

    assert ["routes", "rt", "example.test/v1", "false", "Route"] in map(words, lines)


def test_get_prints_the_columns_of_pods(kubectl: Kubectl) -> None:
    head, row = kubectl("get", "pods").splitlines()

    assert words(head) == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert words(row)[:4] == ["web", "0/1", "Pending", "0"]


def test_get_wide_adds_the_node(kubectl: Kubectl) -> None:
    head, row = kubectl("get", "pods", "-o", "wide").splitlines()

    assert head.endswith("NODE   NOMINATED NODE   READINESS GATES")
    assert words(row)[5:7] == ["<none>", "n1"]


def test_get_wide_of_nodes_shows_roles_and_addresses(kubectl: Kubectl) -> None:
    _, row = kubectl("get", "nodes", "-o", "wide").splitlines()

    assert words(row)[:3] == ["n1", "Ready", "control-plane"]
    assert words(row)[4:8] == ["v1.32.0", "172.18.0.4", "<none>", "Debian"]


def test_get_yaml_json_name_are_the_same_object(kubectl: Kubectl) -> None:
    obj = json.loads(kubectl("get", "pod", "web", "-o", "json"))

    assert f"uid: {obj['metadata']['uid']}" in kubectl("get", "pod/web", "-o", "yaml")
    assert kubectl("get", "pods", "-o", "name") == "pod/web"


def test_get_jsonpath_with_field_selectors(kubectl: Kubectl) -> None:
    selector = "--field-selector=spec.nodeName=n1,status.phase=Pending"
    path = "-o=jsonpath={.items[0].metadata.name}"

    assert kubectl("get", "pods", selector, path) == "web"
    other = kubectl("get", "pods", "--field-selector=spec.nodeName=n2", "-o", "name")
    assert other == ""


def test_get_label_selector_understands_sets(kubectl: Kubectl) -> None:
    chosen = kubectl("get", "pods", "-l", "app in (web, db),!old", "-o", "name")
    none = kubectl("get", "pods", "-l", "app notin (web)", "-o", "name")

    assert (chosen, none) == ("pod/web", "")


def test_get_all_namespaces_has_a_namespace_column(kubectl: Kubectl) -> None:
    lines = kubectl("get", "pods", "-A").splitlines()

    assert words(lines[0])[0] == "NAMESPACE"
    assert [kubectl.namespace, "web"] in [words(line)[:2] for line in lines]


def test_get_watch_shows_a_change(kubectl: Kubectl) -> None:
    watch = kubectl.start("get", "pods", "-w", "-o", "name")
    assert watch.stdout is not None
    try:
        assert watch.stdout.readline().strip() == "pod/web"
        kubectl("label", "pod", "web", "seen=yes")
        assert watch.stdout.readline().strip() == "pod/web"
    finally:
        watch.terminate()
        watch.wait(5)


def test_get_of_an_unknown_kind_says_so(kubectl: Kubectl) -> None:
    answer = kubectl.run("get", "gadgets")

    assert answer.code == 1
    assert "doesn't have a resource type" in answer.err


def test_describe_pod_shows_its_events(kubectl: Kubectl) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "web."},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web",
            "namespace": kubectl.namespace,
            "uid": kubectl("get", "pod", "web", "-o=jsonpath={.metadata.uid}"),
        },
        "reason": "Started",
        "message": "started container main",
        "type": "Normal",
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))

    assert "started container main" in kubectl("describe", "pod", "web")
    assert "started container main" in kubectl("events", "--for", "pod/web")
    chosen = kubectl("get", "events", "--field-selector=involvedObject.name=web")
    assert "pod/web" in chosen


def test_describe_works_for_every_kind(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-describe", "1.1.1.1")
    kubectl("create", "configmap", "cm", "--from-literal=a=b")

    assert "control-plane" in kubectl("describe", "node", "n1")
    assert "Active" in kubectl("describe", "namespace", kubectl.namespace)
    assert "10.96.0.1" in kubectl("describe", "svc", "kubernetes", "-n", "default")
    assert "Via:" in kubectl("describe", "rt", "r-describe")
    assert "Data" in kubectl("describe", "configmap", "cm")
    assert "default" in kubectl("describe", "serviceaccount", "default")
    assert "Established" in kubectl("describe", "crd", "routes.example.test")


def test_explain_reads_built_in_and_custom_fields(kubectl: Kubectl) -> None:
    assert "The first hop." in kubectl("explain", "routes.spec.via")
    assert "FIELD: spec <PodSpec>" in kubectl("explain", "pod.spec")
    assert "destination" not in kubectl("explain", "node", "--recursive")


def test_wait_for_a_condition(kubectl: Kubectl) -> None:
    status = (
        '{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}'
    )
    waiting = kubectl.start("wait", "--for=condition=Ready", "pod/web", "--timeout=10s")
    kubectl("patch", "pod", "web", "--subresource=status", "-p", status)

    assert waiting.wait(10) == 0
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=5s")


def test_wait_times_out_with_an_error(kubectl: Kubectl) -> None:
    answer = kubectl.run("wait", "--for=condition=Never", "pod/web", "--timeout=1s")

    assert answer.code == 1
    assert "timed out" in answer.err
