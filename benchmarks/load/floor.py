"""What the HTTP calls of a turn cost a process that does nothing else: `python -m ...floor`.

They are made as under the load: by as many callers as the model has places, spread over its latency.
The same calls without a pause cost less, since nothing of the process leaves the caches between two.

Input on stdin: where the API server and the model are, and what a turn sends. Output: one number,
ms of user and system time for one round of the four calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks.bare import Call, api_server, session_at

WARM_UP, ROUNDS = 2, 10
"""Of each caller."""


@dataclass(frozen=True, slots=True)
class Bare:
    """The four calls of a turn; `NUMBER` in path and body becomes a number of its own each time."""

    kubeconfig: str
    context: str
    model_url: str
    callers: int
    latency_s: float
    writes: tuple[Call, ...]
    ask: Call

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Bare:
        raw = json.loads(text)
        writes = tuple(Call(**call) for call in raw.pop("writes"))
        return cls(**{**raw, "writes": writes, "ask": Call(**raw["ask"])})


async def cpu_ms(bare: Bare) -> float:
    """The mean of all rounds but the first ones."""
    async with (
        api_server(bare.kubeconfig, bare.context) as api,
        session_at(bare.model_url.rstrip("/") + "/") as model,
    ):

        async def rounds(caller: int, first: int, many: int) -> None:
            await asyncio.sleep(caller * bare.latency_s / bare.callers)
            for number in range(first, first + many):
                await bare.ask.send(model, number)
                for call in bare.writes:
                    await call.send(api, caller * (WARM_UP + ROUNDS) + number)

        await asyncio.gather(*(rounds(caller, 0, WARM_UP) for caller in range(bare.callers)))
        begun = time.process_time()
        await asyncio.gather(*(rounds(caller, WARM_UP, ROUNDS) for caller in range(bare.callers)))
        return 1000 * (time.process_time() - begun) / (bare.callers * ROUNDS)


if __name__ == "__main__":
    print(asyncio.run(cpu_ms(Bare.from_json(sys.stdin.read()))))
