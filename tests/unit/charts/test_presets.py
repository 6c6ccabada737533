"""The chart's presets: what they give, and what they leave to their user.

After a change that is meant: ``pytest tests/unit/charts --rewrite-golden``, then read the diff.
"""

from __future__ import annotations

import pytest
import yaml
from ratchet.api.endpoint import ModelEndpoint
from ratchet.edges.access import ADMIN_KEY

from tests.conftest import AssertGolden
from tests.unit.charts.helm import CHARTS, REGISTRY, program, template
from tools import presets
from tools.presets import PRESETS, Preset, PresetError

SERVED = [preset for preset in PRESETS if preset.settings]

each = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)


def test_every_file_of_the_folder_is_looked_at() -> None:
    assert {file.stem for file in (CHARTS / "ratchet/presets").iterdir()} == {
        preset.name for preset in PRESETS
    }


@each
def test_the_objects_are_those_of_the_golden_file(
    preset: Preset, assert_golden: AssertGolden
) -> None:
    assert_golden(preset.golden, presets.render(program(), preset))


@each
def test_the_endpoint_is_one_that_the_api_takes(preset: Preset) -> None:
    objects = list(yaml.safe_load_all(preset.golden.read_text()))
    (endpoint,) = [item for item in objects if item["kind"] == "ModelEndpoint"]
    spec = ModelEndpoint.model_validate(endpoint).spec
    assert spec.capacity and spec.context_window and spec.api_key_secret_ref


def test_another_object_is_shown_as_a_difference() -> None:
    with pytest.raises(PresetError, match=r"(?s)\+kind: Pod.*--rewrite-golden"):
        presets.compare(PRESETS[0], "kind: Pod\n" + PRESETS[0].golden.read_text())


@pytest.mark.parametrize("preset", SERVED, ids=lambda preset: preset.name)
@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        ("sglang.image.digest", "sglang.image.digest is empty"),
        ("sglang.model.revision", "sglang.model.revision is empty"),
        ("sglang.model.licenceAccepted", "is not accepted"),
    ],
)
def test_what_the_user_has_to_say_is_asked_for_in_a_sentence(
    preset: Preset, left_out: str, says: str
) -> None:
    settings = tuple(s for s in preset.settings if not s.startswith(left_out))
    assert len(settings) == len(preset.settings) - 1
    with pytest.raises(PresetError, match=says):
        presets.render(program(), Preset(preset.name, settings))


@each
def test_a_preset_names_the_key_of_server_and_operator_alike(preset: Preset) -> None:
    values = yaml.safe_load(preset.file.read_text())
    key = values["endpoint"]["apiKeySecret"]
    assert values.get("sglang", {}).get("apiKeySecret", key) == key
    admin = {"name": key["name"], "key": ADMIN_KEY}
    assert values.get("sglang", {}).get("adminKeySecret", admin) == admin


def test_helm_takes_the_files_themselves() -> None:
    for preset in PRESETS:
        settings = [f"--set={setting}" for setting in preset.settings]
        words = [REGISTRY, "--set=defaults.namespace=team", "--values", str(preset.file)]
        assert template(*words, *settings).returncode == 0


def test_only_kinds_of_other_software_are_left_out_of_the_dry_run() -> None:
    text = yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "Service"},
            {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor"},
            {"apiVersion": "ratchet.run/v9", "kind": "ModelEndpoint"},
        ]
    )
    found = presets.sort_out(text, ["v1", "apps/v1"])
    assert [item["kind"] for item in found.known] == ["Service", "ModelEndpoint"]
    assert [item["kind"] for item in found.unknown] == ["PodMonitor"]


def test_a_cluster_that_knows_the_kind_is_asked_about_it_too() -> None:
    text = "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\n"
    assert not presets.sort_out(text, ["monitoring.coreos.com/v1"]).unknown
