"""The digests that records carry: what makes an edit of any of them visible. Pure.

They cover what is stored, as it is stored, and not what this version makes of it: a later version
that knows more fields finds the same digests. Whoever has `jq` can check them without Ratchet;
`docs/journal.md` says how.

The API server changes nothing in a record: the CRD has no defaults in it, and a record with a
field that the CRD does not know is refused and not pruned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ratchet.core.keys import canonical

COVERED = ("committedAt", "reruns", "results")
"""Fields of a turn's status that are written once and for all. `epoch` is not one of them."""


def of_spec(spec: Mapping[str, Any]) -> str:
    """`spec.digest`: SHA-256 in hex of everything else in the spec of an AgentTurn."""
    return _sha256({name: value for name, value in spec.items() if name != "digest"})


def of_results(record: str, status: Mapping[str, Any]) -> str:
    """`status.digest`: SHA-256 in hex of `record`, the turn's `spec.digest`, and what became of it.

    A list of re-runs that is absent is none, and covered as absent.
    """
    return _sha256({"record": record} | {name: status[name] for name in COVERED if name in status})


def _sha256(value: Mapping[str, Any]) -> str:
    # What somebody else wrote may hold what no UTF-8 can: it must not fit, and not break us.
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()
