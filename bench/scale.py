"""
Cases ``scale/…``: one agent in a cluster of 100,000 pods on 5,000 nodes.

Three clusters (1,000 policies of 10 networks; 100 policies of 1,000; the first again,
smaller), two nodes each: one that only has pods, and a gateway.  Every stage is a fresh
agent process in namespaces of its own; stages that wait more than they work run beside
each other.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any

from bench import isolation
from bench.plan import Plan
from bench.results import Result, against_target
from bench.world import PolicyKind, World

Found = dict[str, Any]

SYNC_TARGETS = {"node": (3.0, 120.0), "gateway": (15.0, 600.0)}
"""Seconds, and megabytes, from issue and README: first full sync of each role."""

CHANGE_TARGET_MS = 20.0

LOG_TAIL = 4000
"""Characters of an agent's log to show when its stage failed."""

IDLE = ("idle", "empty-rounds", "heartbeats")

SMALLER = (10, 100)
"""How many times smaller the clusters are that the idle rounds are compared in."""


def world_of(nodes: int, kind: PolicyKind = PolicyKind.GATEWAY) -> World:
    """Return the cluster whose 1,000 policies have 10 networks, or its equal share."""
    return World(
        nodes=nodes,
        policies=max(nodes // 5, 1),
        networks=10,
        gateways=max(nodes // 50, 1),
        kind=kind,
    )


def with_networks(world: World, networks: int) -> World:
    """Return the same with a tenth of the policies, each of *networks*."""
    return replace(world, policies=max(world.policies // 10, 1), networks=networks)


def measure(is_quick: bool, logs: Path) -> list[Result]:
    """Run all stages; *is_quick*: a fiftieth of everything, to see that it works."""
    world = world_of(100 if is_quick else 5000)
    many = with_networks(world, 30 if is_quick else 1000)
    sizes: dict[str, Any] = (
        {
            "pod_changes": 12,
            "policy_changes": 6,
            "quiet_seconds": 1.0,
            "churn_seconds": 2.0,
            "churn_rate": 50.0,
        }
        if is_quick
        else {}
    )
    last = world.ordinary_node
    steps = ("pods", "policies", *IDLE)
    node = Plan(world, last, steps, **sizes)
    gateway = Plan(world, 0, (*steps[:2], "unknown-pods", *steps[2:], "churn"), **sizes)
    results = [
        *_node_results("node", _run(node, logs, "node")),
        *_node_results("gateway", _run(gateway, logs, "gateway")),
        *_many_results(many, logs),
    ]
    if not is_quick:
        results += _idle_results(gateway, results, logs)
    return results


def _run(plan: Plan, logs: Path, name: str) -> Found:
    """Run one stage; if it fails, show the end of what its agent said."""
    log = logs / f"{name}.log"
    try:
        printed = isolation.run_inside("bench.stage", (plan.to_json(), str(log)))
    except CalledProcessError:
        if log.exists():
            print(log.read_text()[-LOG_TAIL:], file=sys.stderr)
        raise
    found: Found = json.loads(printed)
    return found


def _node_results(role: str, found: Found) -> list[Result]:
    rows = found["rows"]

    def result(name: str, value: float, unit: str) -> Result:
        return Result(f"scale/{role}/{name}", round(value, 4), unit, rows=rows)

    seconds, megabytes = SYNC_TARGETS[role]
    results = [
        against_target(result("first-sync", found["first_sync_seconds"], "s"), seconds),
        result("first-sync-cpu", found["first_sync_cpu_seconds"], "s"),
        result("first-sync-server-cpu", found["server_cpu_seconds"], "s"),
        against_target(result("peak-memory", found["peak_memory_mb"], "MB"), megabytes),
        result("memory", found["memory_mb"], "MB"),
    ]
    for name, key in _LATENCIES.items():
        if key in found:
            middle, late = percentiles(found[key])
            results.append(result(f"{name}-p50", middle, "ms"))
            late_result = result(f"{name}-p99", late, "ms")
            results.append(against_target(late_result, CHANGE_TARGET_MS))
    for name, (key, unit) in _PLAIN.items():
        if key in found:
            results.append(result(name, found[key], unit))
    return results


_LATENCIES = {
    "pod-change": "pod_changes_ms",
    "policy-change": "policy_changes_ms",
    "policy-on-unknown-pods": "unknown_pods_ms",
    "churn-lag": "churn_lag_ms",
}

_PLAIN = {
    "idle-cpu": ("idle_cpu_ms_per_s", "ms/s"),
    "empty-round-cpu": ("empty_round_cpu_ms", "ms"),
    "heartbeats-cpu": ("heartbeats_cpu_ms_per_s", "ms/s"),
    "churn-cpu": ("churn_cpu_share", "CPUs"),
    "churn-server-cpu": ("churn_server_cpu_share", "CPUs"),
    "churn-settle": ("churn_settle_seconds", "s"),
}


def _many_results(world: World, logs: Path) -> list[Result]:
    """Measure the cluster of many networks: first syncs, and rows a second."""
    results = []
    for role, node, steps in (
        ("node", world.ordinary_node, ()),
        ("gateway", 0, ("rows",)),
    ):
        found = _run(Plan(world, node, steps), logs, f"{role}-many")
        prefix, rows = f"scale/{role}-many-networks", found["rows"]
        seconds, megabytes = SYNC_TARGETS[role]
        sync = found["first_sync_seconds"], found["peak_memory_mb"]
        results += [
            against_target(
                Result(f"{prefix}/first-sync", round(sync[0], 4), "s", rows=rows),
                seconds,
            ),
            against_target(
                Result(f"{prefix}/peak-memory", round(sync[1], 1), "MB", rows=rows),
                megabytes,
            ),
        ]
        for name in ("rows_programmed_per_second", "rows_removed_per_second"):
            if name in found:
                case = f"{prefix}/{name.replace('_per_second', '').replace('_', '-')}"
                results.append(Result(case, round(found[name]), "rows/s", rows=rows))
    return results


def _idle_results(full: Plan, known: Sequence[Result], logs: Path) -> list[Result]:
    """Measure the gateway's idle rounds in smaller clusters, beside each other."""
    plans = {
        times: replace(
            full,
            world=world_of(full.world.nodes // times),
            steps=IDLE,
        )
        for times in SMALLER
    }
    with ThreadPoolExecutor(len(plans)) as pool:
        runs = {
            times: pool.submit(_run, plan, logs, f"idle-{times}")
            for times, plan in plans.items()
        }
    by_case = {result.case: result for result in known}
    results = []
    for times, run in runs.items():
        found = run.result()
        for name in ("idle-cpu", "empty-round-cpu", "heartbeats-cpu"):
            key, unit = _PLAIN[name]
            value = round(found[key], 4)
            case = f"scale/gateway/{name}-in-1/{times}-cluster"
            whole = by_case[f"scale/gateway/{name}"]
            ratio = round(value / whole.value, 3) if whole.value else None
            results.append(
                Result(case, value, unit, 0, found["rows"], whole.case, ratio)
            )
    return results


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """
    Return the 50th and the 99th percentile.

    >>> percentiles([1.0, 2.0, 3.0])
    (2.0, 3.0)
    """
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], max(values) if len(values) < 100 else cuts[98]


def run(is_quick: bool) -> list[Result]:
    """Measure all cases of this module; what agents logged goes away unread."""
    with TemporaryDirectory(prefix="outgate-bench-") as folder:
        return measure(is_quick, Path(folder))
