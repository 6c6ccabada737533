"""The named faults of a script, as the answers they give. Pure."""

from __future__ import annotations

from sglang_fake.script import Fault
from sglang_fake.wire import Refused, bad_request, overloaded

# Recorded unless a comment says otherwise.
_REFUSALS = {
    "queue_full": overloaded("The request queue is full."),
    "waiting_timeout": overloaded("Request waiting timeout reached."),
    "running_timeout": overloaded("Request running timeout reached."),
    "preempted": overloaded("The request is aborted by a higher priority request."),
    "context_too_long": bad_request(
        "The input (999999 tokens) is longer than the model's context length (8192 tokens)."
    ),
    "unauthorized": Refused(401, {"error": "Unauthorized"}),
    "internal": Refused(500, "Internal Server Error"),
    # Not SGLang's: what a gateway before it says.
    "rate_limited": Refused(
        429, {"error": {"message": "Too many requests."}}, {"Retry-After": "1"}
    ),
    # Not recorded: an answer that is cut by something on the way.
    "bad_json": Refused(200, '{"id": "broken", "choices": [{"mess'),
}


def refusal(fault: Fault) -> Refused | None:
    """The error answer of a fault; None for those that are no answer (cut, disconnect, hang...)."""
    if fault.status is not None:
        return Refused(fault.status, fault.body or "", fault.headers)
    known = _REFUSALS.get(fault.kind or "")
    if known is None:
        return None
    return Refused(known.status, known.body, {**known.headers, **fault.headers})
