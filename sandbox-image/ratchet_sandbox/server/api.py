"""The server's HTTP API: routes, token, validation, errors as JSON.

Every request but GET /v1/health carries ``Authorization: Bearer <token>``, checked before the
body is read. No log line holds the token, arguments or content.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from ratchet_sandbox import protocol
from ratchet_sandbox.failpoints import Dropped, Point, reach
from ratchet_sandbox.server import refusal
from ratchet_sandbox.server.calls import Calls, Submission, parse_arguments
from ratchet_sandbox.server.ledger import Call, Ledger, Record, is_full
from ratchet_sandbox.server.link import Answer, RunnerAway, RunnerLink
from ratchet_sandbox.server.probe import Probe
from ratchet_sandbox.server.refusal import Refusal

log = logging.getLogger(__name__)

BODY_LIMIT: Final = 512 * 1024
DIFF_TIMEOUT_S: Final = 60.0
READ_TIMEOUT_S: Final = 30.0
KEY: Final = r"{key:[^/]+/\d+/\d+(?:/r\d+)?}"
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_STATUS_OF_RUNNER_ERROR: Final = {"not_found": 404, "bad_path": 400, "too_large": 413}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the handlers work with."""

    ledger: Ledger
    calls: Calls
    link: RunnerLink
    probe: Probe
    token: str
    boot: str


SANDBOX: Final = web.AppKey("sandbox", Sandbox)


def make_app(
    ledger: Ledger, calls: Calls, link: RunnerLink, probe: Probe, token: str
) -> web.Application:
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_errors, _authorize])
    app[SANDBOX] = Sandbox(ledger, calls, link, probe, token, uuid.uuid4().hex)
    app.add_routes([
        web.get("/v1/health", health),
        web.get("/v1/info", info),
        web.get("/v1/network", network),
        web.put("/v1/epoch", put_epoch),
        web.put("/v1/calls/" + KEY, put_call),
        web.get("/v1/calls/" + KEY, get_call),
        web.post("/v1/calls/" + KEY + "/cancel", cancel_call),
        web.get("/v1/diff", diff),
        web.get("/v1/files/{path:.+}", read_file),
        web.get("/v1/digests/{path:.+}", digest_file),
    ])  # fmt: skip
    return app


# --- middlewares ---


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as error:
        return web.json_response(error.body, status=error.status)
    except web.HTTPException as error:
        code = "too_large" if error.status == 413 else "bad_request"
        message = f"{request.method} {request.path}: {error.reason}"
        return web.json_response({"code": code, "message": message}, status=error.status)
    except RunnerAway as error:
        away = refusal.runner_away(str(error))
        return web.json_response(away.body, status=away.status)
    except sqlite3.Error as error:
        log.error("ledger failed: %s", error)
        code = "ledger_full" if is_full(error) else "ledger_failed"
        message = (
            f"the ledger could not be read or written: {error}. Nothing was begun. Free room on its "
            "volume, or see why the volume fails"
        )
        return web.json_response({"code": code, "message": message}, status=500)
    except Dropped:
        return _cut(request)


def _cut(request: web.Request) -> web.Response:
    """Close the connection of a request; what is returned has nowhere to go."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@web.middleware
async def _authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get("Authorization", "")
    wanted = f"Bearer {request.app[SANDBOX].token}"
    good = hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
    if not good and request.path != "/v1/health":
        raise refusal.unauthorized()
    return await handler(request)


# --- handlers ---


async def health(request: web.Request) -> web.Response:
    if request.app[SANDBOX].link.session:
        return web.json_response({"ready": True})
    reason = "no runner is connected: the shell container has not started or is restarting"
    return web.json_response({"ready": False, "reason": reason}, status=503)


async def info(request: web.Request) -> web.Response:
    sandbox = request.app[SANDBOX]
    session = sandbox.link.session
    return web.json_response({
        "ledger": sandbox.ledger.id,
        "boot": sandbox.boot,
        "epoch": sandbox.ledger.epoch,
        "taskUid": sandbox.ledger.task_uid,
        "runner": {"connected": session is not None, "shell": session.shell if session else None},
        "reserved": [record.key for record in sandbox.ledger.unfinished()],
    })  # fmt: skip


async def network(request: web.Request) -> web.Response:
    """``{"verdict": "Enforced"|"Open"|"Unknown"|"Probing", "message"}``: what trying has shown."""
    found = await request.app[SANDBOX].probe.finding(_wait(request))
    return web.json_response({"verdict": found.verdict, "message": found.message})


async def put_epoch(request: web.Request) -> web.Response:
    sandbox = request.app[SANDBOX]
    body = await _body(request)
    sandbox.calls.fence(_epoch(body.get("epoch")), _text(body, "ledger"))
    reach(Point.EPOCH_RAISED)
    return web.json_response({"epoch": sandbox.ledger.epoch})


async def put_call(request: web.Request) -> web.Response:
    calls = request.app[SANDBOX].calls
    key, wait = _key(request), _wait(request)
    body = await _body(request)
    calls.fence(_epoch(body.get("epoch")), _text(body, "ledger"))
    record = await calls.submit(_submission(key, body))
    return _answer(await calls.wait(record, wait))


async def get_call(request: web.Request) -> web.Response:
    calls = request.app[SANDBOX].calls
    key, wait = _key(request), _wait(request)
    calls.fence(_epoch(request.query.get("epoch")), request.query.get("ledger", ""))
    return _answer(await calls.wait(calls.find(key), wait))


async def cancel_call(request: web.Request) -> web.Response:
    calls = request.app[SANDBOX].calls
    key = _key(request)
    body = await _body(request)
    calls.fence(_epoch(body.get("epoch")), _text(body, "ledger"))
    return _answer(await calls.cancel(key))


async def diff(request: web.Request) -> web.Response:
    answer = await request.app[SANDBOX].link.ask(protocol.Diff, DIFF_TIMEOUT_S)
    if not isinstance(answer, protocol.Patch):
        raise _runner_error(answer)
    patch = _decoded(answer.patch)
    if len(patch) > protocol.PATCH_LIMIT:
        raise refusal.too_large(f"the patch has {len(patch)} bytes", size=len(patch))
    if not all(_COMMIT.fullmatch(one) for one in (answer.base, answer.upstream or answer.base)):
        raise _nonsense("a base commit that is none")
    return web.json_response({
        "base": answer.base,
        "patch": answer.patch,
        "size": len(patch),
        "sha256": hashlib.sha256(patch).hexdigest(),
        "upstream": answer.upstream,
    })  # fmt: skip


async def read_file(request: web.Request) -> web.Response:
    path = _path(request)
    link = request.app[SANDBOX].link
    answer = await link.ask(lambda id: protocol.Read(id, path), READ_TIMEOUT_S)
    if not isinstance(answer, protocol.File):
        raise _runner_error(answer)
    data = _decoded(answer.data)
    if len(data) > protocol.FILE_LIMIT:
        raise refusal.too_large(f"{path!r} has {len(data)} bytes", size=len(data))
    return web.Response(body=data, content_type="application/octet-stream")


async def digest_file(request: web.Request) -> web.Response:
    """``{"digest": "sha256:<hex>"}`` of a file of any size, null if there is none."""
    path = _path(request)
    link = request.app[SANDBOX].link
    answer = await link.ask(lambda id: protocol.Digest(id, path), READ_TIMEOUT_S)
    if not isinstance(answer, protocol.Digests):
        raise _runner_error(answer)
    if answer.before is not None and not protocol.is_digest(answer.before):
        raise _nonsense("a digest that is none")
    return web.json_response({"digest": answer.before})


# --- what came in, what goes out ---


def _answer(record: Record) -> web.Response:
    reach(Point.ANSWERING)
    meta = record.meta
    return web.json_response({
        "key": record.key,
        "tool": record.tool,
        "digest": record.digest,
        "state": record.state,
        "outcome": record.outcome,
        "content": record.content,
        "meta": {
            "exitCode": meta.exit_code,
            "truncated": meta.truncated,
            "spill": meta.spill,
            "durationMs": meta.duration_ms,
            "before": meta.before,
            "after": meta.after,
            "notUtf8": meta.not_utf8,
        },
        "shell": record.shell,
    })  # fmt: skip


def _submission(key: str, body: dict[str, Any]) -> Submission:
    tool, arguments = _text(body, "tool"), _text(body, "arguments")
    parsed = parse_arguments(arguments)
    digest = protocol.digest_of(tool, arguments)
    if digest != _text(body, "digest"):
        raise refusal.bad_digest(key)
    return Submission(
        Call(key, tool, arguments, digest, _epoch(body.get("epoch"))),
        parsed,
        _seconds(body, "softTimeoutSeconds"),
        _seconds(body, "hardTimeoutSeconds"),
    )


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise refusal.bad_request("the body is not a JSON object") from error
    if not isinstance(value, dict):
        raise refusal.bad_request("the body is not a JSON object")
    return value


def _key(request: web.Request) -> str:
    key = request.match_info["key"]
    if not protocol.is_key(key):
        raise refusal.bad_request(f"{key[:200]!r} is not a key: <task uid>/<turn>/<index>[/r<k>]")
    uid = request.app[SANDBOX].ledger.task_uid
    if key.split("/")[0] != uid:
        raise refusal.bad_request(f"call {key} is of another task: this sandbox belongs to {uid}")
    return key


def _path(request: web.Request) -> str:
    path = request.match_info["path"]
    if len(path) > protocol.PATH_LIMIT:
        raise refusal.bad_request(f"the path is over {protocol.PATH_LIMIT} characters")
    return path


def _wait(request: web.Request) -> float:
    try:
        wait = float(request.query.get("wait", "0"))
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= protocol.WAIT_LIMIT_S:
        raise refusal.bad_request(f"wait must be 0 to {protocol.WAIT_LIMIT_S:.0f} seconds")
    return wait


def _epoch(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise refusal.bad_request("epoch must be a whole number from 0")
    return value


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or value != protocol.clean(value):
        raise refusal.bad_request(f"{name} must be a string of valid UTF-8")
    return value


def _seconds(body: dict[str, Any], name: str) -> float:
    value = body.get(name)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 < float(value) <= 86_400:  # type: ignore[arg-type]
        raise refusal.bad_request(f"{name} must be over 0 and at most 86400")
    return float(value)  # type: ignore[arg-type]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _nonsense("base64 that is none") from error


def _runner_error(answer: Answer) -> Refusal:
    if not isinstance(answer, protocol.Error):
        return _nonsense("an answer to another question")
    status = _STATUS_OF_RUNNER_ERROR.get(answer.code, 500)
    code = answer.code if status != 500 else "failed"
    extra = {} if answer.size is None else {"size": answer.size}
    return Refusal(status, code, answer.message[: protocol.TEXT_LIMIT], **extra)


def _nonsense(what: str) -> Refusal:
    return Refusal(502, "bad_runner", f"the runner sent {what}; has a command replaced it?")
