"""Patches that are too large for the journal: stored in parts, read back, and never mixed up."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ratchet.api import names
from ratchet.build.patchparts import PART_BYTES, content
from ratchet.core.records import Patch, PatchPart
from ratchet.edges import patches
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.edges.patches import INLINE_MAX, PatchBroken
from ratchet.edges.sandbox import Diff
from ratchet.ports import JournalAway, SandboxAway, TaskRef
from ratchet_sandbox import protocol

from tests.property.apiserver import ApiServer

TASK = TaskRef("team-a", "fix-it", "0f3c9a1e-5555-4444-8888-121212121212")
MAPS = "/api/v1/namespaces/team-a/configmaps"


@dataclass
class MemoryApi:
    """An API server in memory (kube.Api), and what it is to say to the next requests."""

    server: ApiServer = field(default_factory=ApiServer)
    says: list[Exception | None] = field(default_factory=list)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        error = self.says.pop(0) if self.says else None
        if error:
            raise error
        return self.server.request(method, path, body, params)


def of(data: bytes, upstream: str = "") -> Diff:
    return Diff("b" * 40, data, hashlib.sha256(data).hexdigest(), upstream)


LARGE = os.urandom(2 * PART_BYTES + 1)


async def test_a_small_patch_is_in_the_record_as_text_where_it_is_utf_8() -> None:
    api = MemoryApi()
    patch = await patches.stored(api, TASK, of("é".encode(), "c" * 40))
    assert (patch.inline, patch.encoding, patch.size, patch.parts) == ("é", "text", 2, ())
    assert (patch.base, patch.upstream_commit) == ("b" * 40, "c" * 40)
    assert await patches.read(api, "team-a", patch) == "é".encode()
    assert not api.server.objects


async def test_a_small_patch_of_other_bytes_is_in_the_record_as_base64() -> None:
    patch = await patches.stored(MemoryApi(), TASK, of(b"\xff"))
    assert (patch.inline, patch.encoding) == ("/w==", "base64")
    assert patches.inline_bytes(patch) == b"\xff"


async def test_the_largest_patch_inline_and_the_next() -> None:
    api = MemoryApi()
    assert (await patches.stored(api, TASK, of(b"x" * INLINE_MAX))).inline
    assert (await patches.stored(api, TASK, of(b"x" * (INLINE_MAX + 1)))).parts


async def test_a_large_patch_is_in_immutable_config_maps_of_the_task() -> None:
    api = MemoryApi()
    patch = await patches.stored(api, TASK, of(LARGE, "c" * 40))

    assert patch.inline == "" and patch.upstream_commit == "c" * 40
    assert [part.size for part in patch.parts] == [PART_BYTES, PART_BYTES, 1]
    for part in patch.parts:
        made = api.server.objects[f"{MAPS}/{part.name}"]
        assert made["immutable"] is True
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("AgentTask", TASK.uid)
        assert made["metadata"]["labels"][names.LABEL_TASK_UID] == TASK.uid
    assert await patches.read(api, "team-a", patch) == LARGE


async def test_the_largest_patch_of_a_sandbox_fits_into_the_record_and_into_objects() -> None:
    api = MemoryApi()
    patch = await patches.stored(api, TASK, of(bytes(protocol.PATCH_LIMIT)))
    assert len(patch.parts) == 8
    sizes = [len(str(o["binaryData"])) for o in api.server.objects.values()]
    assert max(sizes) < 1024 * 1024


async def test_storing_it_again_changes_nothing() -> None:
    api = MemoryApi()
    first = await patches.stored(api, TASK, of(LARGE))
    before = dict(api.server.objects)
    assert await patches.stored(api, TASK, of(LARGE)) == first
    assert api.server.objects == before


async def test_an_answer_that_was_lost_is_looked_up() -> None:
    api = MemoryApi(says=[ApiUnreachable("cut")])
    with pytest.raises(JournalAway):
        await patches.stored(api, TASK, of(LARGE))  # it was not made
    assert await patches.read(api, "team-a", await patches.stored(api, TASK, of(LARGE))) == LARGE


async def test_a_foreign_config_map_of_that_name_is_not_taken_for_the_patch() -> None:
    api = MemoryApi()
    patch = await patches.stored(api, TASK, of(LARGE))
    name = patch.parts[0].name
    api.server.change(f"{MAPS}/{name}", lambda found: found.update(binaryData={"patch": "AAAA"}))
    with pytest.raises(SandboxAway, match=f"there is a ConfigMap {name} with something else"):
        await patches.stored(api, TASK, of(LARGE))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ApiError(403, "Forbidden", "exceeded quota: small"), SandboxAway),
        (ApiError(422, "Invalid", "no"), SandboxAway),
        (ApiError(429, "TooManyRequests", "later"), JournalAway),
    ],
)
async def test_a_config_map_that_is_refused_is_told_or_tried_again(
    error: ApiError, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await patches.stored(MemoryApi(says=[error]), TASK, of(LARGE))


# --- what is wrong with what is stored -----------------------------------------------------------


async def test_a_part_that_is_gone_or_another_is_noticed() -> None:
    api = MemoryApi()
    patch = await patches.stored(api, TASK, of(LARGE))
    path = f"{MAPS}/{patch.parts[1].name}"
    kept = api.server.objects.pop(path)
    with pytest.raises(PatchBroken, match="is gone"):
        await patches.read(api, "team-a", patch)
    api.server.objects[path] = {**kept, "binaryData": {"patch": "AAAA"}}
    with pytest.raises(PatchBroken, match="3 bytes of it"):
        await patches.read(api, "team-a", patch)
    swapped = replace(patch, parts=(patch.parts[0], patch.parts[0], patch.parts[2]))
    with pytest.raises(PatchBroken, match="size and digest"):
        await patches.read(api, "team-a", swapped)


async def test_a_patch_that_was_too_large_to_be_kept_says_so() -> None:
    with pytest.raises(PatchBroken, match="too large to be kept"):
        await patches.read(MemoryApi(), "team-a", Patch("b" * 40, "0" * 64, 6_000_000))


@pytest.mark.parametrize("found", [{}, {"binaryData": None}, {"binaryData": {"patch": "%"}}])
def test_an_object_without_a_part_has_no_content(found: dict[str, Any]) -> None:
    assert content(found) is None
    with pytest.raises(PatchBroken, match="holds nothing of it"):
        patches.piece(PatchPart("x", 3), content(found))
