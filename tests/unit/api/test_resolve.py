"""What a task runs with: its own fields, then its profile's, then class and defaults."""

import json
from typing import Any

from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.profile import AgentProfile
from ratchet.api.resolve import Problems, References, references, resolve, rules_of_task
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.core.config import (
    AccessMode,
    Completion,
    Config,
    EgressPort,
    EgressRule,
    Engine,
    GitSource,
    Limits,
    OnLoss,
    Rule,
    RuleAction,
    SandboxConfig,
    Toleration,
    UnknownPolicy,
    VolumeClaim,
)

ENDPOINT = {"url": "http://sglang:30000/v1/", "model": "m"}
CLASS = {"image": "debian:12"}
NO_PUSH = {
    "name": "no-push",
    "when": "args.command.contains('git push')",
    "action": "Deny",
    "message": "People push.",
}
WHOLE_CLASS: dict[str, Any] = {
    "resources": {"requests": {"cpu": "1"}},
    "runtimeClassName": "gvisor",
    "env": [{"name": "LANG", "value": "C.UTF-8"}, {"name": "EMPTY", "value": ""}],
    "nodeSelector": {"kubernetes.io/arch": "amd64", "disk": "ssd"},
    "tolerations": [
        {"key": "sandbox", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 9},
        {"operator": "Exists"},
    ],
    "allowRoot": True,
    "readOnlyRoot": True,
    "workspace": {
        "onLoss": "Fail",
        "volumeClaim": {
            "size": "5Gi",
            "storageClassName": "fast",
            "accessMode": "ReadWriteOncePod",
        },
    },
    "egress": [
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [{"port": 443}]},
        {"service": {"name": "git", "namespace": "tools"}, "ports": [{"port": 80}]},
        {"service": {"name": "near"}, "ports": [{"port": 80}]},
        {"host": "*.example.com", "ports": [{"port": 53, "protocol": "UDP"}]},
    ],
    "requireEnforcedNetwork": True,
}


def task(**spec: Any) -> AgentTask:
    return AgentTask.model_validate({"spec": {"goal": "Fix it.", **spec}})


def profile(**spec: Any) -> AgentProfile:
    return AgentProfile.model_validate({"spec": spec})


def outcome(
    of: AgentTask,
    by: AgentProfile | None = None,
    *,
    endpoint: dict[str, Any] | None = None,
    sandbox: dict[str, Any] | None = None,
) -> Config | Problems:
    found = {"metadata": {"name": "e"}, "spec": {**ENDPOINT, **(endpoint or {})}}
    return resolve(
        of,
        by,
        endpoints=[ModelEndpoint.model_validate(found)],
        sandbox_class=SandboxClass.model_validate({"spec": {**CLASS, **(sandbox or {})}}),
    )


def resolved(*of: Any, **parts: Any) -> Config:
    config = outcome(*of, **parts)
    assert isinstance(config, Config)
    return config


def refused(*of: Any, **parts: Any) -> tuple[str, ...]:
    problems = outcome(*of, **parts)
    assert isinstance(problems, Problems)
    return problems.sentences


def test_a_task_that_says_nothing_runs_with_the_defaults() -> None:
    config = resolved(task())
    assert config.limits == Limits(turns=50, tokens=None)
    assert config.tools == (
        "bash",
        "bash_output",
        "bash_stdin",
        "bash_kill",
        "read_file",
        "write_file",
        "search_replace",
        "grep",
        "todo",
        "finish",
    )
    assert config.on_unknown is UnknownPolicy.REPORT
    assert config.completion is Completion.EXPLICIT
    assert config.model.engine is Engine.OPENAI
    assert (config.model.attempts, config.model.repairs) == (3, 3)
    assert config.sandbox.image == "debian:12"
    assert config.active_deadline_s is None


def test_the_url_of_the_endpoint_loses_its_last_slash() -> None:
    assert resolved(task()).model.url == "http://sglang:30000/v1"


def test_a_profile_fills_in_what_the_task_leaves_open() -> None:
    config = resolved(
        task(),
        profile(
            instructions="Be brief.",
            limits={"turns": 9, "tokens": 100},
            activeDeadlineSeconds=60,
            onUnknownOutcome="Fail",
            completion="Text",
            retryPolicy={"model": {"attempts": 5, "repairs": 1}},
            model={"temperature": 0.2, "seed": 4},
            sandbox={"image": "alpine"},
            tools={"enabled": ["bash", "grep"]},
        ),
    )
    assert config.instructions == "Be brief."
    assert config.limits == Limits(turns=9, tokens=100)
    assert config.active_deadline_s == 60
    assert config.on_unknown is UnknownPolicy.FAIL
    assert config.completion is Completion.TEXT
    assert (config.model.attempts, config.model.repairs) == (5, 1)
    assert (config.model.temperature, config.model.seed) == (0.2, 4)
    assert config.sandbox.image == "alpine"
    assert config.tools == (
        "bash", "bash_output", "bash_stdin", "bash_kill", "grep", "finish",
    )  # fmt: skip


def test_the_tasks_own_fields_win_one_by_one() -> None:
    config = resolved(
        task(limits={"turns": 3}, model={"temperature": 0}, sandbox={"image": "mine"}),
        profile(limits={"turns": 9, "tokens": 100}, model={"temperature": 1, "seed": 4}),
    )
    assert config.limits == Limits(turns=3, tokens=100)
    assert (config.model.temperature, config.model.seed) == (0, 4)
    assert config.sandbox.image == "mine"


def test_no_repairs_at_all_is_a_choice_of_its_own() -> None:
    config = resolved(
        task(retryPolicy={"model": {"repairs": 0}}), profile(retryPolicy={"model": {"repairs": 5}})
    )
    assert config.model.repairs == 0


def test_disabled_tools_are_taken_out_and_finish_stays() -> None:
    config = resolved(task(tools={"disabled": ["bash"]}), profile(tools={"enabled": ["bash"]}))
    assert config.tools == ("finish",)


def test_the_class_shapes_the_sandbox() -> None:
    sandbox = resolved(
        task(),
        sandbox={
            "resources": {"requests": {"cpu": "1"}, "limits": {"ephemeral-storage": "1Gi"}},
            "runtimeClassName": "gvisor",
            "imagePullSecrets": [{"name": "pull"}],
            "workspace": {"sizeLimit": "1Gi"},
            "hardTimeoutSeconds": 20,
        },
    ).sandbox
    assert sandbox.resources.requests == (("cpu", "1"),)
    assert sandbox.resources.limits == (("ephemeral-storage", "1Gi"),)
    assert (sandbox.runtime_class, sandbox.pull_secrets) == ("gvisor", ("pull",))
    assert (sandbox.workspace_size_limit, sandbox.hard_timeout_s) == ("1Gi", 20)


def test_a_class_that_says_nothing_asks_for_nothing() -> None:
    assert resolved(task()).sandbox == SandboxConfig("debian:12")


def test_the_class_says_who_the_shell_is_and_where_it_runs() -> None:
    sandbox = resolved(task(), sandbox=WHOLE_CLASS).sandbox
    assert sandbox.env == (("LANG", "C.UTF-8"), ("EMPTY", ""))
    assert sandbox.node_selector == (("disk", "ssd"), ("kubernetes.io/arch", "amd64"))
    assert sandbox.tolerations == (
        Toleration(key="sandbox", value="yes", effect="NoExecute", seconds=9),
        Toleration(operator="Exists"),
    )
    assert sandbox.allow_root and sandbox.read_only_root


def test_the_class_says_what_a_loss_means_and_where_the_workspace_is_kept() -> None:
    sandbox = resolved(task(), sandbox=WHOLE_CLASS).sandbox
    assert sandbox.on_loss is OnLoss.FAIL
    assert sandbox.claim == VolumeClaim("5Gi", "fast", AccessMode.READ_WRITE_ONCE_POD)
    small = resolved(task(), sandbox={"workspace": {"volumeClaim": {"size": "1Gi"}}}).sandbox
    assert small.claim == VolumeClaim("1Gi", "", AccessMode.READ_WRITE_ONCE)
    assert small.on_loss is OnLoss.RESTART


def test_the_class_says_where_the_sandbox_may_connect_to() -> None:
    sandbox = resolved(task(), sandbox=WHOLE_CLASS).sandbox
    web = (EgressPort(80),)
    assert sandbox.egress == (
        EgressRule((EgressPort(443),), cidr="10.0.0.0/8", except_=("10.1.0.0/16",)),
        EgressRule(web, service="git", namespace="tools"),
        EgressRule(web, service="near"),
        EgressRule((EgressPort(53, "UDP"),), host="*.example.com"),
    )
    assert sandbox.require_enforced_network


def test_a_key_that_no_label_can_have_is_refused() -> None:
    (sentence,) = refused(task(), sandbox={"nodeSelector": {"a b": "c", "ok": "c"}})
    assert "'a b'" in sentence and "kubernetes.io/arch" in sentence


def test_a_repository_is_named_with_its_secret_and_never_read() -> None:
    assert resolved(task()).git is None
    url = "https://git.example.com/team/project.git"
    assert resolved(task(git={"url": url})).git == GitSource(url)
    whole = {"url": url, "ref": "main", "secretRef": {"name": "key"}, "depth": 1}
    assert resolved(task(git=whole)).git == GitSource(url, ref="main", secret="key", depth=1)


def test_the_endpoint_says_how_the_model_is_called_and_names_its_secret() -> None:
    model = resolved(
        task(),
        endpoint={
            "engine": "SGLang",
            "apiKeySecretRef": {"name": "s", "key": "k"},
            "contextWindow": 32768,
            "timeouts": {"connectSeconds": 2, "totalSeconds": 30},
        },
    ).model
    assert (model.endpoint, model.engine) == ("e", Engine.SGLANG)
    assert (model.secret_name, model.secret_key) == ("s", "k")
    assert (model.context_window, model.connect_timeout_s, model.total_timeout_s) == (32768, 2, 30)


def test_files_come_inline_or_by_name() -> None:
    inline, named = resolved(
        task(
            files=[
                {"path": "a.py", "content": ""},
                {
                    "path": "run",
                    "configMapKeyRef": {"name": "c", "key": "k"},
                    "mode": "0755",
                },
            ]
        )
    ).files
    assert (inline.content, inline.config_map, inline.mode) == ("", "", "0644")
    assert (named.content, named.config_map, named.key, named.mode) == (None, "c", "k", "0755")


def test_what_is_resolved_survives_the_journal() -> None:
    config = resolved(task(files=[{"path": "a", "content": "ä\n"}], completion="Text"))
    assert Config.from_json(config.to_json()) == config


def test_all_that_a_class_can_say_survives_the_journal() -> None:
    config = resolved(
        task(git={"url": "ssh://git@h/p.git", "depth": 2}), sandbox={**CLASS, **WHOLE_CLASS}
    )
    assert Config.from_json(config.to_json()) == config


def test_a_class_that_says_nothing_is_written_as_it_was_before_it_could_say_more() -> None:
    config = resolved(task())
    raw = json.loads(config.to_json())
    assert raw["sandbox"].keys() == {
        "image", "resources", "runtime_class", "pull_secrets", "workspace_size_limit",
        "hard_timeout_s",
    }  # fmt: skip
    assert "git" not in raw
    assert Config.from_json(config.to_json()) == config


def test_a_task_uses_the_class_named_default_where_nobody_names_one() -> None:
    assert class_of(task()) == "default"
    by = profile(sandbox={"classRef": {"name": "pc"}})
    assert class_of(task(), by) == "pc"
    assert class_of(task(sandbox={"classRef": {"name": "tc"}}), by) == "tc"


def class_of(of: AgentTask, by: AgentProfile | None = None) -> str:
    found = references(of, by)
    assert isinstance(found, References)
    return found.sandbox_class


def test_constraints_and_rules_of_the_profile_come_before_those_of_the_task() -> None:
    config = resolved(
        task(
            constraints=["Write tests."],
            policy={"rules": [{"name": "own", "when": "true", "action": "Allow"}]},
        ),
        profile(constraints=["Be brief."], policy={"rules": [NO_PUSH]}),
    )
    assert config.constraints == ("Be brief.", "Write tests.")
    assert config.rules == (
        Rule("no-push", "args.command.contains('git push')", RuleAction.DENY, "People push."),
        Rule("own", "true", RuleAction.ALLOW),
    )
    assert Config.from_json(config.to_json()) == config


def test_the_tasks_own_rules_are_known_from_the_profiles() -> None:
    own = {"name": "own", "when": "true", "action": "Allow"}
    of, by = task(policy={"rules": [own]}), profile(policy={"rules": [NO_PUSH]})
    assert [rule.name for rule in rules_of_task(of, resolved(of, by))] == ["own"]
    assert rules_of_task(task(), resolved(task(), by)) == ()


def test_more_constraints_or_rules_than_the_model_and_the_operator_take_are_refused() -> None:
    rules = [{**NO_PUSH, "name": f"r{number}"} for number in range(32)]
    few, many = profile(constraints=["a"] * 31), profile(constraints=["a"] * 32)
    assert len(resolved(task(constraints=["b"]), few).constraints) == 32
    assert refused(task(constraints=["b"]), many) == (
        "constraints of task and profile are 33 together, more than 32: remove some.",
    )
    (sentence,) = refused(task(policy={"rules": rules}), profile(policy={"rules": [NO_PUSH]}))
    assert sentence.startswith("policy.rules of task and profile are 33 together")


def test_a_problem_that_only_the_task_has_lasts_and_all_others_can_be_mended() -> None:
    nested = [{"path": "a", "content": ""}, {"path": "a/b", "content": ""}]
    lasting = outcome(task(files=nested))
    assert isinstance(lasting, Problems) and lasting.lasting
    small = {"contextWindow": 4096}
    mendable = outcome(task(model={"maxOutputTokens": 4096}), endpoint=small)
    assert isinstance(mendable, Problems) and not mendable.lasting
    both = outcome(task(files=nested, model={"maxOutputTokens": 4096}), endpoint=small)
    assert isinstance(both, Problems) and both.lasting and len(both.sentences) == 2


def test_a_reply_that_fills_the_whole_window_is_refused_with_both_numbers() -> None:
    (sentence,) = refused(task(model={"maxOutputTokens": 4096}), endpoint={"contextWindow": 4096})
    assert "maxOutputTokens (4096)" in sentence and "contextWindow (4096)" in sentence


def test_a_path_that_is_both_file_and_folder_is_refused() -> None:
    sentences = refused(
        task(files=[{"path": "src", "content": ""}, {"path": "src/a/b", "content": ""}])
    )
    assert sentences == (
        "spec.files has src as a file and, by src/a/b, as a folder: rename one of the two.",
    )


def test_a_configuration_that_no_record_holds_is_refused() -> None:
    files = [{"path": str(number), "content": "\x01" * 200_000} for number in range(2)]
    (sentence,) = refused(task(files=files))
    assert "more than the 1310720 that a record holds" in sentence
