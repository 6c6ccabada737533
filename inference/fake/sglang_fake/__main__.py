"""`python -m sglang_fake --script FILE --port N`: the fake as a process or a pod."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from sglang_fake.script import ScriptError, load_script
from sglang_fake.server import FakeSGLang
from sglang_fake.settings import Settings, ToolCallParser

_DEFAULT = Settings()


def parser() -> argparse.ArgumentParser:
    """The command line; names of SGLang's own options are kept."""
    p = argparse.ArgumentParser(prog="sglang_fake", description="A fake SGLang: plays a script.")
    p.add_argument("--script", required=True, help="YAML file; its format is in README.md")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    p.add_argument("--port", type=int, default=30000, help="port to listen on (%(default)s)")
    p.add_argument("--served-model-name", default=_DEFAULT.model, help="(%(default)s)")
    p.add_argument("--context-length", type=int, default=_DEFAULT.context_length)
    p.add_argument("--max-total-tokens", type=int, default=_DEFAULT.max_total_tokens)
    p.add_argument(
        *("--slots", "--max-running", "--max-running-requests"),
        dest="max_running",
        type=int,
        default=_DEFAULT.max_running,
        help="requests that run at a time; others wait (%(default)s)",
    )
    p.add_argument(
        *("--max-queued", "--max-queued-requests"),
        dest="max_queued",
        type=int,
        default=None,
        help="requests that may wait, the next one gets 503 (any number)",
    )
    p.add_argument(
        *("--latency", "--latency-s"),
        dest="latency_s",
        type=float,
        default=_DEFAULT.latency_s,
        help="seconds that the model takes in a turn whose script does not say (%(default)s)",
    )
    p.add_argument(
        "--tool-call-parser",
        type=ToolCallParser,
        choices=list(ToolCallParser),
        default=_DEFAULT.tool_call_parser,
        help="for replies that are given as text (%(default)s)",
    )
    p.add_argument("--api-key", default=None, help="key that clients must send")
    p.add_argument("--admin-api-key", default=None, help="key that /abort_request then wants")
    p.add_argument(
        "--no-strict", action="store_true", help="accept holes in histories, as SGLang does"
    )
    p.add_argument(
        "--forward-unknown-tools",
        action="store_true",
        help="as SGLANG_FORWARD_UNKNOWN_TOOLS=1: pass on calls of tools that were not offered",
    )
    p.add_argument("--vision", action="store_true", help="be a model that takes images")
    p.add_argument("--no-cache-report", action="store_true", help="leave cached tokens out")
    p.add_argument("--disconnect-poll-s", type=float, default=_DEFAULT.disconnect_poll_s)
    p.add_argument("--health-delay-s", type=float, default=_DEFAULT.health_delay_s)
    p.add_argument("--health-timeout-s", type=float, default=_DEFAULT.health_timeout_s)
    p.add_argument("--crash-linger-s", type=float, default=_DEFAULT.crash_linger_s)
    p.add_argument("--warmup-s", type=float, default=0.0, help="not ready for so long at first")
    p.add_argument(
        "--drain-linger-s",
        type=float,
        default=_DEFAULT.drain_linger_s,
        help="shortest drain (%(default)s)",
    )
    p.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return p


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that a command line asks for."""
    return Settings(
        model=args.served_model_name,
        context_length=args.context_length,
        max_total_tokens=args.max_total_tokens,
        max_running=args.max_running,
        max_queued=args.max_queued,
        latency_s=args.latency_s,
        tool_call_parser=args.tool_call_parser,
        api_key=args.api_key,
        admin_api_key=args.admin_api_key,
        strict=not args.no_strict,
        forward_unknown_tools=args.forward_unknown_tools,
        vision=args.vision,
        cache_report=not args.no_cache_report,
        disconnect_poll_s=args.disconnect_poll_s,
        health_delay_s=args.health_delay_s,
        health_timeout_s=args.health_timeout_s,
        crash_linger_s=args.crash_linger_s,
        drain_linger_s=args.drain_linger_s,
        warmup_s=args.warmup_s,
    )


async def serve(fake: FakeSGLang) -> None:
    """Listen until SIGTERM, SIGINT or the script ends it; SIGTERM and SIGINT drain."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        print("fake SGLang drains", flush=True)
        fake.begin_drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    await fake.start()
    print(f"fake SGLang listens on {fake.url}", flush=True)
    await fake.ended.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code is 0 after a drain, 2 if the script or the port cannot be used. After a
    crash the process kills itself, as SGLang's does."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(message)s")
    try:
        script = load_script(args.script)
        fake = FakeSGLang(script, settings_of(args), host=args.host, port=args.port)
        asyncio.run(serve(fake))
    except (ScriptError, OSError) as err:
        print(f"fake SGLang cannot start: {err}", file=sys.stderr)
        return 2
    if fake.crashed:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
