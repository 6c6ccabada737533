"""How the server says no: an HTTP status, a code for programs, a sentence for people."""

from typing import Any

from ratchet_sandbox.server.ledger import Ledger


class Refusal(Exception):
    """A request that is not served. `extra` joins the JSON body beside code and message."""

    def __init__(self, status: int, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, **extra}


def bad_request(message: str) -> Refusal:
    return Refusal(400, "bad_request", message)


def unauthorized() -> Refusal:
    return Refusal(
        401, "unauthorized", "the bearer token is missing or wrong: use the one of this "
        "sandbox generation's Secret",
    )  # fmt: skip


def bad_digest(key: str) -> Refusal:
    return Refusal(
        400, "bad_digest", f"the digest of call {key} is not that of its tool and arguments: "
        "send the arguments exactly as they were recorded",
    )  # fmt: skip


def absent(key: str) -> Refusal:
    return Refusal(404, "absent", f"call {key} was never reserved here: submit it to have it run")


def conflict(key: str) -> Refusal:
    return Refusal(
        409, "conflict", f"call {key} is reserved with another digest: the journal and this "
        "ledger disagree; nothing was run",
    )  # fmt: skip


def withdrawn(key: str) -> Refusal:
    return Refusal(
        409, "withdrawn", f"call {key} was cancelled before it came; nothing was reserved or run",
    )  # fmt: skip


def stale_epoch(asked: int, epoch: int) -> Refusal:
    return Refusal(
        409, "stale_epoch", f"epoch {asked} is over, the task is at {epoch}: another owner has "
        "taken over; stop this loop", epoch=epoch,
    )  # fmt: skip


def wrong_ledger(asked: str, ledger: Ledger) -> Refusal:
    return Refusal(
        409, "wrong_ledger", f"this is ledger {ledger.id}, not {asked}: the sandbox was "
        "replaced; calls open in the old one have an unknown outcome", ledger=ledger.id,
    )  # fmt: skip


def runner_away(why: str) -> Refusal:
    return Refusal(
        503, "runner_away", f"{why}; nothing was reserved or run: ask again when /v1/health "
        "says ready",
    )  # fmt: skip


def too_large(message: str, **extra: Any) -> Refusal:
    return Refusal(413, "too_large", message, **extra)
