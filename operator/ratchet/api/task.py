"""AgentTask: the work, as a user writes it, and its status, as the operator writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import (
    AGE,
    Column,
    Count,
    Digest,
    Kind,
    Model,
    Positive,
    Resource,
    Rule,
    Time,
    chars,
    immutable_rules,
    listed,
)
from ratchet.api.common import (
    DEADLINE_MAX,
    INLINE_MAX,
    ConfigMapKeyRef,
    Limits,
    ModelChoice,
    NameRef,
    RetryPolicy,
    SandboxChoice,
    Tools,
)
from ratchet.api.conditions import Condition, ConditionType, Phase
from ratchet.api.git import GitSource
from ratchet.api.images import ContextImage
from ratchet.api.policy import Constraints, Policy
from ratchet.core.config import Completion, UnknownPolicy

GOAL_MAX = 65_536
FILES_MAX = 64
IMAGES_MAX = 8


class FileMode(StrEnum):
    """Permissions of a file in the workspace."""

    PLAIN = "0644"
    EXECUTABLE = "0755"


class File(Model):
    """A file that is in the workspace before the first turn."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="has(self.content) != has(self.configMapKeyRef)",
            message="a file has exactly one of content and configMapKeyRef: give one of the two",
        ),
        Rule(
            rule=(
                "!self.path.split('/').exists(p, p == '' || p == '.' || p == '..' || p == '.git')"
            ),
            message=(
                "path is relative to the workspace, without a leading or doubled '/' and without"
                " '.', '..' or '.git' as a part: write it like src/main.py"
            ),
            field=".path",
        ),
    )

    path: Annotated[str, chars(512, least=1, pattern=r"^[^\x00-\x1f\x7f\\]+$")]
    """Where the file goes, relative to the workspace, such as src/main.py. At most 512 characters,
    no "..", no ".git", no backslash. Each path once. Required."""
    content: Annotated[str, chars(INLINE_MAX)] | None = None
    """The text of the file. Exactly one of content and configMapKeyRef is given."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """The ConfigMap key that holds the file, read once when the sandbox is made. Exactly one of
    content and configMapKeyRef is given."""
    mode: FileMode | None = None
    """Permissions, "0644" or "0755", in quotes. Default: "0644"."""


_WORK = (
    "goal",
    "context",
    "contextImages",
    "files",
    "git",
    "profileRef",
    "model",
    "tools",
    "sandbox",
    "limits",
    "activeDeadlineSeconds",
    "retryPolicy",
    "onUnknownOutcome",
    "completion",
    "constraints",
    "policy",
)
_INLINE_BYTES = (
    "size(bytes(self.goal))"
    " + (has(self.context) ? size(bytes(self.context)) : 0)"
    " + (has(self.files)"
    " ? self.files.map(f, has(f.content) ? size(bytes(f.content)) : 0).sum() : 0)"
    " + (has(self.contextImages) ? self.contextImages.map(i, size(i.data)).sum() : 0)"
)


class AgentTaskSpec(Model):
    """The work to be done. Everything but priority and cancel is immutable: create a new task to
    change it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="self.goal.trim() != ''",
            message="goal is empty: say in words what the agent is to do",
            field=".goal",
        ),
        Rule(
            rule=f"{_INLINE_BYTES} <= {INLINE_MAX}",
            message=(
                "goal, context, the data of contextImages and the content of files have more than"
                f" {INLINE_MAX} bytes (200 KiB) together: put large files into a ConfigMap and name"
                " it by configMapKeyRef, or make images smaller"
            ),
        ),
        *immutable_rules(
            *_WORK,
            required=("goal",),
            why="a task keeps the work it was created with; create a new AgentTask instead",
        ),
        Rule(
            rule=("!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)"),
            message="cancel cannot be taken back once it is true: create a new AgentTask instead",
            reason="FieldValueForbidden",
            field=".cancel",
        ),
    )

    goal: Annotated[str, chars(GOAL_MAX, least=1)]
    """What is to be done, in words, as the model reads it: 1 to 65,536 characters. Together with
    context, images and inline files at most 200 KiB in UTF-8. Required. Immutable."""
    context: Annotated[str, chars(GOAL_MAX)] | None = None
    """What the model should know beside the goal, up to 65,536 characters. Default: none.
    Immutable."""
    context_images: (
        Annotated[tuple[ContextImage, ...], listed("atomic", most=IMAGES_MAX)] | None
    ) = None
    """Images that the model is shown with the goal, at most 8. The ModelEndpoint that is asked first
    must have vision; a fallback without it is told how many there were. Default: none. Immutable."""
    files: Annotated[tuple[File, ...], listed("map", most=FILES_MAX, keys=("path",))] | None = None
    """Files put into the workspace before the first turn, at most 64. The workspace is a git
    repository whose first commit holds them; the result is the difference to it. Default: none.
    Immutable."""
    git: GitSource | None = None
    """The git repository that the workspace starts from; files are put on top of it. Default:
    none, an empty workspace. Immutable."""
    profile_ref: NameRef | None = None
    """The AgentProfile whose fields hold where this task has none of its own. Default: none.
    Immutable."""
    model: ModelChoice | None = None
    """Which model is asked, and how. Default: the profile's. Immutable."""
    tools: Tools | None = None
    """Which tools the model may call. Default: the profile's, else all. Immutable."""
    sandbox: SandboxChoice | None = None
    """Which sandbox the tools run in. Default: the profile's. Immutable."""
    limits: Limits | None = None
    """How much the task may use before it is ended. Default: the profile's. Immutable."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=DEADLINE_MAX)] | None = None
    """Seconds from the start of the task until it is ended with reason DeadlineExceeded, 1 to
    604,800 (a week). Default: the profile's, else no deadline. Immutable."""
    retry_policy: RetryPolicy | None = None
    """What is tried again, and how often. Default: the profile's. Immutable."""
    on_unknown_outcome: UnknownPolicy | None = None
    """What to do about a call that may or may not have happened, such as a bash command in a
    sandbox that was lost: Report tells the model so, Retry runs it again, Fail ends the task.
    Default: the profile's, else Report. Immutable."""
    completion: Completion | None = None
    """What ends the task with success: Explicit takes the finish tool alone, Text also takes a
    reply without tool calls, after one reminder. Default: the profile's, else Explicit.
    Immutable."""
    constraints: Constraints | None = None
    """Rules that the model is told to keep, each a sentence of up to 500 characters, at most 32;
    they follow those of the profile. What it must not be able to break belongs into policy.
    Default: those of the profile alone. Immutable."""
    policy: Policy | None = None
    """Rules about tool calls that the operator enforces, whatever the model says. Those of the
    profile come first. Default: those of the profile alone. Immutable."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """Place among the tasks that wait for the same model endpoint: higher ones first, -1,000 to
    1,000. Tasks that have begun go before all that have not. Default: 0. Mutable."""
    cancel: bool | None = None
    """Set to true to end the task: the model request is closed, the sandbox removed. It cannot be
    taken back. Default: false. Mutable from false to true."""


class Owner(Model):
    """The operator process that runs the task."""

    holder: Annotated[str, chars(253)] = ""
    """Identity of the process: its pod's name."""
    epoch: Count = 0
    """Grows by one each time a process takes the task on; older processes are refused."""


class Asking(Model):
    """A model request that was sent and whose reply is not recorded yet."""

    turn: Positive
    """The turn that the request is for."""
    attempt: Positive
    """Which try of the request this is, from 1."""
    request_digest: Digest
    """SHA-256 of the request, in hex."""
    epoch: Count = 0
    """Epoch of the process that sent it."""
    lost: Count = 0
    """Processes that were lost while they asked for this turn; at 3 the task ends."""
    tokens: Count = 0
    """Tokens that the request may use, by estimate: what is counted if its reply is lost."""


class SandboxStatus(Model):
    """The sandbox that the task uses now."""

    generation: Count = 0
    """Which sandbox of the task this is, from 1; a new pod with a new ledger is a new one."""
    ledger: Annotated[str, chars(64)] = ""
    """Id of the ledger in which the sandbox records calls."""
    pod: Annotated[str, chars(253)] = ""
    """Name of the pod."""


class TokenCounts(Model):
    """Tokens used by all recorded replies of the task together."""

    prompt: Count = 0
    """Tokens of the requests, those from the cache included."""
    cached: Count = 0
    """Tokens of the requests that the model server had in its cache."""
    completion: Count = 0
    """Tokens of the replies, those of reasoning included."""
    reasoning: Count = 0
    """Tokens of the replies that were reasoning."""
    total: Count = 0
    """Prompt and completion together: what limits.tokens counts."""


class Lost(Model):
    """Model requests that failed, or whose reply was lost with the process that sent them."""

    requests: Count = 0
    """How many there were."""
    tokens: Count = 0
    """Tokens that they may have used, by estimate; limits.tokens counts them."""


class TaskResult(Model):
    """How the work ended; the record named by turn has the whole of it."""

    summary: Annotated[str, chars(2048)] = ""
    """What the model said about its work, cut to 2,048 characters."""
    value: Annotated[str, chars(4096)] | None = None
    """The result argument of finish as JSON text; absent when there is none or when it has more
    than 4,096 characters (the End record has it then)."""
    base_commit: Annotated[str, chars(64)] = ""
    """Git commit of the workspace before the first turn: what the patch is to be applied to. That
    of the repository itself where the workspace is a clone without files on top."""
    upstream_commit: Annotated[str, chars(64)] = ""
    """Git commit that was cloned; absent without spec.git."""
    patch_bytes: Count = 0
    """Size of the patch in bytes; 0 when nothing was changed."""
    patch_sha256: Digest | None = None
    """SHA-256 of the patch, in hex."""
    turn: Annotated[str, chars(253)] = ""
    """Name of the AgentTurn of kind End, which holds the patch in spec.end.patch, or the names of
    the ConfigMaps that do. The command ratchet diff prints it."""
    workspace_claim: Annotated[str, chars(253)] = ""
    """Name of the PersistentVolumeClaim on which the workspace stays until the task is deleted;
    absent where the workspace went with its pod."""


class TaskCondition(Condition):
    """One aspect of the task's state, as Kubernetes tools read it."""

    type: ConditionType
    """Which aspect: Ready, Reconciling, Stalled, Complete, Failed, Finished or NetworkEnforced."""


class AgentTaskStatus(Model):
    """What the operator knows about the task. Written by the operator only; under 16 KiB."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """The metadata.generation that this status was made for; -1 until the operator has seen the
    task."""
    phase: Phase = Phase.PENDING
    """Where the task is, in one word: Pending, Queued, Running, Waiting, Succeeded, Failed or
    Cancelled. A summary of the conditions, for people."""
    doing: Annotated[str, chars(64)] | None = None
    """What goes on now: Model, Tool:bash, Sandbox and the like; shown when it has lasted a
    second."""
    reason: Annotated[str, chars(128)] | None = None
    """Why the task is where it is, in one CamelCase word of the catalogue."""
    message: Annotated[str, chars(1024)] | None = None
    """Why the task is where it is, in a sentence that says what to do where something is to be
    done."""
    start_time: Time | None = None
    """When the task was first taken on."""
    completion_time: Time | None = None
    """When the task ended."""
    deadline: Time | None = None
    """When the task is ended with reason DeadlineExceeded: startTime and
    activeDeadlineSeconds."""
    owner: Owner | None = None
    """The operator process that runs the task."""
    asking: Asking | None = None
    """The model request that is on its way; absent when there is none."""
    endpoint: Annotated[str, chars(320)] | None = None
    """Name of the ModelEndpoint that the task asks: its own choice, its profile's, or default; as
    namespace/name where it is of another namespace."""
    lost_requests: Count | None = None
    """The same as lost.requests."""
    sandbox: SandboxStatus | None = None
    """The sandbox that the task uses now."""
    turns: Count | None = None
    """Turns recorded so far."""
    tool_calls: Count | None = None
    """Tool calls recorded so far."""
    tokens: TokenCounts | None = None
    """Tokens used so far."""
    cost: Annotated[str, chars(32)] | None = None
    """What the recorded and the lost requests cost together, with 6 decimals, in the currency of
    the endpoints' prices; absent where no endpoint has a price."""
    lost: Lost | None = None
    """Model requests that were paid for and brought nothing."""
    unknown_outcomes: Count | None = None
    """Calls of which it is not known whether they happened."""
    result: TaskResult | None = None
    """How the work ended; absent until it has."""
    conditions: (
        Annotated[tuple[TaskCondition, ...], listed("map", most=8, keys=("type",))] | None
    ) = None
    """The state of the task as Kubernetes tools read it. Ready=True: succeeded. Stalled=True:
    ended without success. Finished=True: ended, either way."""


class AgentTask(Resource):
    """AgentTask is a goal that an AI agent pursues to an end, with tools in a sandboxed pod. Each
    turn is recorded in an AgentTurn before the next step."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.TASK_PLURAL,
        short_names=("at", "atask"),
        selectable=(".status.phase",),
        status_default={"observedGeneration": -1, "phase": Phase.PENDING.value},
        columns=(
            Column(name="PHASE", path=".status.phase", description="Where the task is."),
            Column(name="DOING", path=".status.doing", description="What goes on now."),
            Column(name="TURN", path=".status.turns", description="Turns so far.", type="integer"),
            Column(
                name="TOKENS",
                path=".status.tokens.total",
                description="Tokens used so far.",
                type="integer",
            ),
            AGE,
            Column(name="REASON", path=".status.reason", description="Why it is so.", wide=True),
            Column(
                name="MODEL",
                path=".status.endpoint",
                description="The ModelEndpoint that is asked.",
                wide=True,
            ),
            Column(
                name="COST",
                path=".status.cost",
                description="What the model requests cost so far.",
                wide=True,
            ),
            Column(name="SANDBOX", path=".status.sandbox.pod", description="The pod.", wide=True),
            Column(
                name="FINISHED",
                path=".status.completionTime",
                description="Time since the task ended.",
                type="date",
                wide=True,
            ),
        ),
    )
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule=f"size(self.metadata.name) <= {names.TASK_NAME_MAX}",
            message=(
                f"metadata.name has more than {names.TASK_NAME_MAX} characters: choose a shorter"
                " name, since turns and pods are named after the task"
            ),
            field=".metadata",
        ),
    )

    spec: AgentTaskSpec
    """The work to be done. Everything but priority and cancel is immutable: create a new task to
    change it."""
    status: AgentTaskStatus = AgentTaskStatus()
    """What the operator knows about the task. Written by the operator only."""
