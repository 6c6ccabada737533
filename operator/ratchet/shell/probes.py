"""Probes and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

Liveness is that this answers: the event loop turns. Readiness is that the
watch delivers what we wrote and that the Lease is held.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

NotReady = Callable[[], str]
"""Why the process is not ready, as a sentence; empty if it is."""


async def serve_probes(port: int, not_ready: NotReady) -> web.AppRunner:
    """Listen on all addresses; `cleanup()` of what is returned stops it."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="the event loop turns\n")

    async def readyz(_: web.Request) -> web.Response:
        why = not_ready()
        return web.Response(status=503 if why else 200, text=(why or "ready") + "\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
