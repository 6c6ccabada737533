"""The operator's process: settings, wiring, kopf, and a graceful stop.

This is the one place where objects are wired together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from typing import Any

import kopf

from ratchet.api import names
from ratchet.edges.journal import KubeJournals
from ratchet.edges.kube import Kube, KubeConfigError
from ratchet.edges.lease import Lease
from ratchet.edges.model import ModelClient
from ratchet.edges.pods import SandboxImages
from ratchet.edges.sandboxes import KubeSandboxes
from ratchet.edges.schemas import check_arguments
from ratchet.edges.secrets import KeyReader
from ratchet.observe import log, metrics
from ratchet.ports import TaskRef
from ratchet.shell.clock import SystemClock
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import register
from ratchet.shell.probes import serve_probes
from ratchet.shell.runner import Listener
from ratchet.shell.settings import Settings, SettingsError, read_settings
from ratchet.shell.supervisor import Supervisor, World

_log = logging.getLogger("ratchet.main")

API_OUTAGE_BACKOFFS_S = (1, 2, 3, 5, 8, 13, 21, *[30] * 12)
"""Between kopf's tries while the API server is away: some 7 minutes, then the process ends."""


def main() -> int:
    """Run until SIGTERM or SIGINT. The exit code is 1 where the operator could not go on."""
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    log.set_up(settings.log_level)
    try:
        asyncio.run(operate(settings))
    except KubeConfigError as error:
        _log.error("%s", error)
        return 1
    return 0


def unchanged(world: World) -> World:
    """The world as it is wired."""
    return world


async def operate(settings: Settings, around: Callable[[World], World] = unchanged) -> None:
    """The operator from its start to its graceful end. `around` may put measuring ports around ours."""
    async with await Kube.connect() as api:
        freshness = Freshness()
        model = ModelClient(KeyReader(api))
        lease = Lease(api, settings.namespace, settings.lease, settings.pod)
        world = World(
            journals=KubeJournals(api, wrote=freshness.wrote),
            model=model,
            sandboxes=KubeSandboxes(api, _images(settings)),
            clock=SystemClock(),
            check=check_arguments,
            random=random.random,
            holder=settings.pod,
            listeners=_listeners,
        )
        supervisor = Supervisor(around(world), lease)

        def not_ready() -> str:
            return freshness.stale() or ("" if lease.held else "another process holds the Lease")

        metrics.LOOPS.set_function(lambda: supervisor.running)
        probes = await serve_probes(settings.probe_port, not_ready) if settings.probe_port else None
        holding = asyncio.create_task(lease.run(supervisor.leadership_changed))
        try:
            await _watch(settings, supervisor, freshness)
        finally:
            await supervisor.stop()
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await lease.release()
            await model.close()
            if probes is not None:
                await probes.cleanup()


async def _watch(settings: Settings, supervisor: Supervisor, freshness: Freshness) -> None:
    """Let kopf watch until a signal ends it."""
    registry = kopf.OperatorRegistry()
    register(registry, supervisor, freshness)

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    await kopf.operator(
        registry=registry,
        settings=_kopf_settings(),
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
    )


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.error_backoffs = API_OUTAGE_BACKOFFS_S
    settings.persistence.finalizer = f"{names.GROUP}/never-set"
    return settings


def _images(settings: Settings) -> SandboxImages:
    return SandboxImages(
        server=settings.server_image,
        runner=settings.runner_image,
        pull_policy=settings.image_pull_policy,
    )


def _listeners(task: TaskRef) -> tuple[Listener, ...]:
    return (log.listener(task), metrics.listener)


if __name__ == "__main__":
    sys.exit(main())
