"""What is known of ModelEndpoints: it tells the gate what each takes, and writes their status.

An endpoint becomes known by the watch, or by a look at it when a task wants a place there. While
this process holds the Lease, each endpoint is asked for its models when it has changed, and every
30 s while no request shows that it answers; SGLang is asked for its load while requests run or wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from ratchet.api import names
from ratchet.core.admission import Hold, Terms, Wanting
from ratchet.core.breaker import BreakerState
from ratchet.core.conditions import EndpointReason
from ratchet.core.config import Engine, ModelConfig
from ratchet.core.replies import FailureKind
from ratchet.edges import endpointstatus as es
from ratchet.edges import kube
from ratchet.edges.access import Access
from ratchet.edges.answers import FAILURES, Failure, find
from ratchet.edges.endpointobject import parsed
from ratchet.edges.probing import NEVER_ASKED, HttpProber, Prober, Verdict
from ratchet.observe import metrics
from ratchet.ports import Answered, Clock, EndpointRef, JournalAway
from ratchet.shell.gate import How, Listener, ModelGate, View

_log = logging.getLogger("ratchet.endpoints")

TICK_S = 1.0
PROBE_S = 30.0
"""An endpoint that no request was answered by for so long is asked for its models."""
LOAD_S = 2.0
WRITE_S = 5.0
"""A status is written at most so often."""
READ_S = 60.0
"""How often an endpoint is read again, for what the watch did not tell, or does not look at."""
READ_AGAIN_S = 2.0
"""After a failure, while tasks wait for it."""
CALM_S = 10.0
"""An endpoint counts as saturated until nobody has waited for so long."""
SAME_ERROR_S = 60.0
"""An error that comes again within this time is not news."""
RECENT = 100

SERVING = Verdict(True, EndpointReason.SERVING, "It answers and serves the model.")


class MayRun(Protocol):
    """Whether this process is the one that works."""

    @property
    def held(self) -> bool:
        """True until the renew deadline of the Lease has passed."""


@dataclass(slots=True, eq=False)
class _Endpoint:
    ref: EndpointRef
    uid: str
    generation: int
    stored: Mapping[str, Any]
    """The status as it is stored, as far as is known."""
    terms: Terms = field(default_factory=Terms)
    config: ModelConfig | None = None
    problem: Verdict | None = None
    """What is wrong with the object itself."""
    probed: Verdict = NEVER_ASKED
    access: int | None = None
    lacked: bool = False
    """Whether its key or CA was not there when it was looked at last."""
    answered_at: float = float("-inf")
    probe_at: float = 0.0
    load_at: float = 0.0
    write_at: float = 0.0
    read_at: float = 0.0
    hold: Hold | None = None
    held_at: float = 0.0
    recent: deque[Answered] = field(default_factory=lambda: deque(maxlen=RECENT))
    error: es.LastError | None = None
    shown: tuple[bool | None, EndpointReason] | None = None
    """Ready, as it was logged last."""


class Endpoints(Listener):
    """All ModelEndpoints. All methods are called in the event loop's thread."""

    def __init__(
        self, api: kube.Api, prober: Prober, gate: ModelGate, clock: Clock, leadership: MayRun
    ) -> None:
        self._api = api
        self._prober = prober
        self._gate = gate
        self._clock = clock
        self._leadership = leadership
        self._known: dict[EndpointRef, _Endpoint] = {}
        self._work: dict[tuple[str, EndpointRef], asyncio.Task[None]] = {}
        self._led = False

    # --- what is heard ---------------------------------------------------------------------------

    def seen(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """A watch event. `kind` is ADDED, MODIFIED, DELETED, or None when listed."""
        ref = EndpointRef(body["metadata"]["namespace"], body["metadata"]["name"])
        if kind == "DELETED":
            self._forget(ref)
        else:
            self._learn(ref, body)

    def wanting(self, endpoint: EndpointRef, what: Wanting) -> None:
        """A ticket waits until it is known what the endpoint takes (Listener)."""
        if what is Wanting.TERMS:
            self._begin("read", endpoint, self._read_until_known(endpoint))
        elif endpoint in self._known:
            self._begin("load", endpoint, self._load(self._known[endpoint]))

    def ended(self, endpoint: EndpointRef, how: How) -> None:
        """Learn from a request (Listener)."""
        metrics.endpoint_ended(endpoint, how)
        known = self._known.get(endpoint)
        if known is None or how is None:
            return
        if isinstance(how, Answered):
            known.recent.append(how)
            known.answered_at = _now()
            if known.probed.reason is not EndpointReason.MODEL_NOT_SERVED:
                known.probed = SERVING
            return
        if how.kind is FailureKind.WAIT:
            known.answered_at = _now()
        elif how.kind is FailureKind.CONFIGURATION:
            known.probe_at, known.answered_at = 0.0, float("-inf")  # a look names the cause
        last, now = known.error, self._clock.now()
        news = last is None or last.message != how.message
        if news or (last is not None and (now - last.time).total_seconds() > SAME_ERROR_S):
            known.error = es.LastError(how.message, now)

    def counted(self, endpoint: EndpointRef, running: int, queued: int) -> None:
        """Show how many run and wait (Listener)."""
        metrics.endpoint_counted(endpoint, running, queued)

    # --- what is to be done ----------------------------------------------------------------------

    async def run(self) -> None:
        """Look after all endpoints while the Lease is held, until cancelled."""
        while True:
            held = self._leadership.held
            if held:
                self.tick(anew=not self._led)
            self._led = held
            await self._clock.sleep(TICK_S)

    async def close(self) -> None:
        """End what is under way."""
        work = tuple(self._work.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    def tick(self, *, anew: bool = False) -> None:
        """Begin what is due. `anew`: this process has just taken over."""
        for known in tuple(self._known.values()):
            if anew:
                known.probe_at = 0.0
            try:
                self._tend(known, _now())
            # A bug of ours at one endpoint must not leave all others unattended: log it, go on.
            except Exception:  # noqa: BLE001
                _log.exception("endpoint %s: could not be looked after", known.ref)

    def _tend(self, known: _Endpoint, now: float) -> None:
        view = self._gate.view(known.ref)
        metrics.endpoint_breaker(known.ref, view.breaker)
        if view.hold is not None:
            known.hold, known.held_at = view.hold, now
        elif now - known.held_at > CALM_S:
            known.hold = None
        if now >= known.read_at:
            known.read_at = now + READ_S
            self._begin("read", known.ref, self._read(known.ref))
        if now >= known.probe_at and now - known.answered_at >= PROBE_S and not known.problem:
            known.probe_at = now + PROBE_S
            self._begin("probe", known.ref, self._probe(known))
        if now >= known.load_at and (view.running or view.queued) and _tells_load(known):
            known.load_at = now + LOAD_S
            self._begin("load", known.ref, self._load(known))
        ready = _ready(known, view)
        self._log_change(known, ready)
        if now >= known.write_at and not self._is_under_way("probe", known):
            self._show(known, view, ready, now)

    def _show(self, known: _Endpoint, view: View, ready: Verdict, now: float) -> None:
        """Write the status if it says anything new."""
        seen = es.Seen(
            known.generation, ready, es.saturated(known.hold), view.running, view.queued,
            tuple(known.recent), known.error,
        )  # fmt: skip
        wanted = es.status(known.stored, seen, self._clock.now())
        if es.differs(known.stored, wanted):
            known.write_at = now + WRITE_S
            self._begin("write", known.ref, self._write(known, wanted))

    # --- effects ---------------------------------------------------------------------------------

    async def _probe(self, known: _Endpoint) -> None:
        if known.config is None:
            return
        config, began = known.config, _now()
        probe = await self._prober.models(config, known.ref.namespace)
        if known.config is not config:
            return  # it has changed meanwhile, and is asked again
        if probe.access is not None:
            if known.lacked or known.access not in (None, probe.access):
                # Another key or CA, or one at last: what failed may work now.
                self._gate.revise(known.ref, known.terms, anew=True)
            known.access = probe.access
        if probe.verdict is not None:
            known.lacked = probe.access is None
        proven = known.answered_at >= began or known.probed.ready
        if probe.verdict is not None and not (proven and probe.verdict.ready is None):
            known.probed = probe.verdict

    async def _load(self, known: _Endpoint) -> None:
        if known.config is None or not _tells_load(known):
            return
        began = _now()
        load = await self._prober.load(known.config, known.ref.namespace)
        if self._known.get(known.ref) is known:
            self._gate.look(known.ref, load, began)

    async def _write(self, known: _Endpoint, wanted: Mapping[str, Any]) -> None:
        ref = known.ref
        path = kube.ours(names.ENDPOINT_PLURAL, ref.namespace, ref.name, "status")
        # With its uid: one that was made anew under the same name refuses what is said of the old.
        body = {"metadata": {"uid": known.uid}, "status": dict(wanted)}
        try:
            await self._api.request("PATCH", path, body, content_type=kube.MERGE_PATCH)
        except FAILURES as failure:
            if not _is_gone(failure):
                _log.warning(
                    "endpoint %s: its status could not be written; next try in %g s: %s",
                    ref, WRITE_S, failure,
                )  # fmt: skip
            known.read_at = 0.0
        else:
            known.stored = es.after(known.stored, wanted)

    async def _read_until_known(self, ref: EndpointRef) -> None:
        while not await self._read(ref):
            await self._clock.sleep(READ_AGAIN_S)

    async def _read(self, ref: EndpointRef) -> bool:
        """Read an endpoint once; whether the API server answered."""
        try:
            body = await find(self._api, kube.ours(names.ENDPOINT_PLURAL, ref.namespace, ref.name))
        except JournalAway as error:
            _log.debug("endpoint %s: cannot be read: %s", ref, error)
            return False
        if body is not None:
            self._learn(ref, body)
        else:
            self._forget(ref)
        return True

    def _begin(self, what: str, ref: EndpointRef, work: Coroutine[Any, Any, bool | None]) -> None:
        """Begin some work, unless the same is under way for this endpoint."""
        if (what, ref) in self._work:
            work.close()
            return

        async def done() -> None:
            await work

        task = self._work[what, ref] = asyncio.create_task(done(), name=f"{what} {ref}")
        task.add_done_callback(lambda ended: self._end(what, ref, ended))

    def _end(self, what: str, ref: EndpointRef, task: asyncio.Task[None]) -> None:
        del self._work[what, ref]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("endpoint %s: could not %s", ref, what, exc_info=error)

    def _is_under_way(self, what: str, known: _Endpoint) -> bool:
        return (what, known.ref) in self._work

    # --- what is known ---------------------------------------------------------------------------

    def _learn(self, ref: EndpointRef, body: Mapping[str, Any]) -> None:
        """Take note of an object, as it was read or told; an older one than is known is ignored."""
        meta = body["metadata"]
        uid, generation = str(meta["uid"]), int(meta.get("generation") or 0)
        known = self._known.get(ref)
        if known is not None and known.uid == uid:
            if generation < known.generation:
                return
            known.stored = body.get("status") or {}
            if generation == known.generation:
                return
            known.generation, known.probed = generation, NEVER_ASKED
            known.access, known.lacked = None, False
        else:
            known = _Endpoint(ref, uid, generation, body.get("status") or {})
            known.read_at = _now() + READ_S
            self._known[ref] = known
        known.probe_at, known.answered_at = 0.0, float("-inf")
        known.config, known.problem, known.terms = parsed(body)
        self._gate.revise(ref, known.terms, anew=True)

    def _forget(self, ref: EndpointRef) -> None:
        if self._known.pop(ref, None) is not None:
            _log.info("EndpointGone", extra={"fields": {"endpoint": str(ref)}})
        self._gate.forget(ref)
        metrics.endpoint_gone(ref)

    def _log_change(self, known: _Endpoint, ready: Verdict) -> None:
        """One line when Ready changes, none for each try."""
        shown = ready.ready, ready.reason
        if shown == known.shown or ready.reason is EndpointReason.NOT_ASKED:
            return
        known.shown = shown
        fields = {"endpoint": str(known.ref), "reason": str(ready.reason), "message": ready.message}
        name = "EndpointReady" if ready.ready else "EndpointNotReady"
        _log.log(logging.INFO if ready.ready else logging.WARNING, name, extra={"fields": fields})


@asynccontextmanager
async def open_gate(
    api: kube.Api, access: Access, clock: Clock, leadership: MayRun
) -> AsyncIterator[tuple[ModelGate, Endpoints]]:
    """The gate of this process, and what keeps it and the endpoints' status up to date.

    The watch tells the second one what it sees of ModelEndpoints (`Endpoints.seen`).
    """
    gate = ModelGate(clock)
    async with HttpProber(access) as prober:
        endpoints = Endpoints(api, prober, gate, clock, leadership)
        gate.listen(endpoints)
        running = asyncio.create_task(endpoints.run(), name="endpoints")
        try:
            yield gate, endpoints
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await endpoints.close()


# --- pure ----------------------------------------------------------------------------------------


def _ready(known: _Endpoint, view: View) -> Verdict:
    """What Ready says: what is wrong with the object, then what a look found, then the breaker."""
    if known.problem is not None:
        return known.problem
    if view.breaker is BreakerState.CLOSED or known.probed.ready is False:
        return known.probed
    return Verdict(False, EndpointReason.BREAKER_OPEN, view.said)


def _tells_load(known: _Endpoint) -> bool:
    return known.config is not None and known.config.engine is Engine.SGLANG


def _is_gone(failure: Failure) -> bool:
    return isinstance(failure, kube.ApiError) and failure.status in (
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
