"""What the HTTP calls of a turn cost a process that does nothing else: `python -m ...floor`.

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

WARM_UP, ROUNDS = 20, 200


@dataclass(frozen=True, slots=True)
class Bare:
    """The four calls of a turn; `NUMBER` in path and body becomes the round's number."""

    kubeconfig: str
    context: str
    model_url: str
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
    begun = 0.0
    async with (
        api_server(bare.kubeconfig, bare.context) as api,
        session_at(bare.model_url.rstrip("/") + "/") as model,
    ):
        for number in range(WARM_UP + ROUNDS):
            if number == WARM_UP:
                begun = time.process_time()
            for call in bare.writes:
                await call.send(api, number)
            await bare.ask.send(model, number)
        return 1000 * (time.process_time() - begun) / ROUNDS


if __name__ == "__main__":
    print(asyncio.run(cpu_ms(Bare.from_json(sys.stdin.read()))))
