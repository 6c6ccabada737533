"""No fault at all: many tasks at once, and each call runs once. `python -m tests.proof.undisturbed`"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tests.proof.lane import Lane, lane
from tests.proof.rows import Findings, Row, total
from tests.proof.settings import Settings
from tests.proof.shapes import FINISH, Effect, Turn, marks
from tests.proof.stage import Stage, stage

AT_ONCE = (1, 5, 20)
TOOLS_S = (0.0, 0.05, 1.0)
ENDS_WITHIN_S = 240.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """So many tasks at once, each of so many turns with a tool of so many seconds."""

    tasks: int
    tool_s: float
    turns: int

    @property
    def name(self) -> str:
        """The row's name, and that of the shape without blanks."""
        return f"{self.tasks} at once, tools of {self.tool_s:g} s"

    @property
    def shape(self) -> str:
        """As part of a task's name."""
        return f"t{self.tasks}-{self.tool_s * 1000:g}ms"


def loads(turns: int) -> tuple[Load, ...]:
    """All combinations, of `turns` turns together, or a few more.

    One task alone and slow tools get few turns, since those come one after another.
    """
    weights = {
        (tasks, tool_s): min(tasks, 10) * (0.4 if tool_s == 1.0 else 1.0)
        for tasks, tool_s in product(AT_ONCE, TOOLS_S)
    }
    unit = turns / sum(weights.values())
    return tuple(
        Load(tasks, tool_s, max(3, -int(-unit * weight // tasks)))
        for (tasks, tool_s), weight in weights.items()
    )


async def run(settings: Settings, tell: Tell) -> tuple[Row, ...]:
    """A row for each load, one after another."""
    wanted = [load for load in loads(settings.turns) if settings.only in load.name]
    rows = []
    async with (
        stage(settings, lambda effect: _shapes(wanted, effect), processes=False) as here,
        lane(here, "undisturbed") as place,
    ):
        await place.operator.start()
        for load in wanted:
            rows.append(await _row(here, place, load))
            tell(_line(rows[-1]))
    return tuple(rows)


async def _row(here: Stage, place: Lane, load: Load) -> Row:
    tasks = await place.begin(load.shape, load.tasks)
    await place.ended(tasks, ENDS_WITHIN_S)
    found, turns = await place.judged(tasks)
    wanted = load.tasks * load.turns
    if turns != wanted:
        found += Findings(holes=1, remarks=(f"{turns} turns were recorded, not {wanted}",))
    await place.delete(*tasks)
    here.fake.reset()
    return Row("none", load.name, load.tasks, found, turns=turns)


def _shapes(wanted: list[Load], effect: Effect) -> Mapping[str, tuple[Turn, ...]]:
    return {load.shape: (*_calls(load, effect), FINISH) for load in wanted}


def _calls(load: Load, effect: Effect) -> tuple[Turn, ...]:
    turn = marks(effect, before=f"sleep {load.tool_s:g}" if load.tool_s else "")
    return ({**turn, "repeat": load.turns - 1},)


def _line(row: Row) -> str:
    verdict = f"BROKEN {row.findings}" if row.findings.broken else "good"
    return f"{row.fault}: {row.turns} turns, {verdict}"


def main() -> int:
    """The exit code is 1 where something ran twice or was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.undisturbed", description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--logs", type=Path, default=Path("build/prove"))
    options = parser.parse_args()
    settings = Settings.of_checkout(options.logs, turns=options.turns)
    begin = time.monotonic()
    rows = asyncio.run(run(replace(settings, only=options.only), print))
    turns = sum(row.turns for row in rows)
    print(f"{turns} turns in {time.monotonic() - begin:.0f} s")
    return 1 if total(rows).broken else 0


if __name__ == "__main__":
    sys.exit(main())
