"""The catalogue of phases, condition types and reasons that a task's status can show.

Three lists, each word with a sentence: nothing else may appear in ``status.phase``,
``status.reason`` or ``status.conditions[].{type,reason}``. Phases are a summary for people;
tools read the conditions, which follow what kstatus, Argo CD and ``kubectl wait`` expect:
``Ready`` alone never makes a failure (kstatus needs ``Stalled``), and ``Finished`` is the one
condition that is true however a task ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Phase(StrEnum):
    """Where a task is, in one word."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


PHASES: Final[Mapping[Phase, str]] = MappingProxyType(
    {
        Phase.PENDING: "Stored, not yet seen by the operator.",
        Phase.QUEUED: "Waits for a free place at its model endpoint; the message says which one.",
        Phase.RUNNING: "The model is asked and tools run.",
        Phase.WAITING: "Waits for something outside of the task, which the reason names.",
        Phase.SUCCEEDED: "Ended with a result.",
        Phase.FAILED: "Ended without a result; the reason says why.",
        Phase.CANCELLED: "Ended because spec.cancel was set.",
    }
)

TERMINAL_PHASES: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


class ConditionType(StrEnum):
    """Types of the conditions of a task."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"
    FINISHED = "Finished"
    NETWORK_ENFORCED = "NetworkEnforced"


CONDITION_TYPES: Final[Mapping[ConditionType, str]] = MappingProxyType(
    {
        ConditionType.READY: "True when the task has succeeded; False with a reason until then.",
        ConditionType.RECONCILING: "True while the task goes on; absent when it has ended.",
        ConditionType.STALLED: "True when the task ended without success; absent otherwise.",
        ConditionType.COMPLETE: "True when the task has succeeded; absent otherwise.",
        ConditionType.FAILED: "True when the task failed or was cancelled; absent otherwise.",
        ConditionType.FINISHED: "True when the task has ended, either way; absent until then.",
        ConditionType.NETWORK_ENFORCED: (
            "True when the sandbox tried what its network policy denies and could reach none of it,"
            " False when it could, Unknown when it could not be tried; absent until it was."
        ),
    }
)


class Reason(StrEnum):
    """Why a task is where it is; ``REASONS`` has the sentence for each."""

    # It goes on.
    ACCEPTED = "Accepted"
    QUEUED = "Queued"
    SANDBOX_STARTING = "SandboxStarting"
    ASKING_MODEL = "AskingModel"
    RUNNING_TOOLS = "RunningTools"
    ENDING = "Ending"
    TAKEN_OVER = "TakenOver"
    # It goes on, but something is in its way.
    PROFILE_NOT_FOUND = "ProfileNotFound"
    ENDPOINT_NOT_FOUND = "EndpointNotFound"
    CLASS_NOT_FOUND = "ClassNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    GIT_CLONE_FAILED = "GitCloneFailed"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    SANDBOX_UNSCHEDULABLE = "SandboxUnschedulable"
    SANDBOX_RESTARTING = "SandboxRestarting"
    SANDBOX_UNREACHABLE = "SandboxUnreachable"
    SANDBOX_OUT_OF_MEMORY = "SandboxOutOfMemory"
    SANDBOX_DISK_FULL = "SandboxDiskFull"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    MODEL_BUSY = "ModelBusy"
    MODEL_RETRYING = "ModelRetrying"
    # It has succeeded.
    FINISHED = "Finished"
    TEXT_ACCEPTED = "TextAccepted"
    # It was stopped.
    CANCELLED = "Cancelled"
    TURN_LIMIT = "TurnLimit"
    TOKEN_LIMIT = "TokenLimit"
    COST_LIMIT = "CostLimit"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    # It has failed.
    CONFIG_INVALID = "ConfigInvalid"
    MODEL_UNREACHABLE = "ModelUnreachable"
    MODEL_UNAUTHORIZED = "ModelUnauthorized"
    MODEL_REJECTED = "ModelRejected"
    MODEL_REFUSED = "ModelRefused"
    CONTEXT_FULL = "ContextFull"
    REPAIRS_EXHAUSTED = "RepairsExhausted"
    NOT_FINISHED = "NotFinished"
    OWNERS_LOST = "OwnersLost"
    JOURNAL_CONFLICT = "JournalConflict"
    UNKNOWN_OUTCOME = "UnknownOutcome"
    SANDBOX_FAILED = "SandboxFailed"
    SANDBOX_LOST = "SandboxLost"
    NETWORK_NOT_ENFORCED = "NetworkNotEnforced"
    RESULT_LOST = "ResultLost"
    INTERNAL_ERROR = "InternalError"
    # Why NetworkEnforced is what it is.
    POLICY_ENFORCED = "PolicyEnforced"
    POLICY_IGNORED = "PolicyIgnored"
    PROBE_INCONCLUSIVE = "ProbeInconclusive"


REASONS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.ACCEPTED: "The operator has taken the task on.",
        Reason.QUEUED: (
            "The model endpoint takes no more requests for now; the message has the place in the"
            " queue and what it waits for."
        ),
        Reason.SANDBOX_STARTING: "The pod of the sandbox is being made.",
        Reason.ASKING_MODEL: "The model has been asked and has not answered yet.",
        Reason.RUNNING_TOOLS: "Tool calls run in the sandbox.",
        Reason.ENDING: "The end is decided and is being recorded.",
        Reason.TAKEN_OVER: "Another operator process has taken the task over and goes on with it.",
        Reason.PROFILE_NOT_FOUND: (
            "spec.profileRef names no AgentProfile of this namespace; create it, or create a new"
            " task without it."
        ),
        Reason.ENDPOINT_NOT_FOUND: (
            "There is no ModelEndpoint of that name in that namespace, or it does not allow the"
            " task's in its allowedNamespaces (a task that names none uses the one called default);"
            " create or change it."
        ),
        Reason.CLASS_NOT_FOUND: (
            "There is no SandboxClass of that name in this namespace (a task that names none uses"
            " the one called default); create it."
        ),
        Reason.SECRET_NOT_FOUND: (
            "A Secret, or the key in it, that the ModelEndpoint or spec.git names is missing; create it."
        ),
        Reason.CONFIG_MAP_NOT_FOUND: (
            "A ConfigMap, or the key in it, that spec.files or caConfigMapRef of the ModelEndpoint"
            " names is missing; create it."
        ),
        Reason.SERVICE_NOT_FOUND: (
            "A Service that egress of the SandboxClass names is missing; create it."
        ),
        Reason.GIT_CLONE_FAILED: (
            "The repository of spec.git could not be cloned; the message says why."
        ),
        Reason.IMAGE_UNAVAILABLE: (
            "An image of the sandbox cannot be pulled; check its name and the pull secrets of the"
            " SandboxClass."
        ),
        Reason.SANDBOX_UNSCHEDULABLE: (
            "No node has room for the sandbox; see the Events of its pod, and lower the requests"
            " of the SandboxClass or add a node."
        ),
        Reason.SANDBOX_RESTARTING: (
            "The shell container of the sandbox was lost and is being started again."
        ),
        Reason.SANDBOX_UNREACHABLE: (
            "The sandbox does not answer; the operator tries again. Check network policies between"
            " the operator and the pod."
        ),
        Reason.SANDBOX_OUT_OF_MEMORY: (
            "The shell container of the sandbox was killed as a whole, as happens when it uses more"
            " memory than its limit, and is being started again; raise resources.limits.memory of"
            " the SandboxClass if it happens again. Where one command alone was killed, its result"
            " says so."
        ),
        Reason.SANDBOX_DISK_FULL: (
            "The sandbox wrote more than its volumes may hold, or its node's disk is full; raise the"
            " limits of the workspace and of ephemeral-storage of the SandboxClass, or free the"
            " node's disk."
        ),
        Reason.EVICTED: (
            "The pod of the sandbox was ended by the cluster: its node ran short of something, is"
            " drained or shuts down, or a more important pod took its place."
        ),
        Reason.NODE_LOST: (
            "The node of the sandbox does not answer, so that its commands may still run there;"
            " nothing is repeated until the pod is gone. If the node is dead for good, delete the"
            " Node object."
        ),
        Reason.MODEL_BUSY: "The model endpoint asked to wait (HTTP 429 or 503); it is asked again.",
        Reason.MODEL_RETRYING: "A model request failed and is tried again.",
        Reason.FINISHED: "The model called finish and its result is recorded.",
        Reason.TEXT_ACCEPTED: (
            "The model answered with text alone, which spec.completion: Text takes as the result."
        ),
        Reason.CANCELLED: "spec.cancel was set to true.",
        Reason.TURN_LIMIT: (
            "The task used all the turns of limits.turns; create a new task with a higher limit or"
            " a smaller goal."
        ),
        Reason.TOKEN_LIMIT: (
            "The task used all the tokens of limits.tokens; create a new task with a higher limit"
            " or a smaller goal."
        ),
        Reason.COST_LIMIT: (
            "The next request could cost more than limits.cost leaves; create a new task with a"
            " higher limit or a smaller goal."
        ),
        Reason.DEADLINE_EXCEEDED: (
            "The task ran longer than activeDeadlineSeconds; create a new task with a longer one."
        ),
        Reason.CONFIG_INVALID: (
            "The task, its profile, endpoint and class do not fit together; the message lists what"
            " to change."
        ),
        Reason.MODEL_UNREACHABLE: (
            "No model endpoint of the task gave a reply; check the url of each ModelEndpoint and that"
            " the server runs. While the task runs, they are tried again until giveUpSeconds of its"
            " retryPolicy have passed."
        ),
        Reason.MODEL_UNAUTHORIZED: (
            "The model endpoint refused the key (HTTP 401 or 403); check apiKeySecretRef of the"
            " ModelEndpoint."
        ),
        Reason.MODEL_REJECTED: (
            "The model endpoint refused the request as wrong (HTTP 4xx); the message has its words."
        ),
        Reason.MODEL_REFUSED: "The model declined to work on the goal; the last turn has its words.",
        Reason.CONTEXT_FULL: (
            "The history no longer fits into the context window of the model; create a new task"
            " with a smaller goal, or use an endpoint with a larger contextWindow."
        ),
        Reason.REPAIRS_EXHAUSTED: (
            "The model's replies stayed unusable after retryPolicy.model.repairs corrections; the"
            " turns have the raw text."
        ),
        Reason.NOT_FINISHED: (
            "The model stopped calling tools and did not call finish when it was reminded."
        ),
        Reason.OWNERS_LOST: (
            "Three operator processes were lost at the same turn; see why the operator dies"
            " before you create the task again."
        ),
        Reason.JOURNAL_CONFLICT: (
            "A record of the journal is not what this task wrote; nobody but the operator may"
            " create, change or delete AgentTurns. Create the task again under a new name."
        ),
        Reason.UNKNOWN_OUTCOME: (
            "A call may or may not have happened, and onUnknownOutcome is Fail; look at the"
            " workspace's targets before you create the task again."
        ),
        Reason.SANDBOX_FAILED: (
            "The sandbox could not be started or kept; the message says what its pod reported."
        ),
        Reason.SANDBOX_LOST: (
            "The sandbox was lost with its workspace, and workspace.onLoss of the SandboxClass is"
            " Fail; create the task again, or use a class whose workspace is on a volumeClaim."
        ),
        Reason.NETWORK_NOT_ENFORCED: (
            "The SandboxClass has requireEnforcedNetwork, and its sandbox could reach what its"
            " network policy denies, or could not find out; use a network plugin that enforces"
            " policies, or a class that does not require it."
        ),
        Reason.RESULT_LOST: (
            "The sandbox was gone before the result could be taken out of it; create the task"
            " again."
        ),
        Reason.INTERNAL_ERROR: (
            "The operator came upon a fault of its own; its log, under the uid of the task, has"
            " the details."
        ),
        Reason.POLICY_ENFORCED: (
            "The sandbox could reach nothing of what it tried that its network policy denies."
        ),
        Reason.POLICY_IGNORED: (
            "The sandbox could reach what its network policy denies: the network plugin of the"
            " cluster does not enforce policies, or another policy of the namespace allows it."
        ),
        Reason.PROBE_INCONCLUSIVE: (
            "Whether the network policy of the sandbox holds could not be found out; the message"
            " says why."
        ),
    }
)

SUCCESS_REASONS: Final = frozenset({Reason.FINISHED, Reason.TEXT_ACCEPTED})


class EndpointCondition(StrEnum):
    """Types of the conditions of a ModelEndpoint."""

    READY = "Ready"
    SATURATED = "Saturated"


class EndpointReason(StrEnum):
    """Why a condition of a ModelEndpoint is what it is; ``ENDPOINT_REASONS`` has the sentence."""

    SERVING = "Serving"
    NOT_ASKED = "NotAsked"
    UNREACHABLE = "Unreachable"
    UNAUTHORIZED = "Unauthorized"
    MODEL_NOT_SERVED = "ModelNotServed"
    SECRET_NOT_FOUND = "SecretNotFound"
    CA_INVALID = "CAInvalid"
    BREAKER_OPEN = "BreakerOpen"
    CONFIG_INVALID = "ConfigInvalid"
    PLACES_FREE = "PlacesFree"
    PLACES_TAKEN = "PlacesTaken"
    SERVER_FULL = "ServerFull"


ENDPOINT_REASONS: Final[Mapping[EndpointReason, str]] = MappingProxyType(
    {
        EndpointReason.SERVING: "The endpoint answers and serves the model.",
        EndpointReason.NOT_ASKED: "The endpoint was not asked yet.",
        EndpointReason.UNREACHABLE: (
            "The endpoint does not answer; check its url and that the server runs."
        ),
        EndpointReason.UNAUTHORIZED: (
            "The endpoint refused the key (HTTP 401 or 403); check apiKeySecretRef."
        ),
        EndpointReason.MODEL_NOT_SERVED: (
            "GET /v1/models does not name the model of the endpoint; check spec.model."
        ),
        EndpointReason.SECRET_NOT_FOUND: (
            "The Secret, or the key in it, that apiKeySecretRef names is missing; create it."
        ),
        EndpointReason.CA_INVALID: (
            "The ConfigMap that caConfigMapRef names is missing or holds no certificate; mend it."
        ),
        EndpointReason.BREAKER_OPEN: (
            "Requests failed in a row; the endpoint is left alone for a while, then tried with one."
        ),
        EndpointReason.CONFIG_INVALID: "The fields of the endpoint do not fit together.",
        EndpointReason.PLACES_FREE: "A request would be sent at once.",
        EndpointReason.PLACES_TAKEN: "All places of the endpoint's capacity are taken.",
        EndpointReason.SERVER_FULL: "The server says that it is full; requests wait.",
    }
)
