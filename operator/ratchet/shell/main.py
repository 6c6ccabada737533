"""The operator's process: settings, wiring, kopf, and a graceful stop.

This is the one place where objects are wired together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import kopf
from aiohttp import web

from ratchet.api import names
from ratchet.build.settings import SandboxSettings
from ratchet.core import events as e
from ratchet.core.state import State
from ratchet.edges.access import Access
from ratchet.edges.claim import KubeJournals
from ratchet.edges.discovery import NotServed, expect_kinds
from ratchet.edges.kube import Kube, KubeConfigError
from ratchet.edges.lease import LeaseLock
from ratchet.edges.model import ModelClient
from ratchet.edges.rules import RuleProcess
from ratchet.edges.sandboxes import KubeSandboxes
from ratchet.edges.schemas import check_arguments
from ratchet.edges.secrets import KeyReader
from ratchet.failpoints import Faults, enable
from ratchet.observe import log, metrics
from ratchet.shell.clock import SystemClock
from ratchet.shell.endpoints import open_gate
from ratchet.shell.failing import failing
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import EndpointsSeen, register
from ratchet.shell.leadership import Leadership
from ratchet.shell.probes import Readiness, serve_probes
from ratchet.shell.processfaults import FailpointError, read_faults
from ratchet.shell.runner import Listener
from ratchet.shell.settings import Settings, SettingsError, read_settings
from ratchet.shell.stateless import NoDiffBase, NoProgress
from ratchet.shell.supervisor import Supervisor, World
from ratchet.shell.survey import Survey
from ratchet.shell.targets import known_to_listen
from ratchet.shell.watching import Login, Watch

_log = logging.getLogger("ratchet.main")

API_OUTAGE_BACKOFFS_S = (1, 2, 3, 5, 8, *[10] * 36)
"""Between kopf's tries while the API server answers with errors, in seconds: more than 6 minutes.

After the last one of a list the process ends. A watch that is refused is tried for ever, since kopf
begins it anew after 70 s of silence; so is a server that cannot be reached, but not at the start.
The longest one is short, since nothing new is heard of until then when the server is back.
"""
API_CONNECT_S, API_ANSWER_S = 10.0, 60.0
"""kopf's patience with a connection, and with the answer to a request that is no watch. Its own 300 s
would be the price of one packet that is lost on the way to a server that has gone."""


def main() -> int:
    """Run until SIGTERM or SIGINT. The exit code is 1 where the operator could not go on."""
    try:
        settings, faults = read_settings(), read_faults()
    except (SettingsError, FailpointError) as error:
        print(error, file=sys.stderr)
        return 2
    log.set_up(settings.log_level)
    try:
        with enable(faults):
            asyncio.run(operate(settings, with_failpoints(faults)))
    except (KubeConfigError, NotServed) as error:
        _log.error("%s", error)
        return 1
    return 0


def unchanged(world: World) -> World:
    """The world as it is wired."""
    return world


def with_failpoints(faults: Faults | None) -> Callable[[World], World]:
    """Puts failpoints around our ports; without faults they are as they are wired."""
    return unchanged if faults is None else failing


async def operate(settings: Settings, around: Callable[[World], World] = unchanged) -> None:
    """The operator from its start to its graceful end. `around` may put measuring ports around ours."""
    async with AsyncExitStack() as opened:
        api = await opened.enter_async_context(await Kube.connect())
        access = Access(KeyReader(api))
        model = await opened.enter_async_context(ModelClient(access))
        rules = await opened.enter_async_context(RuleProcess())
        freshness = Freshness()
        sandboxes = KubeSandboxes(api, _sandbox_settings(settings))
        leadership = Leadership(LeaseLock(api, settings.namespace, settings.lease, settings.pod))
        clock = SystemClock()
        gate, endpoints = await opened.enter_async_context(
            open_gate(api, access, clock, leadership)
        )
        world = World(
            journals=KubeJournals(api, rule_problems=rules.problems),
            model=model,
            sandboxes=sandboxes,
            clock=clock,
            gate=gate,
            check=check_arguments,
            rules=rules.decide,
            random=random.random,
            holder=settings.pod,
            listeners=lambda task: (log.listener(task), metrics.listener, _writes(freshness)),
        )
        supervisor = Supervisor(around(world), leadership)
        metrics.LOOPS.set_function(lambda: supervisor.running)
        probes = await _probes(settings, freshness, leadership)
        await expect_kinds(api)
        async with watch(settings, supervisor, freshness, endpoints) as watching:
            survey = Survey(
                api, settings.watch_namespaces, supervisor, every_s=settings.survey_seconds
            )
            holding = asyncio.create_task(leadership.run(supervisor.leadership_changed))
            surveying = asyncio.create_task(survey.run())
            try:
                await watching.until_stopped()
            finally:
                await supervisor.stop()
                holding.cancel()
                surveying.cancel()
                await asyncio.gather(holding, surveying, return_exceptions=True)
                await leadership.release()
                await sandboxes.close()
                if probes is not None:
                    await probes.cleanup()


def _writes(freshness: Freshness) -> Listener:
    """Note the status writes that the watch must bring back."""

    def note(event: e.Event, _: State) -> None:
        if isinstance(event, e.AskingMarked | e.LedgerBound | e.GenerationRaised):
            freshness.wrote()

    return note


async def _probes(
    settings: Settings, freshness: Freshness, leadership: Leadership
) -> web.AppRunner | None:
    if not settings.probe_port:
        return None

    def readiness() -> Readiness:
        stale = freshness.stale() if leadership.held else ""
        return Readiness(stale or leadership.problem, leadership.role)

    return await serve_probes(settings.probe_port, readiness)


def watch(
    settings: Settings,
    supervisor: Supervisor,
    freshness: Freshness,
    endpoints: EndpointsSeen | None = None,
) -> Watch:
    """What kopf watches, and whom it tells."""
    registry = kopf.OperatorRegistry()
    register(registry, supervisor, freshness, endpoints)
    kopf.on.login(registry=registry)(Login().read)
    return Watch(registry, kopf_settings(), settings.watch_namespaces)


def kopf_settings() -> kopf.OperatorSettings:
    """What of kopf is as we need it; `tests/kopf_contract` holds what kopf makes of it."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.error_backoffs = API_OUTAGE_BACKOFFS_S
    settings.networking.connect_timeout = API_CONNECT_S
    settings.networking.request_timeout = API_ANSWER_S
    # The labels that a handler asks for are looked at here only: all pods of the cluster would come.
    settings.watching.label_selectors["v1", "pods"] = (
        f"{names.LABEL_COMPONENT}={names.COMPONENT_SANDBOX}"
    )
    settings.persistence.finalizer = f"{names.GROUP}/never-set"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    return settings


def _sandbox_settings(settings: Settings) -> SandboxSettings:
    return SandboxSettings(
        server_image=settings.server_image,
        runner_image=settings.runner_image,
        operator_namespace=settings.namespace,
        pull_policy=settings.image_pull_policy,
        image_volumes=settings.image_volumes,
        probe_targets=settings.probe_targets
        or known_to_listen(os.environ, settings.pod_ip, settings.probe_port),
    )


if __name__ == "__main__":
    sys.exit(main())
