"""What the supervisor keeps does not grow with the tasks that come and go."""

from __future__ import annotations

import asyncio

from ratchet.ports import TaskRef
from ratchet.shell.supervisor import TaskSeen

from tests.unit.shell.test_supervisor import Scene, play


def test_nothing_is_kept_of_a_task_that_is_gone() -> None:
    async def story(scene: Scene) -> None:
        for number in range(10):
            scene.supervisor.task_seen(TaskSeen(TaskRef("work", "x", str(number)), gone=True))
        await scene.until(lambda: len(scene.sandboxes.removed) == 10, 1)
        await asyncio.sleep(0.01)
        assert not scene.supervisor._removing_now
        assert not scene.supervisor._entries

    play(story)
