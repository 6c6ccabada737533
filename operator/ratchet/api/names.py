"""Names that Ratchet gives to things in a cluster: group, kinds, labels, and names of objects.

Everything here is a pure function of its arguments. Kubernetes allows 253 characters in the name
of an object and 63 in the value of a label; a task's name is therefore held to ``TASK_NAME_MAX``,
which leaves room for the suffixes below, and labels carry the task's uid instead of its name.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "ratchet.run"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "ratchet"

TASK_KIND: Final = "AgentTask"
TASK_PLURAL: Final = "agenttasks"
TURN_KIND: Final = "AgentTurn"
TURN_PLURAL: Final = "agentturns"
PROFILE_KIND: Final = "AgentProfile"
PROFILE_PLURAL: Final = "agentprofiles"
ENDPOINT_KIND: Final = "ModelEndpoint"
ENDPOINT_PLURAL: Final = "modelendpoints"
CLASS_KIND: Final = "SandboxClass"
CLASS_PLURAL: Final = "sandboxclasses"

DEFAULT_ENDPOINT: Final = "default"
"""The ModelEndpoint of a task that names none, neither itself nor by its profile."""
DEFAULT_CLASS: Final = "default"
"""The SandboxClass of a task that names none, neither itself nor by its profile."""

FIELD_MANAGER: Final = "ratchet-operator"
"""The field manager of every write that the operator makes."""

TASK_NAME_MAX: Final = 200
"""Longest name of a task, in characters; the CRD refuses longer ones."""
OBJECT_NAME_MAX: Final = 253

LABEL_TASK_UID: Final = f"{GROUP}/task-uid"
"""On turns, pods and secrets: the uid of their task."""
LABEL_TURN: Final = f"{GROUP}/turn"
"""On turns: the number of the record."""
LABEL_TURN_KIND: Final = f"{GROUP}/turn-kind"
"""On turns: Start, Turn or End."""
LABEL_GENERATION: Final = f"{GROUP}/generation"
"""On sandbox pods and their secrets: which sandbox of the task this is."""
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "ratchet"
COMPONENT_SANDBOX: Final = "sandbox"
COMPONENT_JOURNAL: Final = "journal"
COMPONENT_PATCH: Final = "patch"

_UID_CHARS: Final = 8
_DIGEST_CHARS: Final = 12


def turn_name(task: str, uid: str, number: int) -> str:
    """Name of a task's journal record: ``<task>-<uid8>-t<number>``.

    It is deterministic, so that creating it is the fence between two writers of the same record.

    >>> turn_name("fix-it", "0f3c9a1e-5555-4444-8888-121212121212", 3)
    'fix-it-0f3c9a1e-t3'
    """
    if number < 0:
        raise ValueError(f"journal records are numbered from 0, not {number}")
    return _child_name(task, uid, f"t{number}")


def sandbox_name(task: str, uid: str, generation: int) -> str:
    """Name of the pod of a task's sandbox and of its secret: ``<task>-<uid8>-g<generation>``.

    >>> sandbox_name("fix-it", "0f3c9a1e-5555-4444-8888-121212121212", 1)
    'fix-it-0f3c9a1e-g1'
    """
    if generation < 1:
        raise ValueError(f"sandboxes are numbered from 1, not {generation}")
    return _child_name(task, uid, f"g{generation}")


def workspace_claim_name(task: str, uid: str) -> str:
    """Name of the PersistentVolumeClaim of a task's workspace: ``<task>-<uid8>-workspace``.

    >>> workspace_claim_name("fix-it", "0f3c9a1e-5555-4444-8888-121212121212")
    'fix-it-0f3c9a1e-workspace'
    """
    return _child_name(task, uid, "workspace")


def patch_part_name(task: str, uid: str, sha256: str, number: int) -> str:
    """Name of a ConfigMap with a part of a patch: ``<task>-<uid8>-p<digest>-<number>``.

    >>> patch_part_name("fix-it", "0f3c9a1e-5555-4444-8888-121212121212", "ab" * 32, 0)
    'fix-it-0f3c9a1e-pabababababab-0'
    """
    return _child_name(task, uid, f"p{sha256[:_DIGEST_CHARS]}-{number}")


def uid8(uid: str) -> str:
    """The part of a uid that names carry: its first 8 characters."""
    if len(uid) < _UID_CHARS:
        raise ValueError(f"{uid!r} is no uid of a stored object: names need 8 characters of it")
    return uid[:_UID_CHARS]


def task_labels(uid: str, *, component: str) -> dict[str, str]:
    """Labels of everything that belongs to a task; ``component`` is one of ``COMPONENT_*``."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_PART_OF: MANAGED_BY,
        LABEL_COMPONENT: component,
        LABEL_TASK_UID: uid,
    }


def turn_labels(uid: str, *, number: int, kind: str) -> dict[str, str]:
    """Labels of a journal record; ``kind`` is Start, Turn or End."""
    labels = task_labels(uid, component=COMPONENT_JOURNAL)
    return {**labels, LABEL_TURN: str(number), LABEL_TURN_KIND: kind}


def sandbox_labels(uid: str, *, generation: int) -> dict[str, str]:
    """Labels of a sandbox's pod and secret."""
    labels = task_labels(uid, component=COMPONENT_SANDBOX)
    return {**labels, LABEL_GENERATION: str(generation)}


def task_selector(uid: str, *, component: str) -> str:
    """Label selector that finds a task's objects of one component."""
    return f"{LABEL_TASK_UID}={uid},{LABEL_COMPONENT}={component}"


def _child_name(task: str, uid: str, suffix: str) -> str:
    if len(task) > TASK_NAME_MAX:
        raise ValueError(f"the name of a task has at most {TASK_NAME_MAX} characters: {task!r}")
    return f"{task}-{uid8(uid)}-{suffix}"
