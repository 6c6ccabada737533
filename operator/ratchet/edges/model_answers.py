"""What an OpenAI-compatible server's answer means. Pure.

Shapes are those of SGLang 0.5.23, recorded (tests/fixtures/sglang), and, for other servers, of
the OpenAI API as they are known to bend it: content as a list of parts or null, arguments as an
object, usage without details, an error inside a 200.
"""

from __future__ import annotations

import json
import re
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from ratchet.core.config import ModelConfig
from ratchet.core.keys import clean
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply, Usage

_MAX_SAID = 500
_MAX_COUNT = 2**40
"""More tokens than this are not believed, so that sums stay within what can be stored."""
_MAX_RETRY_AFTER_S = 3600.0
_OTHER_NAME = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""
# SGLang: "longer than the model's context length", "maximum context length", "exceeds the maximum
# allowed length" (recorded); OpenAI: code context_length_exceeded; others: "context window".
_CONTEXT = re.compile(
    r"context[ _](length|window|size)|maximum allowed length|prompt is too long|too many tokens",
    re.IGNORECASE,
)
# The request itself takes longer than the server lets one run (SGLang, recorded: 503). Waiting as
# for a full queue, uncounted, would repeat it for ever.
_TOO_LONG = "running timeout"
# The engine still works on an attempt of a lost connection (recorded: 400).
_DUPLICATE = "Duplicate request ID"

_ADVICE = {
    FailureKind.WAIT: "The request waits and is sent again by itself",
    FailureKind.RETRY: (
        "The request is tried again; if this stays, see that the server runs, that the operator "
        "can reach it, and what its log says"
    ),
    FailureKind.CONTEXT: (
        "The conversation no longer fits the model: use a model or server with a longer context, "
        "or a task with a smaller goal"
    ),
    FailureKind.REQUEST: (
        "The server does not accept this request: see that it serves chat completions with tools "
        "for this model"
    ),
    FailureKind.CONFIGURATION: "Correct the ModelEndpoint, its Secret or its CA",
}


class Unreadable(Exception):
    """The answer is not what the API promises; the text says in what way."""


def failure(
    kind: FailureKind,
    config: ModelConfig,
    what: str,
    status: int | None = None,
    retry_after_s: float | None = None,
    *,
    reached: bool = True,
) -> ModelFailure:
    """A failure with a sentence: where, what happened, what to do next."""
    where = f'The model endpoint "{config.endpoint}" ({_shown(config.url)})'
    message = clean(f"{where} {what.rstrip('.')}. {_ADVICE[kind]}.")
    return ModelFailure(kind, message, status, retry_after_s, reached)


def _shown(url: str) -> str:
    """The URL without user and password."""
    try:
        return str(URL(url).with_user(None))
    except ValueError:
        return "a URL that cannot be parsed"


def unanswered(error: Exception, config: ModelConfig, *, reached: bool = True) -> ModelFailure:
    """No answer, for a reason that may pass. `reached`: the request may have come to the server."""
    name, text = type(error).__name__, str(error)
    what = f"did not answer: {name}: {text}" if text else f"did not answer: {name}"
    return failure(FailureKind.RETRY, config, what, reached=reached)


def tls_failure(error: aiohttp.ClientSSLError, config: ModelConfig, namespace: str) -> ModelFailure:
    """No TLS with the server; `namespace` is that of its CA.

    A person must put it right, but for a handshake that was cut off: it may succeed next time.
    """
    cause: BaseException = error.os_error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return unanswered(error, config, reached=False)
    if isinstance(cause, ssl.SSLCertVerificationError):
        what = _untrusted(cause, config, namespace)
    else:
        reason = getattr(cause, "reason", None) or type(cause).__name__
        what = f"speaks no TLS that can be used ({reason}): is its URL one of http, not https?"
    return failure(FailureKind.CONFIGURATION, config, what, reached=False)


def _untrusted(cause: ssl.SSLCertVerificationError, config: ModelConfig, namespace: str) -> str:
    said = cause.verify_message
    if cause.verify_code in _OTHER_NAME:
        return f"has a certificate for another name ({said}): use a URL with a name that is in it"
    if not config.ca_config_map:
        return (
            f"has a certificate that no authority known to the operator vouches for ({said}): name "
            "a ConfigMap with the certificate of its CA in caConfigMapRef"
        )
    key = config.ca_key or "ca.crt"
    return (
        f"has a certificate that key {key!r} of ConfigMap {namespace}/{config.ca_config_map} does not "
        f"vouch for ({said}): write the certificate of the CA that signed it there"
    )


def read_reply(raw: bytes, config: ModelConfig) -> RawReply | ModelFailure:
    """The reply in a 200. Raises Unreadable if there is none."""
    body = _json(raw)
    if not isinstance(body, dict):
        raise Unreadable("it is not a JSON object")
    if not body.get("choices"):
        if "error" in body or body.get("object") == "error":
            return _error_in_200(body, raw, config)
        raise Unreadable("it has no choices")
    choice = _object(_first(body["choices"]), "choices[0]")
    message = _object(choice.get("message"), "choices[0].message")
    finish_reason = clean(str(choice.get("finish_reason") or ""))
    if finish_reason == "abort":
        what = "ended the request before the reply was whole (finish_reason abort)"
        return failure(FailureKind.RETRY, config, what, 200)
    return RawReply(
        content=_text(message.get("content")),
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
        calls=_calls(message.get("tool_calls")),
        finish_reason=finish_reason,
        usage=_usage(body.get("usage")),
        model=clean(str(body.get("model") or "")),
    )


def read_failure(
    status: int, raw: bytes, retry_after: str | None, config: ModelConfig
) -> ModelFailure:
    """What an answer other than 200 means, by who must act."""
    said = _said(raw)
    what = f"answered {status}: {said}" if said else f"answered {status}"
    kind = _kind(status, said)
    wait_s = _seconds(retry_after) if kind is FailureKind.WAIT else None
    return failure(kind, config, what, status, wait_s)


def _kind(status: int, said: str) -> FailureKind:
    if status == 429 or (status == 503 and _TOO_LONG not in said):
        return FailureKind.WAIT
    if status >= 500 or status == 408 or (status == 400 and _DUPLICATE in said):
        return FailureKind.RETRY
    if status == 413 or (status in (400, 422) and _CONTEXT.search(said)):
        return FailureKind.CONTEXT
    # A 3xx is one too: the key must not follow a redirection to another host.
    if status in (401, 403, 404, 405) or status < 400:
        return FailureKind.CONFIGURATION
    return FailureKind.REQUEST


def _error_in_200(body: dict[str, Any], raw: bytes, config: ModelConfig) -> ModelFailure:
    """Some gateways send an error as 200; its own code counts if it has one."""
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else body.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return read_failure(status, raw, None, config)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as err:
        raise Unreadable(f"it is not JSON ({err})") from err


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) else None


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is not an object")
    return value


def _text(content: object) -> str:
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return clean("".join(part for part in parts if isinstance(part, str)))
    return ""


def _calls(calls: object) -> tuple[RawCall, ...]:
    return tuple(_call(call) for call in calls) if isinstance(calls, list) else ()


def _call(call: object) -> RawCall:
    """A call as it was written. One of an unknown shape keeps its text, under an empty name."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return RawCall("", clean(json.dumps(call, ensure_ascii=False)))
    arguments = function.get("arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return RawCall(clean(function["name"]), clean(arguments))


def _usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    prompt_details = usage.get("prompt_tokens_details")
    completion_details = usage.get("completion_tokens_details")
    return Usage(
        prompt=_count(usage, "prompt_tokens"),
        cached=_count(prompt_details, "cached_tokens"),
        completion=_count(usage, "completion_tokens"),
        # SGLang has it beside the other counts, OpenAI among the details.
        reasoning=_count(usage, "reasoning_tokens")
        or _count(completion_details, "reasoning_tokens"),
    )


def _count(holder: object, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return min(max(0, value), _MAX_COUNT) if isinstance(value, int) else 0


def _said(raw: bytes) -> str:
    """The server's own words, in whatever shape its error has; one line, at most 500 letters."""
    text = raw[:65536].decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    line = " ".join(clean(_message(body) or text).split())
    return line if len(line) <= _MAX_SAID else f"{line[:_MAX_SAID]}..."


def _message(body: object) -> str | None:
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return None
    for name in ("message", "detail", "error", "error_message"):
        found = _message(body.get(name))
        if found:
            code = body.get("code")
            return f"{found} ({code})" if isinstance(code, str) else found
    return None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, from a number or a date; None if it is absent or neither.

    At most an hour: a server that is back sooner is then asked sooner.
    """
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", retry_after):
        return min(float(retry_after), _MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), _MAX_RETRY_AFTER_S)
