"""
The composition root: the only place that knows source, compiler, kernel and loop.

One process per node.  A clean stop (SIGTERM, SIGINT) and a ``kill -9`` leave the same
behind: pinned maps, pinned links, flows; traffic goes on, and the next agent adopts
them.  What fails for a reason that an OutgateError names is state and is tried again;
anything else ends the process, and its supervisor starts another.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from typing import Protocol

import structlog

from outgate.agent.config import AgentConfig
from outgate.agent.memory import expect_many_objects, set_aside
from outgate.agent.node_report import report_node
from outgate.agent.report import Counting, Report
from outgate.agent.reporter import Reporter
from outgate.agent.server import Answers, lock_node, serving
from outgate.agent.target import CompiledTarget
from outgate.errors import OutgateError
from outgate.kernel.datapath import jiffies_per_second
from outgate.kernel.linux import KernelConfig, LinuxKernel
from outgate.policy.model import Problem
from outgate.policy.reports import NodeReport
from outgate.policy.xdp import GatewayHook
from outgate.reconcile import ports
from outgate.reconcile.loop import Pace, Reconciler, Round
from outgate.reconcile.retry import delay
from outgate.reconcile.status import State
from outgate.source.client import Client
from outgate.source.interface import Source
from outgate.source.kubeconfig import load
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import Key
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import render_key
from outgate.telemetry.events import Event
from outgate.telemetry.health import why_not_alive, why_not_ready
from outgate.telemetry.logs import configure_logs
from outgate.telemetry.metrics import exposition

log = structlog.get_logger()

STEADY_SECONDS = 60.0
"""Events that were followed so long before they failed count as having worked."""


class NodeKernel(ports.Kernel, Counting, Protocol):
    """The kernel as the agent needs it; the real one and the fake fit by shape."""

    facts: NodeFacts

    async def open(self) -> None:
        """Load what must be loaded, once."""
        ...

    def close(self) -> None:
        """Let go, and leave everything in place."""
        ...

    async def run(self) -> None:
        """Follow the kernel's events, for ever."""
        ...


class Agent:
    """One node's agent over any *kernel* and *source*."""

    def __init__(
        self,
        config: AgentConfig,
        kernel: NodeKernel,
        source: Source,
        client: Client | None = None,
    ) -> None:
        """Make the agent; with a *client* it reports what it observes there."""
        self._config = config
        self._kernel = kernel
        self._source = source
        self._target = CompiledTarget(
            source,
            config.node,
            config.tunnel,
            lambda: kernel.facts,
            config.xdp_setting,
        )
        self._reporter = None if client is None else self._make_reporter(client)
        self._report = Report(config, source, kernel, self._target, self._reporter)
        self._clock = time.monotonic
        self._loop = Reconciler(
            kernel, self._target, self._note_round, Pace(self._clock)
        )
        self._is_set_aside = False
        self._told = _Told()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until *stop* is set."""
        async with AsyncExitStack() as stack:
            stack.enter_context(lock_node(self._config.status_socket))
            await self._kernel.open()
            stack.callback(self._kernel.close)
            await stack.enter_async_context(serving(self._config, self._answers()))
            log.info(Event.AGENT_STARTED, pin_dir=str(self._config.pin_dir))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._source.run(), name="source"),
                    group.create_task(self._follow_kernel(), name="kernel"),
                    group.create_task(self._loop.run(), name="reconcile"),
                ]
                if self._reporter is not None:
                    tasks.append(group.create_task(self._reporter.run(), name="report"))
                await stop.wait()
                for task in tasks:
                    task.cancel()
        log.info(Event.AGENT_STOPPED)

    async def _follow_kernel(self) -> None:
        attempts = 0
        while True:
            started = self._clock()
            try:
                await self._kernel.run()
            except* OutgateError as errors:
                is_steady = self._clock() - started >= STEADY_SECONDS
                attempts = 1 if is_steady else attempts + 1
                log.warning(
                    Event.KERNEL_EVENTS_FAILED,
                    error="; ".join(str(error) for error in errors.exceptions),
                )
            await asyncio.sleep(delay(max(attempts, 1)))

    def _make_reporter(self, client: Client) -> Reporter:
        engine = self._target.engine
        return Reporter(client, self._node_report, lambda: engine.is_candidate)

    def _node_report(self) -> NodeReport:
        return report_node(
            self._config.node,
            self._kernel.facts,
            self._target.engine,
            self._loop.ledger,
            self._report.vitals(self._loop, self._clock()),
        )

    def _answers(self) -> Answers:
        def now() -> float:
            return self._clock()

        report, loop = self._report, self._loop
        return Answers(
            status=lambda: report.status(loop, now()),
            entries=lambda: report.entries(loop, now()),
            policies=report.policies,
            metrics=lambda: exposition(report.statistics(loop)),
            why_not_alive=lambda: why_not_alive(report.vitals(loop, now())),
            why_not_ready=lambda: why_not_ready(report.vitals(loop, now())),
        )

    def _note_round(self, done: Round) -> None:
        self._report.note_round(done, self._clock())
        if done.error is not None:
            log.warning(Event.ROUND_FAILED, round=done.number, error=done.error)
            return
        if done.is_complete and not self._is_set_aside:
            self._is_set_aside = True
            set_aside()
        write = log.info if done.added or done.removed or done.failed else log.debug
        write(
            Event.ROUND,
            round=done.number,
            added=done.added,
            removed=done.removed,
            failed=done.failed,
            kept=done.kept,
            complete=done.is_complete,
            seconds=round(done.seconds, 4),
        )
        self._told.failures(self._loop)
        self._told.source_errors(dict(self._source.errors))
        self._told.problems(self._target.problems)


class _Told:
    """What the log has said already, so that it says each thing once."""

    def __init__(self) -> None:
        self._failing: set[Key] = set()
        self._source_errors: dict[str, str] = {}
        self._problems: tuple[Problem, ...] = ()

    def failures(self, loop: Reconciler) -> None:
        opened = loop.ledger.open.items()
        failing = {key: status for key, status in opened if status.state is State.ERROR}
        for key in failing.keys() - self._failing:
            kind, subject = render_key(key)
            error = failing[key].error
            log.warning(Event.ENTRY_FAILED, kind=kind, entry=subject, error=error)
        self._failing = set(failing)

    def source_errors(self, errors: dict[str, str]) -> None:
        if errors != self._source_errors:
            write = log.warning if errors else log.info
            write(Event.SOURCE_ERRORS, errors=errors)
            self._source_errors = errors

    def problems(self, problems: tuple[Problem, ...]) -> None:
        if problems != self._problems:
            found = [f"{p.object}: {p.path}: {p.message}" for p in problems]
            write = log.warning if found else log.info
            write(Event.PROBLEMS, problems=found)
            self._problems = problems


async def run_agent(config: AgentConfig) -> None:
    """
    Run the agent of this node until SIGTERM or SIGINT.

    Errors: an OutgateError when it cannot start.
    """
    expect_many_objects()
    configure_logs(config.log_format)
    structlog.contextvars.bind_contextvars(node=config.node)
    connection = load(config.kubeconfig, config.context)
    kernel_config = KernelConfig(
        config.pin_dir,
        config.tunnel_device,
        config.datapath_settings(jiffies_per_second()),
        config.attach,
        is_xdp_used=config.xdp_setting is not GatewayHook.TC,
    )
    async with Client(connection) as client:
        source = KubernetesSource(client, config.node, config.cluster_networks)
        agent = Agent(config, LinuxKernel(kernel_config), source, client)
        await agent.run(_stop_on_signals())


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
