"""Bodies as SGLang 0.5.23 writes them (recorded; see tests/fixtures/sglang/README.md). Pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglang_fake.settings import Settings, ToolCallParser

# The recordings show the end token's number of the recorded model; clients must not read it.
END_TOKEN = 2
# Where SGLang's own validation errors point; part of the recorded message.
SOURCE = (
    'File "site-packages/sglang/srt/entrypoints/http_server.py", line 1870, '
    "in openai_v1_chat_completions"
)


class Refused(Exception):
    """A request that gets an error answer: `status`, and a JSON `body` or plain text.

    `late`: SGLang finds out only when a stream has begun, so a streamed request gets a 200 with
    the error as an event (recorded: queue/full_stream_3, timeouts/waiting_stream)."""

    def __init__(
        self,
        status: int,
        body: dict[str, Any] | str,
        headers: dict[str, str] | None = None,
        late: bool = False,
    ) -> None:
        super().__init__(f"{status}: {body}")
        self.late = late
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts of one answer; `cached` is None where the cache is not reported."""

    prompt: int
    cached: int | None
    completion: int
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class WireCall:
    """A tool call as it goes out; SGLang makes the id (`call_` and 24 hex digits)."""

    id: str
    name: str
    arguments: str


def error_body(status: int, message: str, kind: str = "BadRequestError") -> dict[str, Any]:
    """The most common of SGLang's error shapes."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def bad_request(message: str, kind: str = "BadRequestError") -> Refused:
    """A 400 in the usual shape."""
    return Refused(400, error_body(400, message, kind))


def overloaded(message: str) -> Refused:
    """A 503; its `type` is the number as text."""
    return Refused(503, error_body(503, message, "503"), late=True)


def invalid(problem: dict[str, Any]) -> Refused:
    """The 400 that a wrongly built body gets from the schema check."""
    where = f"\n\n  {SOURCE}\n    POST /v1/chat/completions [{problem}]"
    return bad_request(f"1 validation error:\n  {problem}{where}", "Bad Request")


def completion(
    *,
    rid: str,
    created: int,
    model: str,
    content: str | None,
    reasoning: str | None,
    calls: Sequence[WireCall],
    finish_reason: str,
    tokens: Tokens,
) -> dict[str, Any]:
    """A whole answer of /v1/chat/completions, not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "reasoning_content": reasoning,
    }
    # Recorded: the field is absent when there is no call, not null and not empty.
    if calls:
        message["tool_calls"] = [_call(i, call) for i, call in enumerate(calls)]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason,
        "matched_stop": END_TOKEN if finish_reason == "stop" else None,
    }
    version = {"version": "default", "start": 0, "end": tokens.completion}
    return {
        "id": rid,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage(tokens),
        "metadata": {"weight_version": "default", "weight_versions": [version]},
    }


def _call(index: int, call: WireCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "index": index, "type": "function", "function": function}


def usage(tokens: Tokens) -> dict[str, Any]:
    """The usage part; `prompt_tokens_details` is null without --enable-cache-report."""
    cached = None if tokens.cached is None else {"cached_tokens": tokens.cached}
    return {
        "prompt_tokens": tokens.prompt,
        "total_tokens": tokens.prompt + tokens.completion,
        "completion_tokens": tokens.completion,
        "prompt_tokens_details": cached,
        "reasoning_tokens": tokens.reasoning,
        "completion_tokens_details": None,
    }


def model_entry(name: str, created: int, context_length: int) -> dict[str, Any]:
    """One entry of /v1/models; `max_model_len` is the context, whatever the pool holds."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sglang",
        "root": name,
        "parent": None,
        "max_model_len": context_length,
    }


def unknown_model(name: str) -> Refused:
    """The 404 of /v1/models/{name}: a shape of its own."""
    error = {
        "message": f"The model '{name}' does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    return Refused(404, {"error": error})


def model_info(settings: Settings) -> dict[str, Any]:
    """The part of /model_info that routers and clients read; all of it is recorded."""
    parser = settings.tool_call_parser
    return {
        "model_path": f"/models/{settings.model}",
        "served_model_name": settings.model,
        "tokenizer_path": f"/models/{settings.model}",
        "is_generation": True,
        "weight_version": "default",
        "reasoning_parser": None,
        "tool_call_parser": None if parser is ToolCallParser.NONE else parser.value,
        "has_image_understanding": settings.vision,
    }


def server_info(settings: Settings) -> dict[str, Any]:
    """The part of /server_info that tells how the server was started. Recorded: both keys are in
    it in clear text; the fake leaves them out."""
    parser = settings.tool_call_parser
    return {
        "model_path": f"/models/{settings.model}",
        "served_model_name": settings.model,
        "tool_call_parser": None if parser is ToolCallParser.NONE else parser.value,
        "max_running_requests": settings.max_running,
        "max_queued_requests": settings.max_queued,
        "max_total_tokens": settings.max_total_tokens,
        "enable_cache_report": settings.cache_report,
        "enable_metrics": True,
        "version": "0.5.23",
    }


@dataclass(frozen=True, slots=True)
class Load:
    """A moment of the engine."""

    running: int
    waiting: int
    used_tokens: int
    waiting_tokens: int
    max_total_tokens: int
    max_running: int
    prompt_tokens_total: int
    generation_tokens_total: int
    cached_tokens_total: int
    requests_total: int
    aborted_total: int
    context_length: int
    model: str


def loads(load: Load, now: float, core_only: bool) -> dict[str, Any]:
    """/v1/loads: one data-parallel rank, fields as recorded, hardware figures of a small GPU-less
    stand-in (zero where the fake has nothing to say; `utilization` stays 0.0 in SGLang too)."""
    pool = load.max_total_tokens
    rank: dict[str, Any] = {
        "timestamp": now,
        "dp_rank": 0,
        "num_running_reqs": load.running,
        "num_waiting_reqs": load.waiting,
        "num_waiting_uncached_tokens": load.waiting_tokens,
        "num_used_tokens": load.used_tokens,
        "num_total_tokens": load.used_tokens,
        "num_active_tokens": load.used_tokens,
        "num_prealloc_ready_tokens": 0,
        "max_total_num_tokens": pool,
        "max_running_requests": load.max_running,
        "token_usage": round(load.used_tokens / pool, 4),
        "gen_throughput": 0.0,
        "cache_hit_rate": _hit_rate(load),
        "utilization": 0.0,
        "total_prefill_uncached_tokens": load.prompt_tokens_total - load.cached_tokens_total,
        "total_prefill_busy_us": 0,
        "decode_moments": [0.0] * 6,
    }
    if not core_only:
        rank |= _load_details(load)
    return _loads_envelope([rank], now)


def _hit_rate(load: Load) -> float:
    return round(load.cached_tokens_total / max(1, load.prompt_tokens_total), 4)


def _load_details(load: Load) -> dict[str, Any]:
    queues = {"waiting": load.waiting, "grammar": 0, "paused": 0, "retracted": 0}
    disaggregation = {
        "mode": "null",
        "prefill_bootstrap_queue_reqs": 0,
        "prefill_inflight_queue_reqs": 0,
        "decode_prealloc_queue_reqs": 0,
        "decode_transfer_queue_reqs": 0,
        "decode_retracted_queue_reqs": 0,
        "kv_transfer_speed_gb_s": 0.0,
        "kv_transfer_latency_ms": 0.0,
    }
    memory = {"weight_gb": 0.0, "kv_cache_gb": 0.0, "graph_gb": 0.0}
    return {
        "memory": {**memory, "token_capacity": load.max_total_tokens},
        "disaggregation": disaggregation,
        "queues": {**queues, "prealloc_ready": 0},
    }


def _loads_envelope(ranks: list[dict[str, Any]], now: float) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return {
        "timestamp": moment.isoformat(),
        "version": "0.5.23",
        "accelerator": "none (fake)",
        "num_accelerators": 1,
        "loads": ranks,
    }


def no_loads(now: float) -> dict[str, Any]:
    """/v1/loads for a data-parallel rank that does not exist: 200 with an empty list."""
    return _loads_envelope([], now)


def metrics(load: Load) -> str:
    """The few families of /metrics that an operator watches, under SGLang's own names."""
    engine = f'engine_type="unified",model_name="{load.model}"'
    ranked = f'{engine},moe_ep_rank="0",pp_rank="0",tp_rank="0"'
    plain = f'engine_type="unified",is_streaming="false",model_name="{load.model}"'
    source = f'cache_source="device",{engine}'
    pool = load.max_total_tokens
    usage_now = round(load.used_tokens / load.max_total_tokens, 4)
    families: list[tuple[str, str, str, str, float]] = [
        ("max_total_num_tokens", "gauge", "Size of the token pool.", ranked, load.max_total_tokens),
        ("context_len", "gauge", "Longest context.", ranked, load.context_length),
        ("num_running_reqs", "gauge", "Requests that run.", ranked, load.running),
        ("num_queue_reqs", "gauge", "Requests that wait.", ranked, load.waiting),
        ("token_usage", "gauge", "Share of the pool in use.", ranked, usage_now),
        ("num_used_tokens", "gauge", "Tokens in use.", ranked, load.used_tokens),
        ("kv_used_tokens", "gauge", "Tokens in use.", ranked, load.used_tokens),
        ("kv_available_tokens", "gauge", "Tokens free.", ranked, pool - load.used_tokens),
        ("cache_hit_rate", "gauge", "Cached share of prompts.", ranked, _hit_rate(load)),
        ("utilization", "gauge", "Stays 0, as recorded.", ranked, 0.0),
        ("prompt_tokens_total", "counter", "Prompt tokens.", plain, load.prompt_tokens_total),
        (
            "generation_tokens_total",
            "counter",
            "Tokens written.",
            plain,
            load.generation_tokens_total,
        ),
        ("num_requests_total", "counter", "Requests done.", plain, load.requests_total),
        ("cached_tokens_total", "counter", "Cached tokens.", source, load.cached_tokens_total),
    ]
    # Recorded: this counter appears on first use.
    if load.aborted_total:
        families.append(
            ("num_aborted_requests_total", "counter", "Aborted.", engine, load.aborted_total)
        )
    return "".join(_family(*family) for family in families)


def _family(name: str, kind: str, text: str, labels: str, value: float) -> str:
    full = f"sglang:{name}"
    return f"# HELP {full} {text}\n# TYPE {full} {kind}\n{full}{{{labels}}} {float(value)}\n"


def dumps(body: object) -> bytes:
    """JSON as SGLang sends it: compact, UTF-8. Lone surrogates of a script go out escaped."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()
