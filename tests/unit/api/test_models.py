"""Which endpoints a task asks, how, in which order, and why it may not."""

from typing import Any

import pytest
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.modelconfig import least_tokens
from ratchet.api.profile import AgentProfile
from ratchet.api.resolve import Problems, References, references, resolve
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.core.config import Config, Engine, ModelConfig, Price
from ratchet.core.facts import EndpointRef

HERE, MODELS = "team-a", "models"
WHOLE: dict[str, Any] = {
    "url": "https://model:8443/v1",
    "model": "m",
    "engine": "SGLang",
    "apiKeySecretRef": {"name": "s", "key": "k"},
    "caConfigMapRef": {"name": "ca"},
    "headers": [{"name": "X-Team", "value": "a"}, {"name": "X-B", "value": "b"}],
    "contextWindow": 32_768,
    "capacity": {"requests": 8, "tokens": 100_000},
    "price": {
        "inputPerMillion": "0.40",
        "cachedInputPerMillion": "0.04",
        "outputPerMillion": "2",
    },
    "retry": {"attempts": 5, "backoffSeconds": {"first": 2, "most": 30}},
    "timeouts": {"connectSeconds": 2, "firstByteSeconds": 20, "totalSeconds": 30},
    "breaker": {"failures": 3, "openSeconds": 9},
    "allowedNamespaces": ["team-a"],
}


def task(**spec: Any) -> AgentTask:
    return AgentTask.model_validate(
        {"metadata": {"name": "t", "namespace": HERE}, "spec": {"goal": "Fix it.", **spec}}
    )


def profile(**spec: Any) -> AgentProfile:
    return AgentProfile.model_validate({"spec": spec})


def endpoint(name: str = "e", namespace: str = HERE, **spec: Any) -> ModelEndpoint:
    return ModelEndpoint.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"url": "http://sglang:30000/v1/", "model": "m", **spec},
        }
    )


def outcome(
    of: AgentTask, *endpoints: ModelEndpoint, by: AgentProfile | None = None
) -> Config | Problems:
    return resolve(
        of,
        by,
        endpoints=endpoints or [endpoint()],
        sandbox_class=SandboxClass.model_validate({"spec": {"image": "debian:12"}}),
    )


def resolved(of: AgentTask, *endpoints: ModelEndpoint, by: AgentProfile | None = None) -> Config:
    config = outcome(of, *endpoints, by=by)
    assert isinstance(config, Config)
    return config


def mendable(
    of: AgentTask, *endpoints: ModelEndpoint, by: AgentProfile | None = None
) -> tuple[str, ...]:
    problems = outcome(of, *endpoints, by=by)
    assert isinstance(problems, Problems) and not problems.lasting
    return problems.sentences


# How one is asked


def test_an_endpoint_that_says_nothing_is_asked_with_the_defaults() -> None:
    assert resolved(task()).model == ModelConfig(
        endpoint="e",
        url="http://sglang:30000/v1",
        model="m",
        engine=Engine.OPENAI,
        connect_timeout_s=5,
        total_timeout_s=600,
        attempts=3,
        repairs=3,
        backoff_first_s=1,
        backoff_most_s=60,
        give_up_s=1800,
    )


def test_an_endpoint_says_how_it_is_asked_and_names_its_secret_and_certificates() -> None:
    config = resolved(task(), endpoint(**WHOLE))
    assert config.model == ModelConfig(
        endpoint="e",
        url="https://model:8443/v1",
        model="m",
        engine=Engine.SGLANG,
        secret_name="s",
        secret_key="k",
        ca_config_map="ca",
        ca_key="ca.crt",
        headers=(("X-Team", "a"), ("X-B", "b")),
        context_window=32_768,
        price=Price(input="0.40", output="2", cached_input="0.04"),
        connect_timeout_s=2,
        first_byte_timeout_s=20,
        total_timeout_s=30,
        attempts=5,
        backoff_first_s=2,
        backoff_most_s=30,
        give_up_s=1800,
    )
    assert Config.from_json(config.to_json()) == config


def test_how_much_an_endpoint_takes_is_not_kept_with_the_task() -> None:
    one = endpoint(**WHOLE)
    other = endpoint(**{**WHOLE, "capacity": {"requests": 1}, "breaker": {"failures": 9}})
    assert resolved(task(), one).to_json() == resolved(task(), other).to_json()


def test_certificates_are_read_from_the_key_that_is_named() -> None:
    named = endpoint(caConfigMapRef={"name": "ca", "key": "root.pem"})
    assert resolved(task(), named).model.ca_key == "root.pem"


def test_attempts_are_the_tasks_then_the_profiles_then_the_endpoints() -> None:
    by = profile(retryPolicy={"model": {"attempts": 7}})
    own = task(retryPolicy={"model": {"attempts": 2}})
    where = endpoint(retry={"attempts": 5})
    assert resolved(own, where, by=by).model.attempts == 2
    assert resolved(task(), where, by=by).model.attempts == 7
    assert resolved(task(), where).model.attempts == 5
    assert resolved(task()).model.attempts == 3


def test_giving_up_at_once_is_a_choice_of_its_own() -> None:
    own = task(retryPolicy={"model": {"giveUpSeconds": 0}})
    by = profile(retryPolicy={"model": {"giveUpSeconds": 60}})
    assert resolved(own, by=by).model.give_up_s == 0
    assert resolved(task(), by=by).model.give_up_s == 60


def test_the_effort_of_reasoning_is_the_tasks_then_the_profiles() -> None:
    by = profile(model={"reasoningEffort": "high"})
    assert resolved(task(), by=by).model.reasoning_effort == "high"
    assert resolved(task(model={"reasoningEffort": "none"}), by=by).model.reasoning_effort == "none"


def test_a_limit_of_cost_is_the_tasks_then_the_profiles() -> None:
    where, by = endpoint(**WHOLE), profile(limits={"cost": "9"})
    assert resolved(task(), where, by=by).limits.cost == "9"
    assert resolved(task(limits={"cost": "1.50"}), where, by=by).limits.cost == "1.50"


# Which, and in which order


def asked(of: AgentTask, by: AgentProfile | None = None) -> tuple[EndpointRef, ...]:
    found = references(of, by)
    assert isinstance(found, References)
    return found.endpoints


def refs(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


def test_the_endpoint_named_default_is_asked_where_nobody_names_one() -> None:
    assert asked(task()) == (EndpointRef(HERE, "default"),)


def test_the_tasks_endpoint_wins_over_the_profiles_and_so_do_its_fallbacks() -> None:
    by = profile(model={"endpointRef": {"name": "p"}, "fallbacks": refs("pf")})
    assert asked(task(), by) == (EndpointRef(HERE, "p"), EndpointRef(HERE, "pf"))
    own = task(model={"endpointRef": {"name": "t"}})
    assert asked(own, by) == (EndpointRef(HERE, "t"), EndpointRef(HERE, "pf"))
    own = task(model={"fallbacks": refs("a", "b")})
    assert [ref.name for ref in asked(own, by)] == ["p", "a", "b"]
    assert [ref.name for ref in asked(task(model={"fallbacks": []}), by)] == ["p"]


def test_an_endpoint_may_be_of_another_namespace() -> None:
    shared = {"name": "big", "namespace": MODELS}
    of = task(model={"endpointRef": shared, "fallbacks": refs("big")})
    assert asked(of) == (EndpointRef(MODELS, "big"), EndpointRef(HERE, "big"))


def test_an_endpoint_of_another_namespace_keeps_it_and_one_of_the_own_has_none() -> None:
    config = resolved(task(), endpoint("big", MODELS, **WHOLE), endpoint("small"))
    assert [(model.namespace, model.endpoint) for model in config.endpoints] == [
        (MODELS, "big"),
        ("", "small"),
    ]
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("own", "by", "lasting"),
    [
        ({"fallbacks": refs("default")}, None, True),
        (
            {"endpointRef": {"name": "a"}, "fallbacks": [{"name": "a", "namespace": HERE}]},
            None,
            True,
        ),
        ({"fallbacks": refs("p")}, {"endpointRef": {"name": "p"}}, False),
        ({"endpointRef": {"name": "b"}}, {"fallbacks": refs("a", "b")}, False),
    ],
)
def test_no_endpoint_falls_back_on_itself(
    own: dict[str, Any], by: dict[str, Any] | None, lasting: bool
) -> None:
    problems = references(task(model=own), profile(model=by) if by else None)
    assert isinstance(problems, Problems) and problems.lasting is lasting
    (sentence,) = problems.sentences
    assert "leads back to ModelEndpoint team-a/" in sentence and "take it out" in sentence


# What does not fit together


def test_a_limit_of_cost_needs_a_price_at_each_endpoint() -> None:
    of = task(limits={"cost": "2.50"})
    assert resolved(of, endpoint(price=WHOLE["price"])).limits.cost == "2.50"
    (sentence,) = mendable(of, endpoint("one", price=WHOLE["price"]), endpoint("two"))
    assert "limits.cost is 2.50" in sentence and "ModelEndpoint two has no price" in sentence


def test_a_window_that_the_prompt_alone_fills_is_refused_with_both_numbers() -> None:
    of = task(goal="word " * 10_000)
    resolved(of, endpoint(contextWindow=65_536))
    (sentence,) = mendable(of, endpoint(contextWindow=8192))
    assert f"about {least_tokens(resolved(of))} tokens" in sentence
    assert "contextWindow (8192) of ModelEndpoint e" in sentence


def test_the_room_for_the_reply_is_taken_off_the_window() -> None:
    least = least_tokens(resolved(task()))
    window = endpoint(contextWindow=4 * least)
    resolved(task(model={"maxOutputTokens": 2 * least}), window)
    (sentence,) = mendable(task(model={"maxOutputTokens": 4 * least - 1}), window)
    assert f"beside a reply of {4 * least - 1} (model.maxOutputTokens)" in sentence


def test_each_fallback_has_to_have_room_for_the_prompt() -> None:
    of = task(goal="word " * 10_000)
    (sentence,) = mendable(of, endpoint("big"), endpoint("small", contextWindow=8192))
    assert "ModelEndpoint small" in sentence


def test_a_prompt_is_never_taken_for_longer_than_it_is() -> None:
    # 50,000 characters of English are some 10,500 tokens in the tokenizers of today.
    assert least_tokens(resolved(task(goal="x" * 50_000))) < 12_500


def test_what_is_wrong_with_an_endpoint_by_itself_is_told_to_its_tasks() -> None:
    wrong = endpoint(timeouts={"firstByteSeconds": 700})
    (sentence,) = mendable(task(), wrong)
    assert sentence.startswith("ModelEndpoint e: spec.timeouts.firstByteSeconds: ")
