"""How the fake behaves. The defaults are SGLang's where it has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one fake server.

    `strict` is stricter than SGLang (see validate.strict_problem). `disconnect_poll_s` is 4 in
    SGLang and `health_delay_s` 1; tests shorten both. `forward_unknown_tools` is SGLang's
    SGLANG_FORWARD_UNKNOWN_TOOLS=1: without it, a call of a tool that was not offered is dropped.
    `keep_bodies` keeps every request's body in memory, for tests.
    """

    model: str = "fake-model"
    context_length: int = 131072
    max_total_tokens: int = 2_000_000
    max_running: int = 4096
    max_queued: int | None = None
    api_key: str | None = None
    admin_api_key: str | None = None
    strict: bool = True
    forward_unknown_tools: bool = False
    cache_report: bool = True
    disconnect_poll_s: float = 4.0
    health_delay_s: float = 1.0
    warmup_s: float = 0.0
    keep_bodies: bool = False
