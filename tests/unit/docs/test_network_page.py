"""What `docs/network.md` shows of rules and policies is what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.sandboxconfig import sandbox_config
from ratchet.build.egress import Egress, opened
from ratchet.build.generation import Generation
from ratchet.build.networkpolicy import cilium_network_policy
from ratchet.core.conditions import ConditionType, Reason

from tests.unit.docs.test_docs import blocks

PAGE = (Path(__file__).resolve().parents[3] / "docs/network.md").read_text()
SHOWN: list[Any] = [yaml.safe_load(block) for block in blocks(PAGE, "yaml")]


def rules(name: str) -> Any:
    (found,) = [x for x in SHOWN if isinstance(x, dict) and x["metadata"]["name"] == name]
    shape = SandboxClass.model_validate(found).spec
    return sandbox_config(shape, "python:3.12")


def test_the_rules_of_the_policy_are_those_that_are_made_of_the_class() -> None:
    (policy,) = [x for x in SHOWN if isinstance(x, list)]
    services = {("data", "postgres"): {"app": "postgres"}}
    assert opened(Egress(rules("with-a-database").egress, services), "team") == policy


def test_the_hosts_of_the_page_are_opened_and_their_names_alone_are_asked_for() -> None:
    egress = Egress(rules("with-an-index").egress)
    made = cilium_network_policy(Generation("team", "task", "u" * 36, 1), "uid", egress)
    assert made is not None
    (ports,) = made["spec"]["egress"][0]["toPorts"]
    names = [{"matchName": "pypi.org"}, {"matchPattern": "**.pythonhosted.org"}]
    assert ports["rules"]["dns"] == names
    assert [rule["toFQDNs"] for rule in made["spec"]["egress"][1:]] == [[name] for name in names]


def test_a_class_can_require_it() -> None:
    assert rules("locked-in").require_enforced_network


def test_every_reason_of_the_condition_is_explained() -> None:
    assert ConditionType.NETWORK_ENFORCED.value in PAGE
    for reason in (
        Reason.POLICY_ENFORCED, Reason.POLICY_IGNORED, Reason.PROBE_INCONCLUSIVE,
        Reason.NETWORK_NOT_ENFORCED, Reason.SERVICE_NOT_FOUND,
    ):  # fmt: skip
        assert reason.value in PAGE, reason
