"""`python -m tests.property.replay SEED|JSON`: play a plan again and tell its story.

The exit code is 1 where a promise is broken. `--shrink` makes the plan smaller first.
"""

from __future__ import annotations

import argparse
import sys

from tests.property.plan import Plan, plan_of
from tests.property.scenario import play
from tests.property.shrinking import shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.property.replay", description=__doc__)
    parser.add_argument("plan", help="a seed, or the JSON of a plan")
    parser.add_argument("--shrink", action="store_true", help="make a plan that breaks smaller")
    options = parser.parse_args()
    given: str = options.plan
    played = play(plan_of(int(given)) if given.isdigit() else Plan.from_json(given))
    if options.shrink and played.findings.broken:
        played = shrink(played)
    print(played.text)
    print("a promise is broken" if played.findings.broken else "all promises are kept")
    return 1 if played.findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
