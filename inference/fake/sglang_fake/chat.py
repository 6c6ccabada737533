"""The life of one chat request: checked, matched with the script, queued, played, recorded."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from sglang_fake import validate, wire
from sglang_fake.answers import cut_answer, event_answer, json_answer
from sglang_fake.engine import DuplicateRid, Ended, Engine, Job, QueueFull
from sglang_fake.faults import refusal
from sglang_fake.record import PrefixCache, Seen, SeenLog, digest_of
from sglang_fake.said import Said, forced, say, streamed
from sglang_fake.script import Asked, Chosen, Fault, Script, ScriptError, choose, unmet
from sglang_fake.settings import Settings, ToolCallParser
from sglang_fake.streams import events, refusal_events
from sglang_fake.wire import Refused, Tokens

log = logging.getLogger("sglang_fake")


class _Lost(Exception):
    """The server is gone; nobody gets an answer."""


class Server(Protocol):
    """What a fault of the script can do to the whole server."""

    def pause(self, seconds: float | None) -> None: ...

    def begin_drain(self) -> None: ...

    def crash(self) -> None: ...


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

    def __init__(
        self, script: Script, settings: Settings, server: Server, changed: Callable[[], None]
    ) -> None:
        self.engine = Engine(settings)
        self.log = SeenLog()
        self.script = script
        self._settings = settings
        self._server = server
        self._changed = changed
        self._cache = PrefixCache()
        self._faults: Counter[tuple[str, str, int]] = Counter()
        self._totals: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget what was seen, which faults were played, and the prefix cache."""
        self.log.clear()
        self._faults.clear()
        self._cache.clear()

    def flush_cache(self) -> None:
        """Forget the prefix cache."""
        self._cache.clear()

    def load(self) -> wire.Load:
        """The engine's load now."""
        return wire.Load(
            running=self.engine.running,
            waiting=self.engine.waiting,
            used_tokens=self.engine.used_tokens,
            waiting_tokens=self.engine.waiting_tokens,
            max_total_tokens=self._settings.max_total_tokens,
            max_running=self._settings.max_running,
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
        seen = self.log.begin(request.headers.get("x-smg-routing-key", ""))
        try:
            response = await self._serve(request, seen)
            seen.status, seen.outcome = response.status, seen.outcome or "answered"
            return response
        except Refused as refused:
            if refused.late and seen.streams:
                seen.status, seen.outcome = 200, seen.outcome or "refused"
                return event_answer(refusal_events(refused))
            seen.status, seen.outcome = refused.status, seen.outcome or "refused"
            seen.problem = str(refused.body)
            raise
        except _Lost:
            seen.outcome = "failed"
            return _hang_up(request)
        finally:
            seen.left, seen.outcome = time.time(), seen.outcome or "failed"
            self._changed()
            if log.isEnabledFor(logging.INFO):
                log.info("%s", seen.line())

    async def _serve(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        work = self._check(await request.read(), request.headers.get("Content-Type", ""), seen)
        job = Job(
            seen.rid,
            work.prompt,
            self._delay(work),
            frees_slot=work.chosen.turn.error is None,
            client_gone=lambda: _client_gone(request),
            poll_s=self._settings.disconnect_poll_s,
            streams=validate.streams(work.body),
        )
        try:
            self.engine.admit(job)
            self._changed()
            return await self._run(request, job, work)
        except QueueFull:
            raise wire.overloaded("The request queue is full.") from None
        except DuplicateRid:
            raise wire.bad_request(f"Duplicate request ID detected: {job.rid}") from None
        finally:
            self.engine.leave(job)

    def _check(self, raw: bytes, content_type: str, seen: Seen) -> _Work:
        body = validate.parse_body(raw, content_type)
        seen.rid = str(body.get("rid") or uuid.uuid4().hex)
        seen.cache_salt = body.get("cache_salt")
        seen.body = body if self._settings.keep_bodies else None
        validate.check_body(body, self._settings.vision)
        seen.streams = validate.streams(body)
        seen.messages, seen.digest = len(body["messages"]), digest_of(body)
        if self._settings.strict and (hole := validate.strict_problem(body["messages"])):
            raise wire.bad_request(f"Strict mode of the fake: {hole}.", "FakeStrict")
        prompt = max(1, validate.prompt_tokens(body, len(raw)))
        limit, context = validate.max_tokens(body), self._settings.context_length
        validate.check_length(prompt, limit, context, self._settings.max_total_tokens)
        asked = validate.asked(body, seen.rid, seen.key)
        return _Work(body, raw, prompt, asked, self._choose(asked, seen), seen)

    def _choose(self, asked: Asked, seen: Seen) -> Chosen:
        seen.turn = asked.turn
        try:
            chosen = choose(self.script, asked)
        except ScriptError as err:
            raise wire.bad_request(f"Script of the fake: {err}", "FakeScript") from err
        seen.conversation = chosen.conversation
        problem = unmet(chosen.turn.expect, asked)
        if problem:
            where = f"conversation {chosen.conversation}, turn {chosen.number}"
            raise wire.bad_request(f"Script of the fake, {where}: {problem}.", "FakeExpect")
        return chosen

    async def _run(self, request: web.Request, job: Job, work: _Work) -> web.StreamResponse:
        await job.over
        if job.why is not None:
            delay = self._delay(work)
            share = min(1.0, job.worked_s / delay) if delay else 1.0
            return self._stopped(job.why, work, None if job.began is None else share)
        fault = self._due_fault(work)
        if fault is None:
            return self._reply(work)
        return await self._fail(request, job, work, fault)

    def _delay(self, work: _Work) -> float:
        said = work.chosen.turn.delay_s
        return self._settings.latency_s if said is None else said

    def _due_fault(self, work: _Work) -> Fault | None:
        """The turn's fault if it is still to be played; counts it, per task and turn."""
        turn = work.chosen.turn
        if turn.error is None:
            return None
        key = (work.chosen.conversation, work.task, work.chosen.number)
        if self._faults[key] >= turn.faults():
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
            return self._stopped(await job.ended(), work, share=0.0)
        if fault.kind in ("pause", "drain"):
            return await self._fail_server(job, work, fault)
        return await self._break(request, job, work, fault)

    async def _fail_server(self, job: Job, work: _Work, fault: Fault) -> web.StreamResponse:
        """The server gets into another state; the request itself is answered."""
        if fault.kind == "drain":
            self._server.begin_drain()
        else:
            self._server.pause(fault.seconds)
            await job.go_on()
            if job.why is not None:
                return self._stopped(job.why, work, share=0.0)
        return self._reply(work)

    async def _break(
        self, request: web.Request, job: Job, work: _Work, fault: Fault
    ) -> web.StreamResponse:
        """No answer, or a part of one."""
        work.seen.outcome = "failed"
        response: web.StreamResponse = web.Response()
        if fault.kind in ("cut", "stall"):
            whole = self._reply(work) if work.chosen.turn.reply else self._any_answer(work)
            response = await cut_answer(request, whole)
        if fault.kind == "stall":
            work.seen.outcome = (await job.ended()).value
        if fault.kind == "crash":
            self._server.crash()
            await job.ended()
        _hang_up(request)
        return response

    def _stopped(self, why: Ended, work: _Work, share: float | None) -> web.StreamResponse:
        """An aborted answer: 200 with the text so far; one that still waited has usage 0."""
        if why is Ended.LOST:
            raise _Lost
        work.seen.outcome, work.seen.finish_reason = why.value, "abort"
        self._totals["aborted"] += 1
        reply = work.chosen.turn.reply
        content = (reply.content if reply is not None else "") or ""
        text = content[: int(len(content) * (share or 0.0))]
        tokens = Tokens(0, None, 0)
        if share is not None:
            tokens = Tokens(work.prompt, 0 if self._settings.cache_report else None, len(text) // 4)
        return self._completion(work, Said(text, None, (), "abort"), tokens)

    def _reply(self, work: _Work) -> web.Response:
        said = self._said(work)
        tokens = self._tokens(work, said)
        self._totals["requests"] += 1
        self._totals["prompt"] += tokens.prompt
        self._totals["completion"] += tokens.completion
        self._totals["cached"] += tokens.cached or 0
        work.seen.finish_reason = said.finish_reason
        return self._completion(work, said, tokens)

    def _said(self, work: _Work) -> Said:
        said = self._whole(work)
        if not work.seen.streams:
            return said
        found = streamed(said, work.asked.tools, self._settings)
        if found is None:
            raise validate.unsupported("this text in a stream; SGLang's parser tears it apart")
        return found

    def _whole(self, work: _Work) -> Said:
        offered, body, settings = work.asked.tools, work.body, self._settings
        said = forced(body.get("regex"), validate.max_tokens(body), offered, settings)
        if said is not None:
            return said
        reply = work.chosen.turn.reply
        assert reply is not None  # a turn without a reply has an endless fault
        if reply.tool_calls and not offered:
            problem = "the turn calls tools but the request offers none"
            raise wire.bad_request(f"Script of the fake: {problem}.", "FakeScript")
        return say(reply, work.chosen.number, work.seen.key, offered, settings)

    def _tokens(self, work: _Work, said: Said) -> Tokens:
        """Scripted numbers, else estimates: four bytes a token."""
        usage = said.usage
        salt = work.seen.cache_salt or ""
        cached = self._cache.cached((salt, work.task, work.chosen.conversation), work.raw)
        text = (said.content or "") + "".join(call.name + call.arguments for call in said.calls)
        reasoning = _first(usage.reasoning_tokens, len(said.reasoning or "") // 4)
        prompt = _first(usage.prompt_tokens, work.prompt)
        cached = min(_first(usage.cached_tokens, cached), prompt)
        return Tokens(
            prompt=prompt,
            cached=cached if self._settings.cache_report else None,
            completion=_first(usage.completion_tokens, max(1, len(text) // 4) + reasoning),
            reasoning=reasoning,
        )

    def _completion(self, work: _Work, said: Said, tokens: Tokens) -> web.Response:
        # Recorded: an unknown model name is served and echoed; none at all is "default".
        model, created = work.asked.model, int(time.time())
        if work.seen.streams:
            parser = self._settings.tool_call_parser
            found = events(
                rid=work.seen.rid,
                created=created,
                model=model,
                said=said,
                tokens=tokens,
                parsed=bool(work.asked.tools) and parser is not ToolCallParser.NONE,
                usage_too=validate.wants_usage(work.body),
            )
            return event_answer(found)
        body = wire.completion(
            rid=work.seen.rid,
            created=created,
            model=model,
            content=said.content,
            reasoning=said.reasoning,
            calls=said.calls,
            finish_reason=said.finish_reason,
            tokens=tokens,
        )
        return json_answer(body)

    def _any_answer(self, work: _Work) -> web.Response:
        """Something to break where the script has no reply."""
        return self._completion(
            work, Said("So far, so good.", None, (), "stop"), Tokens(1, None, 4)
        )


def _first(scripted: int | None, estimate: int) -> int:
    return estimate if scripted is None else scripted


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection; the response is for aiohttp, and never sent."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _client_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
