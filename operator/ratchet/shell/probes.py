"""Probes and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

Liveness is that this answers: the event loop turns. A stale watch or an API server that is away
does not end the process: its loops need no watch to go on, and a restart would take from each of
them the model's answer that it waits for.

Readiness is that this process could do its part: it holds the Lease and the watch brings back what
it wrote, or it stands by and sees that another one holds the Lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process is ready."""

    problem: str
    """Why it is not, as a sentence; empty if it is."""
    role: str
    """What it does while it is ready, in one word: leading or standby."""


async def serve_probes(port: int, readiness: Callable[[], Readiness]) -> web.AppRunner:
    """Listen on all addresses; `cleanup()` of what is returned stops it."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="the event loop turns\n")

    async def readyz(_: web.Request) -> web.Response:
        found = readiness()
        status = 503 if found.problem else 200
        return web.Response(status=status, text=(found.problem or found.role) + "\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    # A probe that is still connected does not hold up the end of the process.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
