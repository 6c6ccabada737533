"""Recordings, and requests to a fake in their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
from sglang_fake import FakeSGLang, Settings, check_script

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sglang"
Json = dict[str, Any]


def recording(name: str) -> Json:
    loaded: Json = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def settings(**changes: Any) -> Settings:
    """The recorded server, as far as the fake knows its options."""
    known: Json = {
        "model": "smollm2-135m",
        "context_length": 8192,
        "max_total_tokens": 200_000,
        "max_running": 32,
        "max_queued": 64,
        "strict": False,
    }
    return Settings(**{**known, **changes})


def fake_that_says(reply: Json, turn: Json | None = None, **changes: Any) -> FakeSGLang:
    turns = [{"reply": reply, **(turn or {})}]
    script = check_script({"conversations": [{"turns": turns, "loop": True}]})
    return FakeSGLang(script, settings(**changes))


async def send(http: aiohttp.ClientSession, fake: FakeSGLang, request: Json) -> Json:
    """Send a recorded request; the answer in the form of a recording."""
    raw = request.get("body_raw")
    data = raw if raw is not None else json.dumps(request["body"]) if "body" in request else None
    async with http.request(
        request["method"], fake.url + request["path"], data=data, headers=request.get("headers")
    ) as response:
        text = await response.text()
        answer = {"status": response.status, "headers": dict(response.headers)}
        if response.content_type == "application/json":
            return {**answer, "body": json.loads(text)}
        return {**answer, "body_text": text}


def get(path: str) -> Json:
    return {"method": "GET", "path": path}


def chat(rid: str, text: str = "Hello.", **body: Any) -> Json:
    """A request of our own."""
    messages = [{"role": "user", "content": text}]
    return {
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": {"content-type": "application/json"},
        "body": {"model": "smollm2-135m", "messages": messages, "rid": rid, **body},
    }
