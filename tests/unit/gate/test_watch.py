"""The watch of ModelEndpoints, as it is hung into kopf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import kopf
from ratchet.api import names
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import register, task_seen
from ratchet.shell.supervisor import Supervisor


class Notes:
    def __init__(self) -> None:
        self.seen_events: list[tuple[str | None, Mapping[str, Any]]] = []

    def seen(self, kind: str | None, body: Mapping[str, Any]) -> None:
        self.seen_events.append((kind, body))


def watching(notes: Notes | None) -> dict[str, Any]:
    """The handlers of a registry by the plural of what they watch."""
    registry = kopf.OperatorRegistry()
    register(registry, cast(Supervisor, None), Freshness(), notes)
    handlers = registry._watching.get_all_handlers()
    return {str(each.selector.any_name): each.fn for each in handlers if each.selector}


async def test_events_of_model_endpoints_are_passed_on() -> None:
    notes, body = Notes(), {"metadata": {"name": "large", "namespace": "models"}}
    handler = watching(notes)[names.ENDPOINT_PLURAL]
    await handler(event={"type": "DELETED"}, body=kopf.Body(cast(Any, body)))
    assert notes.seen_events == [("DELETED", body)]


def test_the_priority_of_a_task_is_seen() -> None:
    meta = {"namespace": "space", "name": "task", "uid": "uid-00001"}
    assert task_seen("MODIFIED", {"metadata": meta, "spec": {"priority": -7}}).priority == -7
    assert task_seen("MODIFIED", {"metadata": meta}).priority == 0


def test_without_anybody_to_tell_they_are_not_watched() -> None:
    assert names.ENDPOINT_PLURAL not in watching(None)
