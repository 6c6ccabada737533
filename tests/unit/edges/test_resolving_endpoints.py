"""Which endpoints a task may begin with, and what it waits for where it may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ratchet.api import names
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config, Rule
from ratchet.edges import kube
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, Params
from ratchet.edges.resolving import Trouble, read_config, unchecked
from ratchet.ports import JournalAway, PortError

from tests.property.apiserver import ApiServer

HERE, MODELS = "team-a", "models"
SHARED = {"endpointRef": {"name": "big", "namespace": MODELS}}


@dataclass
class Place:
    """An API server in memory with a SandboxClass, which refuses to read some namespaces."""

    server: ApiServer = field(default_factory=ApiServer)
    refuses: dict[str, int] = field(default_factory=dict)
    """Status of the refusal, by namespace."""

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        for namespace, status in self.refuses.items():
            if f"/namespaces/{namespace}/" in path:
                raise ApiError(status, "Forbidden", "no")
        return self.server.request(method, path, body, params)

    def put(self, path: str, kind: str, namespace: str, name: str, **parts: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, **parts}
        return self.server.put(path, body)

    def endpoint(self, name: str, namespace: str = HERE, **spec: Any) -> None:
        where = kube.ours(names.ENDPOINT_PLURAL, namespace, name)
        whole = {"url": "http://model/v1", "model": "m", **spec}
        self.put(where, names.ENDPOINT_KIND, namespace, name, spec=whole)

    def data(self, kind: str, namespace: str, name: str, *keys: str) -> None:
        where = kube.core(f"{kind.lower()}s", namespace, name)
        self.put(where, kind, namespace, name, data=dict.fromkeys(keys, ""))

    def profile(self, **spec: Any) -> None:
        where = kube.ours(names.PROFILE_PLURAL, HERE, "p")
        self.put(where, names.PROFILE_KIND, HERE, "p", spec=spec)

    async def begin(self, rules: Any = unchecked, **spec: Any) -> Config | Trouble:
        where = kube.ours(names.CLASS_PLURAL, HERE, "default")
        self.put(where, names.CLASS_KIND, HERE, "default", spec={"image": "debian:12"})
        path, spec = kube.task(HERE, "fix-it"), {"goal": "g", **spec}
        task = self.put(path, names.TASK_KIND, HERE, "fix-it", spec=spec)
        return await read_config(self, task, rules)


@pytest.fixture
def place() -> Place:
    return Place()


async def begun(place: Place, **spec: Any) -> Config:
    found = await place.begin(**spec)
    assert isinstance(found, Config), found
    return found


async def waits(place: Place, reason: Reason, **spec: Any) -> str:
    found = await place.begin(**spec)
    assert isinstance(found, Trouble)
    assert (found.phase, found.reason) == (Phase.WAITING, reason)
    return found.message


@pytest.mark.parametrize("allowed", [[HERE], ["team-b", HERE], ["*"]])
async def test_an_endpoint_of_another_namespace_is_used_where_it_shares_itself(
    place: Place, allowed: list[str]
) -> None:
    place.endpoint("big", MODELS, allowedNamespaces=allowed)
    model = (await begun(place, model=SHARED)).model
    assert (model.namespace, model.endpoint) == (MODELS, "big")


@pytest.mark.parametrize("allowed", [None, [], ["team-b"], ["team-"], [MODELS]])
async def test_an_endpoint_that_does_not_share_itself_is_waited_for(
    place: Place, allowed: list[str] | None
) -> None:
    place.endpoint("big", MODELS, **({} if allowed is None else {"allowedNamespaces": allowed}))
    told = await waits(place, Reason.ENDPOINT_NOT_FOUND, model=SHARED)
    assert "ModelEndpoint models/big" in told and "add team-a to its allowedNamespaces" in told


async def test_nobody_learns_what_there_is_in_other_namespaces() -> None:
    there, missing, forbidden = Place(), Place(), Place(refuses={MODELS: 403})
    there.endpoint("big", MODELS, url="http://h:0/v1", apiKeySecretRef={"name": "s", "key": "k"})
    told = {
        await waits(place, Reason.ENDPOINT_NOT_FOUND, model=SHARED)
        for place in (there, missing, forbidden)
    }
    assert len(told) == 1


async def test_a_server_that_is_away_is_no_endpoint_that_is_missing() -> None:
    with pytest.raises(JournalAway):
        await Place(refuses={MODELS: 500}).begin(model=SHARED)


async def test_naming_ones_own_namespace_needs_no_leave(place: Place) -> None:
    place.endpoint("big")
    own = {"endpointRef": {"name": "big", "namespace": HERE}}
    assert (await begun(place, model=own)).model.namespace == ""


async def test_all_fallbacks_are_read_in_their_order(place: Place) -> None:
    place.endpoint("default")
    place.endpoint("big", MODELS, allowedNamespaces=["*"], model="large")
    place.endpoint("small", model="little")
    fallbacks = [{"name": "big", "namespace": MODELS}, {"name": "small"}]
    config = await begun(place, model={"fallbacks": fallbacks})
    assert [model.model for model in config.endpoints] == ["m", "large", "little"]


async def test_a_fallback_that_is_missing_is_waited_for_by_name(place: Place) -> None:
    place.endpoint("default")
    told = await waits(place, Reason.ENDPOINT_NOT_FOUND, model={"fallbacks": [{"name": "other"}]})
    assert told == "ModelEndpoint other does not exist in namespace team-a: create it."


async def test_secret_and_certificates_are_those_of_the_endpoints_namespace(place: Place) -> None:
    place.endpoint(
        "big",
        MODELS,
        allowedNamespaces=["*"],
        apiKeySecretRef={"name": "key", "key": "token"},
        caConfigMapRef={"name": "ca"},
    )
    place.data("Secret", HERE, "key", "token")
    place.data("ConfigMap", HERE, "ca", "ca.crt")
    told = await waits(place, Reason.SECRET_NOT_FOUND, model=SHARED)
    assert told == "Secret key does not exist in namespace models: create it."
    place.data("Secret", MODELS, "key", "token")
    told = await waits(place, Reason.CONFIG_MAP_NOT_FOUND, model=SHARED)
    assert told == "ConfigMap ca does not exist in namespace models: create it."
    place.data("ConfigMap", MODELS, "ca", "ca.crt")
    await begun(place, model=SHARED)


async def test_the_secret_of_a_fallback_is_waited_for_too(place: Place) -> None:
    place.endpoint("default")
    place.endpoint("other", apiKeySecretRef={"name": "key", "key": "token"})
    place.data("Secret", HERE, "key", "wrong")
    fallbacks = [{"name": "other"}]
    told = await waits(place, Reason.SECRET_NOT_FOUND, model={"fallbacks": fallbacks})
    assert told == "Secret key in namespace team-a has no key token: add it to its data."


async def test_what_an_edit_of_the_endpoint_mends_is_waited_for(place: Place) -> None:
    place.endpoint("default", contextWindow=1024)
    told = await waits(place, Reason.CONFIG_INVALID, goal="word " * 2000)
    assert "contextWindow (1024) of ModelEndpoint default" in told


PNG = {"mediaType": "image/png", "data": "iVBORw0KGgo="}


async def test_a_task_with_images_waits_for_an_endpoint_with_vision(place: Place) -> None:
    place.endpoint("default")
    told = await waits(place, Reason.CONFIG_INVALID, contextImages=[PNG])
    assert "ModelEndpoint default" in told and "set vision: true on it" in told
    place.endpoint("default", vision=True)
    config = await begun(place, contextImages=[PNG])
    assert config.model.vision and [image.data for image in config.images] == ["iVBORw0KGgo="]


async def test_an_image_that_is_none_ends_its_task(place: Place) -> None:
    place.endpoint("default", vision=True)
    found = await place.begin(contextImages=[PNG, {**PNG, "mediaType": "image/gif"}])
    assert isinstance(found, Trouble)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.CONFIG_INVALID)
    assert found.message == (
        "spec.contextImages[1] is image/png, not image/gif: set mediaType to image/png."
    )


async def test_an_endpoint_that_cannot_be_read_is_waited_for(place: Place) -> None:
    place.endpoint("default", url="no address")
    told = await waits(place, Reason.CONFIG_INVALID)
    assert "ModelEndpoint default: spec.url" in told


async def test_an_endpoint_that_a_task_names_twice_ends_it(place: Place) -> None:
    place.endpoint("default")
    own = {"name": "default", "namespace": HERE}
    found = await place.begin(model={"fallbacks": [own]})
    assert isinstance(found, Trouble)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.CONFIG_INVALID)
    assert "leads back to ModelEndpoint team-a/default" in found.message


# Rules


async def only_true(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(f"{rule.name} does not compile." for rule in rules if rule.when != "true")


def policy(name: str, when: str) -> dict[str, Any]:
    return {"rules": [{"name": name, "when": when, "action": "Deny"}]}


async def test_a_rule_of_the_task_that_does_not_compile_ends_it(place: Place) -> None:
    place.endpoint("default")
    found = await place.begin(only_true, policy=policy("own", "tru"))
    assert found == Trouble(Phase.FAILED, Reason.CONFIG_INVALID, "own does not compile.")


async def test_a_rule_of_the_profile_that_does_not_compile_is_waited_for(place: Place) -> None:
    place.endpoint("default")
    place.profile(policy=policy("theirs", "tru"))
    spec = {"profileRef": {"name": "p"}, "policy": policy("own", "true")}
    found = await place.begin(only_true, **spec)
    assert found == Trouble(Phase.WAITING, Reason.CONFIG_INVALID, "theirs does not compile.")


async def test_rules_that_nobody_could_look_at_are_looked_at_later(place: Place) -> None:
    async def away(rules: Sequence[Rule]) -> tuple[str, ...]:
        raise PortError("the operator ends")

    place.endpoint("default")
    with pytest.raises(JournalAway, match="the operator ends"):
        await place.begin(away, policy=policy("own", "true"))


async def test_rules_that_compile_are_part_of_the_configuration(place: Place) -> None:
    place.endpoint("default")
    found = await place.begin(only_true, policy=policy("own", "true"))
    assert isinstance(found, Config) and [rule.name for rule in found.rules] == ["own"]
