"""Having the claim of a workspace ready for the one pod that may use it."""

from __future__ import annotations

from typing import Any

from ratchet.build.claim import Standing, made_by, standing
from ratchet.build.generation import Generation
from ratchet.build.podstate import PodState, Stage
from ratchet.core.conditions import Reason
from ratchet.core.config import VolumeClaim
from ratchet.edges.pods import Pods
from ratchet.ports import SandboxGone, SandboxPending

Object = dict[str, Any]


async def hold(
    pods: Pods,
    generation: Generation,
    pod: Object | None,
    state: PodState,
    wanted: VolumeClaim,
    *,
    used: bool,
) -> SandboxPending | SandboxGone | None:
    """What keeps a pod from being made, or from starting, on its claim; None if nothing does.

    `pod` is the one of this generation, if there is one: it has ended, or never ran. `used` says
    that its ledger is known: then a claim that is gone is not made anew, for what it held is lost.
    Raises Refused and JournalAway.
    """
    name = generation.claim_name
    claim = await pods.claim(generation)
    found = standing(claim, generation)
    if found is Standing.FOREIGN:
        text = f"There is a PersistentVolumeClaim {name} that this task did not make; delete it."
        return SandboxPending(Reason.SANDBOX_FAILED, text, hopeless=True)
    if found is Standing.NEWER:
        return SandboxGone(f"A later sandbox of this task has PersistentVolumeClaim {name}.")
    over = state.stage is Stage.FAILED
    in_vain = found in (Standing.LEAVING, Standing.LOST) or (found is Standing.ABSENT and used)
    if pod is not None and (over or in_vain):
        await pods.end(pod)
    if found is Standing.ABSENT and used:
        text = f"PersistentVolumeClaim {name} is gone, with workspace and ledger. {state.message}"
        return SandboxGone(text, state.reason)
    if found is Standing.LOST and claim is not None:
        await pods.end(claim)
    if found in (Standing.LEAVING, Standing.LOST):
        text = f"PersistentVolumeClaim {name} or its volume is lost; waiting until it is gone."
        return SandboxPending(Reason.SANDBOX_RESTARTING, text)
    if over:
        return SandboxPending(state.reason, f"{state.message} A new pod is made on the same claim.")
    if found is Standing.ABSENT:
        await pods.make_claim(generation, wanted)
        return None
    return await _alone(pods, generation) if pod is None else None


async def _alone(pods: Pods, generation: Generation) -> SandboxPending | SandboxGone | None:
    """See to it that no other pod of the task is there: two must never share a workspace."""
    others = await pods.others(generation)
    if any(made_by(other) > generation.number for other in others):
        return SandboxGone("A later sandbox of this task is there.")
    for other in others:
        await pods.end(other)
    if not others:
        return None
    left = ", ".join(sorted(str(other["metadata"]["name"]) for other in others))
    text = f"Waiting until sandbox pod {left} of the same workspace is gone."
    return SandboxPending(Reason.SANDBOX_RESTARTING, text)
