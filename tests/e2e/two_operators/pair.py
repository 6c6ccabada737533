"""Two operators that look after the same tasks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.e2e.kubectl import Kubectl
from tests.e2e.operator_process import OperatorProcess


@dataclass(frozen=True, slots=True)
class Pair:
    """The first one takes the Lease when both are started."""

    first: OperatorProcess
    second: OperatorProcess

    async def start(self) -> None:
        """Start both, the first one first; both are ready then."""
        await self.first.start()
        await self.second.launch()
        await self.second.ready(role="standby")

    async def stop(self) -> None:
        """End both, whatever they do, and show the ends of their logs."""
        for operator in (self.first, self.second):
            operator.log.touch()
            print(f"--- {operator.pod}\n{operator.tail(40)}")
            if operator.process is not None and operator.process.returncode is None:
                operator.wake()
        await self.first.stop()
        await self.second.stop()


async def taken_over(kubectl: Kubectl, task: str, holder: str, within_s: float) -> float:
    """Seconds until a task is somebody's."""
    begun = time.monotonic()
    await kubectl.wait_until(
        "agenttask", task, lambda found: owner(found) == holder, within_s=within_s
    )
    return time.monotonic() - begun


def owner(task: dict[str, object]) -> str:
    """Who claimed a task last; empty if nobody did."""
    status = task.get("status")
    assert isinstance(status, dict)
    return str((status.get("owner") or {}).get("holder", ""))
