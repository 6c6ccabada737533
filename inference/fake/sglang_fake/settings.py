"""How the fake behaves. The defaults are SGLang's where it has one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ToolCallParser(StrEnum):
    """What makes tool calls of the model's text; SGLang's names for `--tool-call-parser`."""

    MISTRAL = "mistral"
    QWEN = "qwen"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one fake server. Times are in seconds.

    `max_running` are the slots: what does not fit waits, at most `max_queued` requests (None: any
    number). `latency_s` is how long the model takes in a turn whose script does not say.

    The times after which SGLang was recorded to notice things: an abort of a running and of a
    waiting request, a client that left (looked for at multiples of `disconnect_poll_s`), a dead
    engine (`crash_linger_s`), /health of a live and of a silent engine. Tests shorten them.

    `strict` is stricter than SGLang (see validate.strict_problem). `forward_unknown_tools` is
    SGLang's SGLANG_FORWARD_UNKNOWN_TOOLS=1: without it, a call of a tool that was not offered is
    dropped. `vision` is a model that takes images. `keep_bodies` keeps every request's body in
    memory, for tests.
    """

    model: str = "fake-model"
    context_length: int = 131072
    max_total_tokens: int = 2_000_000
    max_running: int = 4096
    max_queued: int | None = None
    latency_s: float = 0.0
    api_key: str | None = None
    admin_api_key: str | None = None
    strict: bool = True
    tool_call_parser: ToolCallParser = ToolCallParser.MISTRAL
    forward_unknown_tools: bool = False
    vision: bool = False
    cache_report: bool = True
    health_generation: bool = True
    disconnect_poll_s: float = 4.0
    abort_running_s: float = 0.046
    abort_waiting_s: float = 0.011
    health_delay_s: float = 1.0
    health_timeout_s: float = 20.0
    crash_linger_s: float = 5.4
    drain_linger_s: float = 1.0
    warmup_s: float = 0.0
    keep_bodies: bool = False
