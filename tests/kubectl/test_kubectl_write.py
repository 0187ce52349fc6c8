"""What a user writes: apply, create, patch, label, diff, replace, edit."""

from __future__ import annotations

import json

import pytest

from kubectl.driver import HERE, READY, ROUTE, WEB, Kubectl, apply_route, words


def test_apply_twice_is_unchanged(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", WEB) == "pod/web unchanged"


def test_apply_of_a_changed_custom_object_configures_it(kubectl: Kubectl) -> None:
    assert apply_route(kubectl, "r-apply", "1.1.1.1").endswith("created")
    assert apply_route(kubectl, "r-apply", "1.1.1.2").endswith("configured")

    path = "-o=jsonpath={.spec.via} {.spec.metric} {.metadata.generation}"
    assert kubectl("get", "rt", "r-apply", path) == "1.1.1.2 10 2"


def test_apply_of_a_pod_may_change_its_image(kubectl: Kubectl) -> None:
    text = (HERE / "web.yaml").read_text("utf-8").replace("1.36", "1.37")

    assert kubectl("apply", "-f", "-", stdin=text) == "pod/web configured"
    path = "-o=jsonpath={.spec.containers[*].image} {.spec.containers[0].env[0].name}"
    assert kubectl("get", "pod", "web", path) == "busybox:1.37 A"


def test_apply_refuses_an_unknown_field(kubectl: Kubectl) -> None:
    text = ROUTE.format(name="r-strict", via="1.1.1.1").replace("networks", "netwroks")
    answer = kubectl.run("apply", "-f", "-", stdin=text)

    assert answer.code == 1
    assert 'unknown field "spec.netwroks"' in answer.err


def test_apply_without_validation_prunes_an_unknown_field(kubectl: Kubectl) -> None:
    text = ROUTE.format(name="r-prune", via="1.1.1.1").replace("networks", "netwroks")
    kubectl("apply", "--validate=false", "-f", "-", stdin=text)

    assert "netwroks:" not in kubectl("get", "rt", "r-prune", "-o", "yaml")


def test_apply_names_the_field_that_breaks_the_schema(kubectl: Kubectl) -> None:
    text = ROUTE.format(name="r-bad", via="nowhere")
    answer = kubectl.run("apply", "-f", "-", stdin=text)

    assert answer.code == 1
    assert 'spec.via: Invalid value: "nowhere"' in answer.err


def test_server_side_apply_conflicts_over_a_value(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-ssa", "1.1.1.1", "--server-side", "--field-manager=a")
    text = ROUTE.format(name="r-ssa", via="2.2.2.2")
    flags = ("apply", "--server-side", "--field-manager=b", "-f", "-")
    answer = kubectl.run(*flags, stdin=text)

    assert answer.code == 1
    assert 'conflict with "a": .spec.via' in answer.err
    kubectl(*flags, "--force-conflicts", stdin=text)
    assert kubectl("get", "rt", "r-ssa", "-o=jsonpath={.spec.via}") == "2.2.2.2"


def test_server_side_apply_takes_over_from_client_side(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-migrate", "1.1.1.1")
    apply_route(kubectl, "r-migrate", "1.1.1.3", "--server-side")

    managers = "-o=jsonpath={.metadata.managedFields[*].manager}"
    owners = words(kubectl("get", "rt", "r-migrate", managers))
    assert sorted(owners) == ["kubectl", "kubectl-last-applied"]


def test_create_of_what_exists_is_refused(kubectl: Kubectl) -> None:
    answer = kubectl.run("create", "-f", WEB)

    assert answer.code == 1
    assert "AlreadyExists" in answer.err


def test_create_reads_protobuf_bodies(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "settings", "--from-literal=a=b")
    kubectl("create", "serviceaccount", "bob")
    kubectl("create", "secret", "generic", "key", "--from-literal=k=v")
    kubectl("create", "service", "clusterip", "svc", "--tcp=80:8080")

    assert kubectl("get", "cm", "settings", "-o=jsonpath={.data.a}") == "b"
    assert kubectl("get", "secret", "key", "-o=jsonpath={.data.k}") == "dg=="
    ports = kubectl("get", "svc", "svc", "-o=jsonpath={.spec.ports[0].targetPort}")
    assert ports == "8080"
    assert "serviceaccount/bob" in kubectl("get", "sa", "-o", "name")


def test_dry_run_on_the_server_stores_nothing(kubectl: Kubectl) -> None:
    said = kubectl("create", "configmap", "ghost", "--dry-run=server")

    assert said.endswith("(server dry run)")
    assert kubectl.run("get", "configmap", "ghost").code == 1


def test_label_and_annotate_write_only_changes(kubectl: Kubectl) -> None:
    assert kubectl("label", "pod", "web", "tier=front") == "pod/web labeled"
    assert kubectl("label", "pod", "web", "tier=front") == "pod/web not labeled"
    assert kubectl("annotate", "pod", "web", "note=x") == "pod/web annotated"
    assert kubectl("label", "pod", "web", "tier-") == "pod/web unlabeled"


def test_patch_in_all_three_ways(kubectl: Kubectl) -> None:
    kubectl("patch", "pod", "web", "-p", '{"metadata":{"labels":{"a":"1"}}}')
    kubectl(
        "patch", "pod", "web", "--type=merge", "-p", '{"metadata":{"labels":{"b":"2"}}}'
    )
    operation = '[{"op":"add","path":"/metadata/labels/c","value":"3"}]'
    kubectl("patch", "pod", "web", "--type=json", "-p", operation)

    labels = json.loads(kubectl("get", "pod", "web", "-o=jsonpath={.metadata.labels}"))
    assert labels == {"app": "web", "a": "1", "b": "2", "c": "3"}


def test_patch_without_effect_says_so(kubectl: Kubectl) -> None:
    said = kubectl("patch", "pod", "web", "-p", '{"metadata":{"labels":{"app":"web"}}}')

    assert said == "pod/web patched (no change)"


def test_strategic_patch_of_a_custom_object_is_refused(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-patch", "1.1.1.1")
    answer = kubectl.run("patch", "rt", "r-patch", "-p", '{"spec":{"metric":1}}')

    assert answer.code == 1
    assert "application/strategic-merge-patch+json" in answer.err


def test_status_is_written_apart_from_the_spec(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-status", "1.1.1.1")
    both = json.dumps({"spec": {"metric": 7}, "status": {"conditions": [READY]}})
    kubectl(
        "patch", "rt", "r-status", "--type=merge", "--subresource=status", "-p", both
    )

    row = kubectl("get", "rt", "r-status").splitlines()[1]
    assert words(row) == ["r-status", "1.1.1.1", "True"]
    assert kubectl("get", "rt", "r-status", "-o=jsonpath={.spec.metric}") == "10"


def test_diff_shows_what_would_change(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-diff", "1.1.1.1")
    same = kubectl.run(
        "diff", "-f", "-", stdin=ROUTE.format(name="r-diff", via="1.1.1.1")
    )
    other = kubectl.run(
        "diff", "-f", "-", stdin=ROUTE.format(name="r-diff", via="9.9.9.9")
    )

    assert (same.code, other.code) == (0, 1)
    assert "+  via: 9.9.9.9" in other.out


def test_replace_keeps_the_uid(kubectl: Kubectl) -> None:
    apply_route(kubectl, "r-replace", "1.1.1.1")
    uid = kubectl("get", "rt", "r-replace", "-o=jsonpath={.metadata.uid}")
    text = ROUTE.format(name="r-replace", via="3.3.3.3")
    kubectl("replace", "-f", "-", stdin=text)

    path = "-o=jsonpath={.metadata.uid} {.spec.via}"
    assert kubectl("get", "rt", "r-replace", path) == f"{uid} 3.3.3.3"


def test_edit_stores_what_the_editor_left(
    kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/busybox:1.36/busybox:1.99/")

    assert kubectl("edit", "pod", "web") == "pod/web edited"
    path = "-o=jsonpath={.spec.containers[0].image}"
    assert kubectl("get", "pod", "web", path) == "busybox:1.99"


def test_cordon_marks_the_node(kubectl: Kubectl) -> None:
    kubectl("cordon", "n1")
    assert "SchedulingDisabled" in kubectl("get", "node", "n1")
    kubectl("uncordon", "n1")
    assert "SchedulingDisabled" not in kubectl("get", "node", "n1")


def test_run_makes_a_pod(kubectl: Kubectl) -> None:
    assert kubectl("run", "one", "--image=busybox") == "pod/one created"
    path = "-o=jsonpath={.spec.containers[0].imagePullPolicy} {.status.phase}"
    assert kubectl("get", "pod", "one", path) == "Always Pending"


def test_leases_can_be_applied(kubectl: Kubectl) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "n1"},
        "spec": {"holderIdentity": "n1", "renewTime": "2024-01-01T00:00:00.000000Z"},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(lease))

    assert words(kubectl("get", "lease", "n1").splitlines()[1])[:2] == ["n1", "n1"]
