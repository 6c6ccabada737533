"""The named faults of a script, as the answers they give. Pure."""

from __future__ import annotations

from sglang_fake.script import Fault
from sglang_fake.wire import Refused, bad_request, overloaded

_REFUSALS = {
    # Recorded: tests/fixtures/sglang, folders queue, timeouts, priority, errors and auth.
    "queue_full": overloaded("The request queue is full."),
    "waiting_timeout": overloaded("Request waiting timeout reached."),
    "running_timeout": overloaded("Request running timeout reached."),
    "preempted": overloaded("The request is aborted by a higher priority request."),
    "context_too_long": bad_request(
        "The input (999999 tokens) is longer than the model's context length (8192 tokens)."
    ),
    "unauthorized": Refused(401, {"error": "Unauthorized"}),
    "internal": Refused(500, "Internal Server Error"),
    # Not SGLang's, which serves any name: what OpenAI's API and others say (the shape is that of
    # SGLang's own GET /v1/models/{name}, recorded in endpoints/v1_models_unknown).
    "model_not_found": Refused(
        404,
        {
            "error": {
                "message": "The model does not exist.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        },
    ),
    # Not SGLang's: what a gateway before it says.
    "rate_limited": Refused(
        429, {"error": {"message": "Too many requests."}}, {"Retry-After": "1"}
    ),
    # What sglang-router 0.3.2 says; tests/router compares both with the real one.
    "router_no_workers": Refused(
        503,
        {
            "error": {
                "type": "Service Unavailable",
                "code": "no_available_workers",
                "message": "No available workers (all circuits open or unhealthy)",
            }
        },
        {"x-smg-error-code": "no_available_workers"},
    ),
    "router_lost_worker": Refused(
        500,
        {
            "error": {
                "type": "Internal Server Error",
                "code": "call_upstream_request_error",
                "message": "error sending request for url (http://worker/v1/chat/completions). "
                "URL: http://worker/v1/chat/completions",
            }
        },
        {"x-smg-error-code": "call_upstream_request_error"},
    ),
    # Not recorded: an answer that something on the way has broken.
    "bad_json": Refused(200, '{"id": "broken", "choices": [{"mess'),
}


def refusal(fault: Fault) -> Refused | None:
    """The error answer of a fault; None for those that are no answer (cut, hang, crash...)."""
    if fault.status is not None:
        return Refused(fault.status, fault.body or "", fault.headers)
    known = _REFUSALS.get(fault.kind or "")
    if known is None:
        return None
    return Refused(known.status, known.body, {**known.headers, **fault.headers}, late=known.late)
