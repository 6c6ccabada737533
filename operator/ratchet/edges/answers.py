"""What a refusal or a silence of the API server means for the journal. Pure, but for `find`."""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from ratchet.edges.kube import Api, ApiError, ApiUnreachable
from ratchet.ports import JournalAway

Failure = ApiError | ApiUnreachable
FAILURES = (ApiError, ApiUnreachable)


_PATCH_DID_NOT_FIT = "due to an error in our request"
"""What a 422 says of a JSON patch whose `test` (or `remove`) failed, in k8s.io/apimachinery's
NewGenericServerResponse; a 422 for a wrong value names the field instead."""


class Meaning(Enum):
    """What to do about a failed request, by who must act."""

    EXISTS = auto()
    """Something of that name is there already: read it."""
    LOST_RACE = auto()
    """The object is not as the write expected: read it again."""
    GONE = auto()
    """The object, its namespace or its kind is not there, or on its way out: look at the task."""
    UNKNOWN = auto()
    """It may have happened: read, and look for what was to be written."""
    LATER = auto()
    """It did not happen, and may do so later: overload, or credentials that do not hold (yet).

    A 403 is one of these on purpose: an API server that has just started refuses what it will
    permit when it has read its roles, and a quota is raised by a person."""
    REFUSED = auto()
    """It did not happen, and never will."""


def meaning(failure: Failure) -> Meaning:
    """What a failed request means."""
    if isinstance(failure, ApiUnreachable):
        return Meaning.UNKNOWN
    match failure.status:
        case HTTPStatus.NOT_FOUND:
            return Meaning.GONE
        case HTTPStatus.CONFLICT:
            return Meaning.EXISTS if failure.reason == "AlreadyExists" else Meaning.LOST_RACE
        case HTTPStatus.UNPROCESSABLE_ENTITY if _PATCH_DID_NOT_FIT in failure.message:
            return Meaning.LOST_RACE
        case HTTPStatus.FORBIDDEN if "being terminated" in failure.message:
            return Meaning.GONE  # a namespace on its way out takes no new objects
        case (
            HTTPStatus.UNAUTHORIZED
            | HTTPStatus.FORBIDDEN
            | HTTPStatus.GONE
            | HTTPStatus.TOO_MANY_REQUESTS
        ):
            return Meaning.LATER
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Meaning.UNKNOWN
    return Meaning.REFUSED


def away(failure: Failure) -> JournalAway:
    """The failure as the error of the port that says: try again."""
    return JournalAway(f"the API server cannot do it now: {failure}")


async def find(api: Api, path: str) -> dict[str, Any] | None:
    """The object at a path, None if there is none. Raises JournalAway for all else."""
    try:
        return await api.request("GET", path)
    except FAILURES as failure:
        if meaning(failure) is Meaning.GONE:
            return None
        raise away(failure) from failure
