"""The life of one chat request: checked, matched with the script, queued, played, recorded."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sglang_fake import validate, wire
from sglang_fake.answers import json_answer
from sglang_fake.engine import DuplicateRid, Ended, Engine, Job, QueueFull
from sglang_fake.faults import refusal
from sglang_fake.record import PrefixCache, Seen, digest_of
from sglang_fake.script import (
    Asked,
    Chosen,
    Fault,
    Reply,
    Script,
    ScriptError,
    arguments_text,
    choose,
    fill,
    unmet,
)
from sglang_fake.settings import Settings
from sglang_fake.wire import Refused, Tokens, WireCall

log = logging.getLogger("sglang_fake")

_KEPT_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class _Work:
    """One checked request: its body, what to play, its size in tokens, and its record."""

    body: dict[str, Any]
    raw: bytes
    prompt: int
    asked: Asked
    chosen: Chosen
    seen: Seen

    @property
    def task(self) -> str:
        """What tells one task of a conversation from another."""
        return self.asked.routing_key or self.asked.first_user_text


class Chat:
    """Plays a script to chat requests. `changed` is called when a record of `seen` changed."""

    def __init__(self, script: Script, settings: Settings, changed: Callable[[], None]) -> None:
        self.seen: list[Seen] = []
        self.engine = Engine(settings.max_running, settings.max_queued)
        self._script = script
        self._settings = settings
        self._changed = changed
        self._cache = PrefixCache()
        self._faults: Counter[tuple[str, str, int]] = Counter()
        self._totals: Counter[str] = Counter()
        self._used_tokens = 0
        self._count = 0

    def reset(self) -> None:
        """Forget what was seen, which faults were played, and the prefix cache."""
        self.seen.clear()
        self._faults.clear()
        self._cache.clear()

    def load(self) -> wire.Load:
        """The engine's load now."""
        return wire.Load(
            running=self.engine.running,
            waiting=self.engine.waiting,
            used_tokens=self._used_tokens,
            max_total_tokens=self._settings.max_total_tokens,
            max_running=self.engine.max_running,
            prompt_tokens_total=self._totals["prompt"],
            generation_tokens_total=self._totals["completion"],
            cached_tokens_total=self._totals["cached"],
            requests_total=self._totals["requests"],
            aborted_total=self._totals["aborted"],
            context_length=self._settings.context_length,
            model=self._settings.model,
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request and record it. Raises Refused for an error answer."""
        self._count += 1
        seen = Seen(
            number=self._count,
            rid="",
            key=request.headers.get("x-smg-routing-key", ""),
            arrived=time.time(),
        )
        self.seen.append(seen)
        if len(self.seen) > _KEPT_REQUESTS:
            del self.seen[0]
        try:
            response = await self._serve(request, seen)
            seen.status, seen.outcome = response.status, seen.outcome or "answered"
            return response
        except Refused as refused:
            seen.status, seen.outcome = refused.status, seen.outcome or "refused"
            seen.problem = str(refused.body)
            raise
        finally:
            seen.left, seen.outcome = time.time(), seen.outcome or "failed"
            self._changed()
            _log(seen)

    async def _serve(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        work = self._check(await request.read(), request.headers.get("Content-Type", ""), seen)
        job = Job(seen.rid, lambda: _client_gone(request), self._settings.disconnect_poll_s)
        try:
            self._admit(job)
            self._changed()
            return await self._run(request, job, work)
        finally:
            self.engine.leave(job)

    def _check(self, raw: bytes, content_type: str, seen: Seen) -> _Work:
        body = validate.parse_body(raw, content_type)
        seen.rid = str(body.get("rid") or uuid.uuid4().hex)
        seen.cache_salt = body.get("cache_salt")
        seen.body = body if self._settings.keep_bodies else None
        validate.check_body(body)
        seen.messages, seen.digest = len(body["messages"]), digest_of(body)
        if self._settings.strict and (hole := validate.strict_problem(body["messages"])):
            raise wire.bad_request(f"Strict mode of the fake: {hole}.", "FakeStrict")
        prompt = max(1, len(raw) // 4)
        limit, context = validate.max_tokens(body), self._settings.context_length
        validate.check_length(prompt, limit, context, self._settings.max_total_tokens)
        asked = validate.asked(body, seen.rid, seen.key)
        return _Work(body, raw, prompt, asked, self._choose(asked, seen), seen)

    def _choose(self, asked: Asked, seen: Seen) -> Chosen:
        seen.turn = asked.turn
        try:
            chosen = choose(self._script, asked)
        except ScriptError as err:
            raise wire.bad_request(f"Script of the fake: {err}", "FakeScript") from err
        seen.conversation = chosen.conversation
        problem = unmet(chosen.turn.expect, asked)
        if problem:
            where = f"conversation {chosen.conversation}, turn {chosen.number}"
            raise wire.bad_request(f"Script of the fake, {where}: {problem}.", "FakeExpect")
        return chosen

    def _admit(self, job: Job) -> None:
        try:
            self.engine.admit(job)
        except QueueFull:
            raise wire.overloaded("The request queue is full.") from None
        except DuplicateRid:
            raise wire.bad_request(f"Duplicate request ID detected: {job.rid}") from None

    async def _run(self, request: web.Request, job: Job, work: _Work) -> web.StreamResponse:
        ended = await self.engine.turn_of(job)
        if ended:
            return self._stopped(ended, work, share=None)
        turn = work.chosen.turn
        self._used_tokens += work.prompt
        try:
            begun = time.monotonic()
            ended = await job.spend(turn.delay_s)
            if ended:
                took = time.monotonic() - begun
                return self._stopped(ended, work, share=min(1.0, took / (turn.delay_s or took)))
            fault = self._due_fault(work)
            if fault is not None:
                return await self._fail(request, job, work, fault)
        finally:
            self._used_tokens -= work.prompt
        assert turn.reply is not None  # a turn without a reply has an endless fault
        return self._reply(work, fill(turn.reply, work.chosen.number, work.seen.key))

    def _due_fault(self, work: _Work) -> Fault | None:
        """The turn's fault if it is still to be played; counts it, per task and turn."""
        turn = work.chosen.turn
        key = (work.chosen.conversation, work.task, work.chosen.number)
        if turn.error is None or self._faults[key] >= turn.faults():
            return None
        self._faults[key] += 1
        return turn.error

    async def _fail(
        self, request: web.Request, job: Job, work: _Work, fault: Fault
    ) -> web.StreamResponse:
        answer = refusal(fault)
        if answer is not None:
            work.seen.outcome = "failed"
            raise answer
        if fault.kind == "abort":
            return self._stopped(Ended.ABORTED, work, share=1.0)
        if fault.kind == "hang":
            return self._stopped(await job.ended, work, share=0.0)
        work.seen.outcome = "failed"
        response: web.StreamResponse = web.Response()
        if fault.kind == "cut":
            response = web.StreamResponse(headers={"Content-Length": "4096"})
            await response.prepare(request)
            await response.write(b'{"id": "cut", "choices": [')
        if request.transport is not None:
            request.transport.close()
        return response

    def _stopped(self, why: Ended, work: _Work, share: float | None) -> web.StreamResponse:
        """An aborted answer: 200 with the text so far; one that still waited has usage 0."""
        work.seen.outcome, work.seen.finish_reason = why.value, "abort"
        self._totals["aborted"] += 1
        reply = work.chosen.turn.reply
        content = (reply.content if reply is not None else "") or ""
        text = content[: int(len(content) * (share or 0.0))]
        tokens = Tokens(0, None, 0)
        if share is not None:
            tokens = Tokens(work.prompt, 0 if self._settings.cache_report else None, len(text) // 4)
        return _completion(work, text, None, (), "abort", tokens)

    def _reply(self, work: _Work, reply: Reply) -> web.StreamResponse:
        offered = work.asked.tools
        if reply.tool_calls and not offered:
            problem = "the turn calls tools but the request offers none"
            raise wire.bad_request(f"Script of the fake: {problem}.", "FakeScript")
        calls = tuple(
            WireCall(f"call_{uuid.uuid4().hex[:24]}", call.name, arguments_text(call))
            for call in reply.tool_calls
            if self._settings.forward_unknown_tools or call.name in offered
        )
        finish = reply.finish_reason or ("tool_calls" if calls else "stop")
        tokens = self._tokens(work, reply, calls)
        self._totals["requests"] += 1
        self._totals["prompt"] += tokens.prompt
        self._totals["completion"] += tokens.completion
        self._totals["cached"] += tokens.cached or 0
        work.seen.finish_reason = finish
        return _completion(work, reply.content, reply.reasoning_content, calls, finish, tokens)

    def _tokens(self, work: _Work, reply: Reply, calls: Sequence[WireCall]) -> Tokens:
        """Scripted numbers, else estimates: four bytes a token."""
        said = reply.usage
        salt = work.seen.cache_salt or ""
        cached = self._cache.cached((salt, work.task, work.chosen.conversation), work.raw)
        text = (reply.content or "") + "".join(call.name + call.arguments for call in calls)
        reasoning = _first(said.reasoning_tokens, len(reply.reasoning_content or "") // 4)
        prompt = _first(said.prompt_tokens, work.prompt)
        cached = min(_first(said.cached_tokens, cached), prompt)
        return Tokens(
            prompt=prompt,
            cached=cached if self._settings.cache_report else None,
            completion=_first(said.completion_tokens, max(1, len(text) // 4) + reasoning),
            reasoning=reasoning,
        )


def _completion(
    work: _Work,
    content: str | None,
    reasoning: str | None,
    calls: Sequence[WireCall],
    finish_reason: str,
    tokens: Tokens,
) -> web.Response:
    body = wire.completion(
        rid=work.seen.rid,
        created=int(time.time()),
        # Recorded: an unknown model name is served and echoed; none at all is "default".
        model=work.asked.model,
        content=content,
        reasoning=reasoning,
        calls=calls,
        finish_reason=finish_reason,
        tokens=tokens,
    )
    return json_answer(body)


def _first(scripted: int | None, estimate: int) -> int:
    return estimate if scripted is None else scripted


def _client_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _log(seen: Seen) -> None:
    problem = f" problem={seen.problem}" if seen.problem else ""
    log.info(
        "request %d rid=%s conversation=%s turn=%d status=%s outcome=%s%s",
        seen.number,
        seen.rid,
        seen.conversation,
        seen.turn,
        seen.status,
        seen.outcome,
        problem,
    )
