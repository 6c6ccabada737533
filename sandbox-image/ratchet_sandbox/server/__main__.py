"""Start the sandbox's server: settings, signals, wiring. ``python3 -m ratchet_sandbox.server``."""

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from ratchet_sandbox import protocol
from ratchet_sandbox.server.api import make_app
from ratchet_sandbox.server.calls import Calls
from ratchet_sandbox.server.ledger import Ledger, LedgerError
from ratchet_sandbox.server.link import RunnerLink
from ratchet_sandbox.server.probe import TARGETS_VARIABLE, Probe, targets_of
from ratchet_sandbox.server.word import ControlWord

log = logging.getLogger("ratchet_sandbox.server")

KEEP_ALIVE_S = 3600.0
"""The operator keeps one connection per sandbox, idle while the model thinks."""
SHUTDOWN_S = 2.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ratchet-sandbox-server", description=__doc__)
    parser.add_argument("--task-uid", default=os.environ.get("RATCHET_TASK_UID"))
    parser.add_argument("--host", default="0.0.0.0", help="where HTTPS listens")
    parser.add_argument("--port", type=int, default=protocol.HTTPS_PORT)
    parser.add_argument("--runner-port", type=int, default=protocol.RUNNER_PORT)
    parser.add_argument("--secret-dir", type=Path, default=Path(protocol.SECRET_DIR))
    parser.add_argument("--ledger", type=Path, default=Path(protocol.LEDGER_FILE))
    parser.add_argument("--word", type=Path, default=Path(protocol.WORD_FILE))
    parser.add_argument(
        "--probe-targets", default=os.environ.get(TARGETS_VARIABLE, ""),
        help="what a pod whose network policy holds cannot reach: address:port, separated by commas",
    )  # fmt: skip
    options = parser.parse_args()
    if not options.task_uid:
        parser.error("the task's uid is missing: set RATCHET_TASK_UID or --task-uid")
    return options


def tls_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


async def serve(options: argparse.Namespace) -> None:
    token = (options.secret_dir / "token").read_text(encoding="ascii").strip()
    if not token:
        raise ValueError(f"{options.secret_dir / 'token'} is empty")
    context = tls_context(options.secret_dir)
    probe = Probe(targets_of(options.probe_targets))
    ledger = Ledger.open(options.ledger, options.task_uid)
    calls = Calls(ledger)
    link = RunnerLink(ControlWord(options.word), calls)
    calls.attach(link)
    runner = web.AppRunner(
        make_app(ledger, calls, link, probe, token),
        access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=SHUTDOWN_S,
    )  # fmt: skip
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await runner.setup()
        await web.TCPSite(runner, options.host, options.port, ssl_context=context).start()
        await link.open(protocol.RUNNER_HOST, options.runner_port)
        log.info("serving task %s, ledger %s", options.task_uid, ledger.id)
        await stop.wait()
        log.info("stopping")
    finally:
        calls.stop()
        await probe.stop()
        await runner.cleanup()
        link.close()
        ledger.close()


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(serve(arguments()))
    except (LedgerError, OSError, ValueError) as error:
        log.error("the sandbox's server cannot run: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
