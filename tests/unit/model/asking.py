"""What the tests of the model's edge share: a reader of Secrets, servers, and requests to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.core.config import Engine, ModelConfig
from ratchet.core.keys import canonical
from ratchet.core.replies import ModelFailure, RawReply
from ratchet.edges.access import Access
from ratchet.edges.model import ModelClient
from ratchet.ports import ModelRequest
from sglang_fake import FakeSGLang, Settings, check_script

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
BODY = canonical({"messages": [{"role": "user", "content": "Mend it."}], "tools": TOOLS})


class Objects:
    """Secrets and ConfigMaps by name, in any namespace (access.Reader); notes the reads."""

    def __init__(self, **objects: Mapping[str, str]) -> None:
        self.objects = dict(objects)
        self.reads: list[tuple[str, str, str]] = []

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        return self._get("Secret", namespace, name)

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        return self._get("ConfigMap", namespace, name)

    def _get(self, kind: str, namespace: str, name: str) -> Mapping[str, str]:
        self.reads.append((kind, namespace, name))
        if name not in self.objects:
            raise LookupError(f"there is no {kind} {namespace}/{name}: create it")
        return self.objects[name]


def client_of(**objects: Mapping[str, str]) -> ModelClient:
    return ModelClient(Access(Objects(**objects)))


def fake(turn: dict[str, Any], **changes: Any) -> FakeSGLang:
    """A fake SGLang that gives this turn to every request."""
    script = check_script({"conversations": [{"turns": [turn], "loop": True}]})
    return FakeSGLang(script, Settings(keep_bodies=True, **changes))


def other_server(body: object, status: int = 200, **headers: str) -> FakeSGLang:
    """A server that answers with exactly this body."""
    return fake({"error": {"status": status, "body": body, "headers": headers}})


def request_to(url: str, body: str = BODY, rid: str = "r-1", **config: Any) -> ModelRequest:
    known = {"endpoint": "main", "url": url, "model": "m", "engine": Engine.SGLANG}
    return ModelRequest(
        config=ModelConfig(**{**known, **config}),
        namespace="team-a",
        body=body,
        rid=rid,
        routing_key="task-uid",
    )


async def reply(client: ModelClient, url: str, **config: Any) -> RawReply:
    answer = await client.ask(request_to(url, **config))
    assert isinstance(answer, RawReply), answer
    return answer


async def failure(client: ModelClient, url: str, **config: Any) -> ModelFailure:
    answer = await client.ask(request_to(url, **config))
    assert isinstance(answer, ModelFailure), answer
    return answer
