"""Sandboxes to attack, and notes of what became of each case."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from ratchet.core.config import Config

from tests.attack.notes import Note, Verdict, write
from tests.cluster import Cluster
from tests.e2e.box import Box, Boxes, config, open_boxes
from tests.e2e.conftest import cluster, connect

__all__ = ["cluster"]

RUNTIMES = ("runc", "gvisor")
RUNTIME = os.environ.get("RATCHET_RUNTIME", "runc")
"""The runtime of this run's sandboxes: runc, which has no RuntimeClass here, or gvisor."""
NOTES = os.environ.get("RATCHET_ATTACK_NOTES", "")
"""Where the notes go; nowhere if empty."""
TIMEOUT_S = 180
SHORT_S = 4
ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
"""For each module: its sandboxes are shared, and so is the loop that their connections live on."""
HERE = Path(__file__).parent

_notes: dict[str, Note] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.attack)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.path.is_relative_to(HERE):
        before = _notes.get(item.nodeid)
        _notes[item.nodeid] = _note(item, report, before)
    return report


def _note(item: pytest.Item, report: pytest.TestReport, before: Note | None) -> Note:
    """The worst of a case's set-up, call and tear-down; the time of all."""
    seconds = report.duration + (before.seconds if before else 0.0)
    verdict, why = Verdict.HELD, ""
    if report.failed:
        verdict, why = Verdict.FAILED, f"{report.when}: {report.longreprtext[-2000:]}"
    elif report.skipped:
        verdict, why = Verdict.LEFT_OUT, report.longreprtext[-300:]
    if before is not None and before.verdict is not Verdict.HELD:
        verdict, why = before.verdict, before.why
    category = item.path.stem.removeprefix("test_")
    return Note(category, item.name.removeprefix("test_"), verdict, round(seconds, 2), why)


def pytest_sessionfinish() -> None:
    if NOTES:
        write(Path(NOTES), _notes.values())


@pytest.fixture(scope="session")
def runtime() -> str:
    """The container runtime of this run."""
    assert RUNTIME in RUNTIMES, f"RATCHET_RUNTIME is {RUNTIME!r}, not one of {RUNTIMES}"
    return RUNTIME


@pytest.fixture
def local(cluster: Cluster) -> None:
    """For cases in which the node itself does something to a container."""
    if cluster.provider != "local":
        pytest.skip("needs a node whose container runtime the test can ask")


def shape(**sandbox: object) -> Config:
    """A sandbox of this run's runtime; small limits, so that what is to run out does so soon."""
    known = {"runtime_class": "" if RUNTIME == "runc" else RUNTIME, "hard_timeout_s": 60}
    return config(**{**known, **sandbox})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def boxes(cluster: Cluster) -> AsyncIterator[Boxes]:
    """Where the sandboxes of one module come from: a namespace of its own."""
    name = f"attack-{uuid.uuid4().hex[:8]}"
    async with await connect(cluster) as api:
        await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            async with open_boxes(cluster, name) as found:
                yield found
        finally:
            await api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(boxes: Boxes) -> AsyncIterator[Box]:
    """A sandbox that the cases of one module share: for what leaves it usable."""
    found = await boxes.make(shape())
    await found.ready()
    yield found
    await boxes.remove(found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def short(boxes: Boxes) -> AsyncIterator[Box]:
    """One with a hard timeout of a few seconds: for what is to run into it."""
    found = await boxes.make(shape(hard_timeout_s=SHORT_S))
    await found.ready()
    yield found
    await boxes.remove(found)


class Spares:
    """Sandboxes for one case each; the next one is made while the case before it runs."""

    def __init__(self, boxes: Boxes, wanted: int) -> None:
        self._boxes = boxes
        self._wanted = wanted
        self._next: asyncio.Task[Box] | None = None

    async def take(self) -> Box:
        """One that is ready and was used by nobody."""
        making = self._next or asyncio.create_task(self._make())
        found = await making
        self._wanted -= 1
        self._next = asyncio.create_task(self._make()) if self._wanted > 0 else None
        return found

    async def close(self) -> None:
        """Give up the one that nobody took; it goes with its namespace."""
        if self._next:
            self._next.cancel()
            await asyncio.wait((self._next,))

    async def _make(self) -> Box:
        found = await self._boxes.make(shape())
        await found.ready()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spares(request: pytest.FixtureRequest, boxes: Boxes) -> AsyncIterator[Spares]:
    """As many as the chosen cases of one module ask for."""
    ours = [item for item in request.session.items if item.path == request.path]
    wanted = sum("fresh" in getattr(item, "fixturenames", ()) for item in ours)
    found = Spares(boxes, wanted)
    yield found
    await found.close()


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(boxes: Boxes, spares: Spares) -> AsyncIterator[Box]:
    """A sandbox for one case alone."""
    found = await spares.take()
    yield found
    await boxes.remove(found)
