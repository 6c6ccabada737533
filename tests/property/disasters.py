"""How what a plan says goes wrong in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from ratchet.fakes.clock import LoopClock
from ratchet.ports import Away

from tests.property.apiserver import Object
from tests.property.cluster import Cluster
from tests.property.network import Doom, Fate, Sender, Way
from tests.property.plan import Disaster, What
from tests.property.pods import Pod


class Disasters:
    """Those of one plan, as they wait for their moment. `close` ends the waiting."""

    def __init__(self, cluster: Cluster, planned: Sequence[Disaster]) -> None:
        self.struck: list[str] = []
        self._cluster = cluster
        self._waiting: list[asyncio.Task[None]] = []
        before: asyncio.Future[None] | None = None
        for disaster in planned:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(asyncio.create_task(self._wait(disaster, before, done)))
            before = done

    def close(self) -> None:
        for waiting in self._waiting:
            waiting.cancel()

    async def _wait(
        self, disaster: Disaster, before: asyncio.Future[None] | None, done: asyncio.Future[None]
    ) -> None:
        cluster = self._cluster
        if disaster.call is not None:
            await cluster.calls_begun(disaster.call)
        elif disaster.after is not None and before is not None:
            await before
        if disaster.after is not None:
            await asyncio.sleep(disaster.after)
        if disaster.at is not None:
            await asyncio.sleep(disaster.at)
        if disaster.what in tuple(Fate):
            struck = partial(self._strike, disaster, done)
            moment = cluster.network.moments if disaster.moment is None else disaster.moment
            cluster.network.doom(Doom(moment, Fate(disaster.what), disaster.seconds, struck))
        elif disaster.moment is not None:
            claiming = disaster.what == What.KILL_CLAIMING
            self._at_moment(disaster, disaster.moment, done, claiming=claiming)
        elif disaster.what == What.KILL_CLAIMING:
            self._at_moment(disaster, 1, done, claiming=True)
        elif not self._act(disaster, done):
            self._at_moment(disaster, self._cluster.network.moments, done, claiming=False)

    def _at_moment(
        self, disaster: Disaster, moment: int, done: asyncio.Future[None], *, claiming: bool
    ) -> None:
        """Strike at the first moment from this one on at which it is possible.

        In a claim: some moments into it.
        """
        network, cluster = self._cluster.network, self._cluster
        left = 1 + moment % 24 if claiming else 1

        def watch(sender: Sender) -> None:
            nonlocal left
            if network.moments < moment and not claiming:
                return
            if claiming and not (sender is cluster.operator and cluster.operator.claiming):
                return
            left -= 1
            if left <= 0 and self._act(disaster, done):
                network.watchers.remove(watch)

        network.watchers.append(watch)

    def _act(self, disaster: Disaster, done: asyncio.Future[None]) -> bool:
        struck = strike(self._cluster, What(disaster.what), disaster.seconds)
        if struck:
            self._strike(disaster, done)
        return struck

    def _strike(self, disaster: Disaster, done: asyncio.Future[None]) -> None:
        self.struck.append(disaster.what)
        if not done.done():
            done.set_result(None)


def strike(cluster: Cluster, what: What, seconds: float = 0.0) -> bool:
    """Have it happen now. False where there is nothing that it could happen to."""
    if cluster.task.finished and what in (What.CANCEL, What.EDIT):
        return False
    return _ACTS[what](cluster, seconds)


def kill(cluster: Cluster, seconds: float) -> bool:
    """The newest process is no more; what it has sent arrives so much later."""
    operator = cluster.operator
    if operator.dead:
        return False
    cluster.tell(operator.name, f"is killed; what it has sent comes {seconds:g} s later")
    operator.kill(seconds)
    return True


def stall(cluster: Cluster, seconds: float) -> bool:
    """It stands still while another one takes over, and then goes on as if nothing was."""
    operator = cluster.operator
    if operator.dead or not seconds:
        return False
    cluster.tell(operator.name, f"stands still for {seconds:g} s")
    operator.stand_still(seconds)
    cluster.start(overlap_s=0.1)
    return True


def second(cluster: Cluster, seconds: float) -> bool:
    """Another one begins, and the first does not know for so long."""
    if cluster.operator.dead:
        return False
    cluster.tell("world", f"two operators for {seconds:g} s")
    cluster.start(overlap_s=seconds)
    return True


def lose_pod(cluster: Cluster, _seconds: float) -> bool:
    """The pod is gone with its volumes."""
    pod = cluster.pod
    if pod is None or pod.path not in cluster.api.objects:
        return False
    cluster.tell("world", f"{pod.name} is lost with its volumes")
    pod.die()
    cluster.api.remove(pod.path)
    return True


def evict(cluster: Cluster, _seconds: float) -> bool:
    """The pod has failed; its object stays."""
    pod = cluster.pod
    if pod is None or pod.path not in cluster.api.objects:
        return False
    cluster.tell("world", f"{pod.name} is evicted")
    pod.die()
    cluster.api.change(pod.path, _fail)
    return True


def lose_runner(cluster: Cluster, seconds: float) -> bool:
    """The shell's container ends, and is started again after so long."""
    pod = cluster.pod
    if pod is None or pod.runner is None:
        return False
    cluster.tell("world", f"the runner of {pod.name} is lost for {seconds:g} s")
    pod.stop_runner()
    cluster.show(pod)
    asyncio.get_running_loop().call_later(seconds + 0.1, _begin_runner, cluster, pod)
    return True


def restart_server(cluster: Cluster, seconds: float) -> bool:
    """The server's container ends, and is started again after so long; its ledger stays."""
    pod = cluster.pod
    if pod is None or pod.server.down:
        return False
    cluster.tell("world", f"the server of {pod.name} is down for {seconds:g} s")
    pod.stop_server()
    cluster.show(pod)
    asyncio.get_running_loop().call_later(seconds + 0.1, _begin_server, cluster, pod)
    return True


def cut_off(cluster: Cluster, seconds: float) -> bool:
    """No request reaches the sandbox for so long."""
    if not seconds or cluster.pod is None:
        return False
    cluster.tell("world", f"the sandbox cannot be reached for {seconds:g} s")
    cluster.network.away_until[Way.SANDBOX] = cluster.now + seconds
    return True


def api_away(cluster: Cluster, seconds: float) -> bool:
    """No request reaches the API server for so long."""
    if not seconds:
        return False
    cluster.tell("world", f"the API server is away for {seconds:g} s")
    cluster.network.away_until[Way.WRITE] = cluster.now + seconds
    return True


def fill(cluster: Cluster, seconds: float) -> bool:
    """No endpoint lets anybody in for so long."""
    gates = [operator.gate for operator in cluster.operators if not operator.gate.closed]
    if not seconds or not gates:
        return False
    cluster.tell("world", f"the model endpoints are full for {seconds:g} s")
    for gate in gates:
        gate.close()
        asyncio.get_running_loop().call_later(seconds, gate.open)
    return True


def endpoint_away(cluster: Cluster, seconds: float) -> bool:
    """The first endpoint is known not to serve for so long."""
    if not seconds:
        return False
    cluster.tell("world", f"the first model endpoint is away for {seconds:g} s")
    until = LoopClock().now() + timedelta(seconds=seconds)
    for operator in cluster.operators:
        operator.gate.away["default"] = Away("Its breaker is open.", until)
    return True


def cancel(cluster: Cluster, _seconds: float) -> bool:
    """Somebody sets spec.cancel."""
    if cluster.task.body["spec"].get("cancel"):
        return False
    cluster.tell("world", "spec.cancel is set")
    cluster.api.change(cluster.task.path, _cancel)
    return True


def edit(cluster: Cluster, _seconds: float) -> bool:
    """Somebody puts a label on the task, and changes its priority."""
    cluster.tell("world", "the task gets a label and a priority")
    cluster.api.change(cluster.task.path, _label)
    return True


def hold_watch(cluster: Cluster, seconds: float) -> bool:
    """No watch delivers for so long; then all comes at once."""
    if not seconds:
        return False
    cluster.tell("world", f"the watch is {seconds:g} s late")
    cluster.held_until = cluster.now + seconds
    return True


def repeat_watch(cluster: Cluster, seconds: float) -> bool:
    """Old facts are told once more, so much later."""
    if not cluster.told:
        return False
    cluster.tell("world", f"old watch events come again in {seconds:g} s")
    for event in cluster.told[-6:]:
        asyncio.get_running_loop().call_later(seconds, _tell_all, cluster, event)
    return True


def _tell_all(cluster: Cluster, event: tuple[str, str, Object]) -> None:
    for operator in cluster.operators:
        operator.see(*event)


def _begin_runner(cluster: Cluster, pod: Pod) -> None:
    if pod.alive and pod.runner is None:
        pod.start_runner()
        asyncio.get_running_loop().call_later(0.1, cluster.dial, pod)


def _begin_server(cluster: Cluster, pod: Pod) -> None:
    if pod.alive and pod.server.down:
        pod.start_server()
        asyncio.get_running_loop().call_later(0.1, cluster.dial, pod)


def _fail(found: Object) -> None:
    found["status"] = {"phase": "Failed", "reason": "Evicted", "message": "no memory was left"}


def _cancel(found: Object) -> None:
    found["spec"]["cancel"] = True
    found["metadata"]["generation"] += 1


def _label(found: Object) -> None:
    labels = found["metadata"].setdefault("labels", {})
    labels["edited"] = str(int(labels.get("edited", "0")) + 1)
    found["spec"]["priority"] = found["spec"].get("priority", 0) + 1
    found["metadata"]["generation"] += 1


_ACTS: dict[What, Callable[[Cluster, float], bool]] = {
    What.KILL: kill,
    What.KILL_CLAIMING: kill,
    What.STALL: stall,
    What.SECOND: second,
    What.POD: lose_pod,
    What.EVICTED: evict,
    What.RUNNER: lose_runner,
    What.SERVER: restart_server,
    What.CUT_OFF: cut_off,
    What.API: api_away,
    What.QUEUE: fill,
    What.AWAY: endpoint_away,
    What.CANCEL: cancel,
    What.EDIT: edit,
    What.WATCH_LATE: hold_watch,
    What.WATCH_AGAIN: repeat_watch,
}
