"""Faults on a cluster of its own: `python -m tests.proof.cluster [--only NAME] [--faults N]`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from tests.cluster import ClusterError
from tests.proof.cluster.level import run, summary
from tests.proof.cluster.plan import KINDS
from tests.proof.rows import total


async def _main(options: argparse.Namespace) -> int:
    this = asyncio.current_task()
    assert this is not None
    # As an exception, so that the cluster is taken down on the way out.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    begin = time.monotonic()
    rows = await run(
        options.faults,
        options.seed,
        options.logs,
        lambda line: print(line, flush=True),
        only=options.only,
        keep=options.keep,
    )
    print(summary(rows, time.monotonic() - begin))
    return 1 if total(rows).broken else 0


def main() -> int:
    """The exit code is 1 where a promise was broken, and 2 where there was no cluster to try it on."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.cluster",
        description=__doc__,
        epilog=f"Names of faults: {', '.join(kind.name for kind in KINDS)}.",
    )
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--faults", type=int, default=len(KINDS) + 2, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, default=Path("build/prove"))
    parser.add_argument("--keep", action="store_true", help="leave the cluster up afterwards")
    options = parser.parse_args()
    try:
        return asyncio.run(_main(options))
    except ClusterError as error:
        print(f"error: {error}\nlogs: {options.logs / 'cluster'}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
