"""What the scripted model plays: the same no-op call again and again, then silence."""

from __future__ import annotations

import json
from dataclasses import dataclass

NO_OP = {"name": "bash", "arguments": {"command": ":"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One task of the benchmark: so many measured turns, with a model that takes so long."""

    name: str
    turns: int
    delay_s: float

    @property
    def played(self) -> int:
        """Turns that the model plays: a measured turn lasts from one stored turn to the next."""
        return self.turns + 1

    @property
    def goal(self) -> str:
        """Goal of the task, by which the model knows the run."""
        return f"Benchmark {self.name}: call the no-op."


def script(runs: tuple[Run, ...]) -> str:
    """A script for the fake SGLang (inference/fake/README.md): JSON, which is YAML."""
    return json.dumps({"conversations": [_conversation(run) for run in runs]})


def _conversation(run: Run) -> dict[str, object]:
    no_op = {"reply": {"tool_calls": [NO_OP]}, "delay_s": run.delay_s, "repeat": run.played}
    return {
        "name": run.name,
        "match": {"contains": run.goal},
        # After the last measured turn the task stays as it is, so that what was written can be
        # read, and the floor measured, with nothing else going on.
        "turns": [no_op, {"error": {"kind": "hang"}}],
    }
