"""The catalogue of tools, and calls in the words of other generations."""

from __future__ import annotations

import jsonschema
import pytest
from ratchet.core.tools import CATALOGUE, Effect, Home, enabled_tools, translate
from ratchet_sandbox.runner import blocks


def test_read_counts_lines_from_one_and_read_file_from_zero() -> None:
    assert translate("read", {"file_path": "a", "offset": 5, "limit": 2}) == (
        "read_file",
        {"path": "a", "offset": 4, "limit": 2},
    )
    assert translate("read", {"path": "a", "offset": 0})[1]["offset"] == 0


def test_edit_becomes_one_search_replace_block() -> None:
    name, arguments = translate("edit", {"file_path": "a", "old_string": "x", "new_string": "y"})
    assert name == "search_replace"
    assert arguments == {
        "path": "a",
        "content": "<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "a"},
        {"path": "a", "old_string": "x"},
        {"path": "a", "old_string": "x", "new_string": None},
        {"path": "a", "old_string": ["x"], "new_string": "y"},
        {"path": "a", "old_string": "x", "new_string": "y", "content": "z"},
    ],
)
def test_an_edit_that_is_not_whole_is_left_for_the_schema_to_refuse(
    arguments: dict[str, object],
) -> None:
    name, left = translate("edit", arguments)
    assert (name, left) == ("search_replace", arguments)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(left, CATALOGUE[name].parameters)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x", "a"),
        ("a\n=======\nb", "=========="),
        ("<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE", "<<<<<<<<< SEARCH"),
        ("x", ""),
        ("x\n", "\n\ny"),
    ],
)
def test_an_edit_may_hold_any_text_markers_included(old: str, new: str) -> None:
    _, arguments = translate("edit", {"path": "a", "old_string": old, "new_string": new})
    assert blocks.parse(arguments["content"]) == [blocks.Block(old, new)]


def test_offsets_of_read_may_be_whole_floats_and_nothing_else() -> None:
    assert translate("read", {"path": "a", "offset": 5.0})[1]["offset"] == 4.0
    assert translate("read", {"path": "a", "offset": True})[1]["offset"] is True


def test_replace_all_stays_so_that_the_schema_refuses_it() -> None:
    name, arguments = translate("edit", {"path": "a", "old_string": "x", "replace_all": True})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(arguments, CATALOGUE[name].parameters)


def test_replace_all_false_says_nothing() -> None:
    edit = {"path": "a", "old_string": "x", "new_string": "", "replace_all": False}
    name, arguments = translate("edit", edit)
    jsonschema.validate(arguments, CATALOGUE[name].parameters)


def test_other_calls_are_left_alone() -> None:
    assert translate("bash", {"command": "ls"}) == ("bash", {"command": "ls"})
    assert translate("grep", {"pattern": "x"}) == ("grep", {"pattern": "x"})


def test_the_arguments_given_are_not_changed_in_place() -> None:
    given = {"file_path": "a"}
    translate("read", given)
    assert given == {"file_path": "a"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_schema_is_one_and_refuses_unknown_arguments(name: str) -> None:
    schema = CATALOGUE[name].parameters
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**_least(name), "more": 1}, schema)
    jsonschema.validate(_least(name), schema)


def test_effect_classes_are_those_of_the_design() -> None:
    effects = {name: tool.effect for name, tool in CATALOGUE.items() if tool.home is Home.SANDBOX}
    assert effects == {
        "bash": Effect.ONCE,
        "bash_output": Effect.PURE,
        "bash_stdin": Effect.ONCE,
        "bash_kill": Effect.ONCE,
        "read_file": Effect.PURE,
        "write_file": Effect.IDEMPOTENT,
        "search_replace": Effect.CHECKED,
        "grep": Effect.PURE,
    }


def test_finish_cannot_be_disabled_and_order_is_that_of_the_catalogue() -> None:
    assert enabled_tools((), ()) == tuple(CATALOGUE)
    assert enabled_tools(("grep", "todo"), ("grep", "finish")) == ("todo", "finish")


SHELL = ("bash", "bash_output", "bash_stdin", "bash_kill")


def test_bash_brings_the_tools_for_its_commands_and_takes_them_with_it() -> None:
    assert enabled_tools(("bash",), ()) == (*SHELL, "finish")
    assert not set(SHELL) & set(enabled_tools((), ("bash",)))


def _least(name: str) -> dict[str, object]:
    values: dict[str, object] = {"action": "read"}
    return {key: values.get(key, "x") for key in CATALOGUE[name].parameters["required"]}
