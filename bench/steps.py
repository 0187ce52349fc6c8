"""
What is measured on a node once it is in step with its cluster.

Each step leaves the cluster as it found it and checks the whole map at its end: a
number of an agent that does wrong is worth nothing.  Latencies are in milliseconds,
from the moment when the API server has the change to the moment when a poller finds
the last of its rows (and no longer those that must be gone) in the kernel's map.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from bench import isolation
from bench.stage import SETTLE_SECONDS, Stage
from bench.world import Pod, Policy, Rows
from outgate.agent.ask import ask

HEARTBEAT_SECONDS = 300
"""How often each node reports while nothing changes (nodeStatusReportFrequency)."""

EMPTY_ROUNDS = 50
EMPTY_ROUND_SECONDS = 0.05
STATUS_SOCKET = Path("/run/outgate/agent.sock")

CHURN_PROBE_SECONDS = 0.1
CHURN_SEED = 4


def _milliseconds(stage: Stage, wanted: Rows, gone: Rows) -> float:
    """Return how long the change took whose command was sent just now."""
    done = stage.wait_for(wanted, gone)
    started: int = stage.server.control.answer()["at"]
    return (done - started) / 1e6


def change_pods(stage: Stage) -> None:
    """Let pods come, change their application, and go."""
    lives = _pod_lives(stage)
    stage.found["pod_changes_ms"] = [
        next(lives) for _ in range(stage.plan.pod_changes // 3 * 3)
    ]
    stage.settle()


def _pod_lives(stage: Stage) -> Iterator[float]:
    """Yield milliseconds of one change after another, three to a pod's life."""
    control, apps = stage.server.control, cycle(stage.apps)
    app = next(apps)
    # More numbers than a pod can live: an address is not used again at once.
    for number in cycle(range(150)):
        pod, app = _new_pod(stage, number, app), next(apps)
        control.send("put_pod", **_fields(pod))
        yield _milliseconds(stage, stage.rows_of(pod), {})
        changed = pod._replace(app=app)
        control.send("put_pod", **_fields(changed))
        yield _milliseconds(stage, stage.rows_of(changed), stage.rows_of(pod))
        control.send("delete_pod", key=pod.key)
        yield _milliseconds(stage, {}, stage.rows_of(changed))


def _new_pod(stage: Stage, number: int, app: int) -> Pod:
    node = (number * 7 + 1) % stage.world.nodes
    return stage.world.another_pod(
        number, node if stage.is_gateway else stage.plan.node, app
    )


def _fields(pod: Pod) -> dict[str, int]:
    return {"number": pod.number, "node": pod.node, "host": pod.host, "app": pod.app}


def change_policies(stage: Stage) -> None:
    """Let policies on pods known here come, change their networks, and go."""
    stage.found["policy_changes_ms"] = list(_policy_lives(stage, stage.apps))
    stage.settle()


def widen_policies(stage: Stage) -> None:
    """Let policies come that select pods which this gateway does not know yet."""
    strangers = [app for app in range(stage.world.policies) if app not in stage.apps]
    lives = _policy_lives(stage, strangers[: stage.plan.policy_changes])
    stage.found["unknown_pods_ms"] = list(lives)[::3]
    stage.settle()


def _policy_lives(stage: Stage, apps: Sequence[int]) -> Iterator[float]:
    control, world = stage.server.control, stage.world
    beyond = world.policies * world.networks
    for number, app in zip(range(stage.plan.policy_changes // 3), cycle(apps)):
        first = beyond + 2 * number * world.networks
        networks = range(first, first + world.networks)
        gateway = stage.plan.node if stage.is_gateway else app % world.gateways
        policy = Policy(world.policies + number, app, gateway, networks)
        later = policy._replace(
            networks=range(networks.stop, networks.stop + world.networks)
        )
        control.send("put_policy", **_policy_fields(policy))
        yield _milliseconds(stage, _rows(stage, policy), {})
        control.send("put_policy", **_policy_fields(later))
        yield _milliseconds(stage, _rows(stage, later), _rows(stage, policy))
        control.send("delete_policy", key=policy.key)
        yield _milliseconds(stage, {}, _rows(stage, later))


def _policy_fields(policy: Policy) -> dict[str, object]:
    networks = [policy.networks.start, policy.networks.stop]
    number, app, gateway, *_ = policy
    return {"number": number, "app": app, "gateway": gateway, "networks": networks}


def _rows(stage: Stage, policy: Policy) -> Rows:
    rows: Rows = {}
    for pod in stage.pods_of(policy.app):
        rows |= stage.rows_of(pod, policy)
    return rows


def replace_policy(stage: Stage) -> None:
    """Delete the policy with the most rows here, and let it come again."""
    policy = stage.world.policy(stage.apps[0])
    rows = _rows(stage, policy)
    control = stage.server.control
    started = control.ask("delete_policy", key=policy.key)["at"]
    gone = stage.wait_for({}, rows, SETTLE_SECONDS)
    stage.found["rows_removed_per_second"] = len(rows) / (gone - started) * 1e9
    started = control.ask("put_policy", **_policy_fields(policy))["at"]
    there = stage.wait_for(rows, (), SETTLE_SECONDS)
    stage.found["rows_programmed_per_second"] = len(rows) / (there - started) * 1e9
    stage.settle()


def stay_quiet(stage: Stage) -> None:
    """Measure what the agent uses while nothing changes."""
    stage.found["idle_cpu_ms_per_s"] = _cpu_share(stage) * 1e3


def hear_heartbeats(stage: Stage) -> None:
    """Measure what the agent uses while only nodes report that they live."""
    rate = stage.world.nodes / HEARTBEAT_SECONDS
    seconds = stage.plan.quiet_seconds
    stage.server.control.ask("heartbeats", rate=rate, seconds=seconds)
    stage.found["heartbeats_cpu_ms_per_s"] = _cpu_share(stage) * 1e3
    stage.server.control.ask("wait")


def look_for_nothing(stage: Stage) -> None:
    """Measure rounds in which the agent is called and nothing has to be done."""
    before, used = _rounds(), stage.agent.cost.cpu_seconds()
    with isolation.link_settings() as set_link:
        for turn in range(EMPTY_ROUNDS):
            set_link(f"dev wire mtu {1400 + turn % 2}")
            time.sleep(EMPTY_ROUND_SECONDS)
    used = stage.agent.cost.cpu_seconds() - used
    rounds = max(_rounds() - before, 1)
    stage.found["empty_round_cpu_ms"] = used * 1e3 / rounds
    stage.settle()


def _rounds() -> int:
    """Return how many rounds the agent has made, as it tells it itself."""
    number: int = ask(STATUS_SOCKET, "/status")["lastRound"]["number"]
    return number


def _cpu_share(stage: Stage) -> float:
    """Return CPU seconds of the agent per second, over the plan's quiet time."""
    before, started = stage.agent.cost.cpu_seconds(), time.monotonic()
    time.sleep(stage.plan.quiet_seconds)
    used = stage.agent.cost.cpu_seconds() - before
    return used / (time.monotonic() - started)


def churn(stage: Stage) -> None:
    """Change many pods a second, and meanwhile follow single ones among them."""
    plan, control = stage.plan, stage.server.control
    cpu, server_cpu = stage.agent.cost.cpu_seconds(), stage.server.cost.cpu_seconds()
    seconds = plan.churn_seconds
    arguments = {"gateway": plan.node, "rate": plan.churn_rate, "seconds": seconds}
    control.ask("churn", seed=CHURN_SEED, **arguments)
    end = time.monotonic() + seconds
    lives, lags = _pod_lives(stage), []
    while time.monotonic() < end:
        lags += [next(lives), next(lives), next(lives)]
        time.sleep(CHURN_PROBE_SECONDS)
    control.ask("wait")
    used = stage.agent.cost.cpu_seconds() - cpu
    server_used = stage.server.cost.cpu_seconds() - server_cpu
    ended = time.monotonic()
    stage.expected = stage.rows_on(Pod(*fields) for fields in control.ask("pods"))
    stage.settle()
    stage.found |= {
        "churn_lag_ms": lags,
        "churn_cpu_share": used / seconds,
        "churn_server_cpu_share": server_used / seconds,
        "churn_settle_seconds": time.monotonic() - ended,
        "churn_rows": len(stage.expected),
    }


STEPS: dict[str, Callable[[Stage], None]] = {
    "pods": change_pods,
    "policies": change_policies,
    "unknown-pods": widen_policies,
    "rows": replace_policy,
    "idle": stay_quiet,
    "empty-rounds": look_for_nothing,
    "heartbeats": hear_heartbeats,
    "churn": churn,
}
