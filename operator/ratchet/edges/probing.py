"""Asking an endpoint how it is: the models that it lists, and how busy it is.

Shapes are those of SGLang 0.5.23 as recorded (tests/fixtures/sglang: endpoints/v1_models.json,
load/v1_loads_busy.json); the list of models is that of the OpenAI API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp

from ratchet.core.admission import Load
from ratchet.core.conditions import EndpointReason
from ratchet.core.config import Engine, ModelConfig
from ratchet.edges.access import Access, AccessMissing, Missing, Reach
from ratchet.ports import PortError

MODELS_S = 10.0
"""How long a list of models may take."""
LOADS_S = 2.0
"""How long a look at the load may take. Recorded: 2 ms, under load too."""
MOST_BYTES = 2**20
MOST_SAID = 300
"""Characters of an answer that a message repeats."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an endpoint serves its model. `ready` None is not known."""

    ready: bool | None
    reason: EndpointReason
    message: str


NEVER_ASKED = Verdict(None, EndpointReason.NOT_ASKED, "It has not been asked yet.")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a look at an endpoint found; no verdict if it could not be asked because of ourselves.

    `access` changes when the key, the headers or the CA do; None: they are missing or not known.
    """

    verdict: Verdict | None
    access: int | None = None


class Prober(Protocol):
    """How endpoints are looked at; tests have their own."""

    async def models(self, config: ModelConfig, namespace: str) -> Probe:
        """Ask for the list of models. Never raises but when cancelled."""

    async def load(self, config: ModelConfig, namespace: str) -> Load | None:
        """Ask SGLang for its load; None if it does not say. Never raises but when cancelled."""


class HttpProber:
    """Looks at endpoints over HTTP (Prober), with the same key, headers and CA as requests."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Every connection is closed after its answer: a look is rare, and a kept connection that
        # the server closes meanwhile would look like an outage.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def models(self, config: ModelConfig, namespace: str) -> Probe:
        """Ask for the list of models (Prober)."""
        try:
            reach = await self._access.of(config, namespace)
        except AccessMissing as missing:
            return Probe(Verdict(False, _REASONS[missing.reason], f"{missing}."))
        except PortError:
            return Probe(None)
        access = hash((reach.key, reach.own, id(reach.tls)))
        try:
            status, raw = await self._get(f"{config.url}/models", reach, MODELS_S, config)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            what = _said(error) or f"no answer within {MODELS_S:g} s"
            return Probe(_unreachable(config, reach.hide(what)), access)
        return Probe(read_models(status, raw, config, reach), access)

    async def load(self, config: ModelConfig, namespace: str) -> Load | None:
        """Ask SGLang for its load (Prober)."""
        root = config.url.removesuffix("/v1")
        try:
            reach = await self._access.of(config, namespace)
            status, raw = await self._get(f"{root}/v1/loads", reach, LOADS_S, config)
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, PortError):
            return None  # the requests themselves will tell
        return read_load(raw) if status == HTTPStatus.OK else None

    async def _get(
        self, url: str, reach: Reach, seconds: float, config: ModelConfig
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("the prober is used outside of its context")
        timeout = aiohttp.ClientTimeout(total=seconds, connect=config.connect_timeout_s)
        async with self._session.get(
            url, headers=reach.headers, ssl=reach.tls, timeout=timeout, allow_redirects=False
        ) as answer:
            return answer.status, await answer.content.read(MOST_BYTES)


_REASONS = {
    Missing.SECRET: EndpointReason.SECRET_NOT_FOUND,
    Missing.CA: EndpointReason.CA_INVALID,
}


def read_models(status: int, raw: bytes, config: ModelConfig, reach: Reach) -> Verdict:
    """What the answer to GET /v1/models says. Pure."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        text = f"GET {config.url}/models: {status}: the key is missing, or is refused."
        return Verdict(False, EndpointReason.UNAUTHORIZED, text)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Verdict(True, EndpointReason.SERVING, "It answers, and is busy.")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        if config.engine is Engine.SGLANG:
            return _unreachable(config, f"it answered {status}, which SGLang does not")
        text = (
            f"It does not list its models (GET {config.url}/models: {status}); a request will tell."
        )
        return Verdict(None, EndpointReason.NOT_ASKED, text)
    listed = _listed(raw) if status == HTTPStatus.OK else None
    if listed is None:
        said = reach.hide(raw[:MOST_SAID].decode("utf-8", "replace"))
        return _unreachable(
            config, f"it answered {status}: {said}" if said else f"it answered {status}"
        )
    if config.model in listed:
        return Verdict(True, EndpointReason.SERVING, "It answers and serves the model.")
    return Verdict(False, EndpointReason.MODEL_NOT_SERVED, _not_served(config, listed))


def read_load(raw: bytes) -> Load | None:
    """What /v1/loads says, over all data-parallel ranks; None if it cannot be read. Pure."""
    try:
        ranks = json.loads(raw)["loads"]
        if not ranks:
            return None
        return Load(
            running=_sum(ranks, "num_running_reqs"),
            waiting=_sum(ranks, "num_waiting_reqs"),
            used_tokens=_sum(ranks, "num_used_tokens"),
            total_tokens=_sum(ranks, "max_total_num_tokens"),
            most_running=_sum(ranks, "max_running_requests"),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _sum(ranks: list[dict[str, Any]], name: str) -> int:
    return sum(int(rank.get(name) or 0) for rank in ranks)


def _listed(raw: bytes) -> list[str] | None:
    """The models that are listed; None if this is no list."""
    try:
        return [str(entry["id"]) for entry in json.loads(raw)["data"]]
    except (ValueError, TypeError, KeyError):
        return None


def _not_served(config: ModelConfig, listed: list[str]) -> str:
    names = ", ".join(sorted(listed)[:10])[:MOST_SAID] or "none"
    advice = "correct spec.model"
    if config.engine is Engine.SGLANG:
        # Recorded: requests for any name are answered.
        advice += "; SGLang answers requests for a name that it does not know with what it serves"
    return f"GET {config.url}/models does not list {config.model!r}, but {names}: {advice}."


def _unreachable(config: ModelConfig, what: str) -> Verdict:
    text = (
        f"GET {config.url}/models: {what.rstrip('.')}. See that the server runs, that the operator "
        "can reach it, and that spec.url is right."
    )
    return Verdict(False, EndpointReason.UNREACHABLE, text)


def _said(error: Exception) -> str:
    return str(error)[:MOST_SAID] or (
        "" if isinstance(error, TimeoutError) else type(error).__name__
    )
