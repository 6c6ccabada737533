"""Run a command with the checkout's cluster up: `python3 -m tools.with_cluster COMMAND...`.

A cluster that was not up before is taken down afterwards, quietly, so that the command's own last
lines stay the last ones.
"""

import signal
import subprocess
import sys
from types import FrameType

CLUSTER = (sys.executable, "-m", "tests.cluster")


def is_up() -> bool:
    """Whether the checkout's cluster works."""
    done = subprocess.run([*CLUSTER, "status"], capture_output=True, check=False)
    return done.returncode == 0


def take_down() -> None:
    """End the cluster; its words are shown only if that fails."""
    done = subprocess.run([*CLUSTER, "down"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)


def _stop(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that the cluster is taken down on the way out.
    sys.exit(128 + number)


def main() -> int:
    """Entry point; gives the command's exit code."""
    signal.signal(signal.SIGTERM, _stop)
    ours = not is_up()
    try:
        if ours:
            subprocess.run([*CLUSTER, "up"], check=True)
        return subprocess.run(sys.argv[1:], check=False).returncode
    except subprocess.CalledProcessError as error:
        return error.returncode
    finally:
        if ours:
            take_down()


if __name__ == "__main__":
    sys.exit(main())
