"""`structprune list`: every registry of what recipes may name, and what the records say of themselves."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from structprune.catalogue import KINDS
from structprune.cli import app
from structprune.recipe import RECOVERIES, RecoverySpec
from structprune.recover import Recovery
from structprune.registry import Registry
from structprune.run import runner
from structprune.runtimes import ENGINES


def listed(*arguments):
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def by_name(kind):
    return {entry["name"]: entry for entry in json.loads(listed(kind, "--json"))}


def test_every_registry_that_a_recipe_names_from_is_listed():
    assert "onnxruntime" in listed("engines")
    registries = [kind.registry for kind in KINDS.values()]
    for name, registry in vars(runner).items():
        if name.isupper() and isinstance(registry, Registry):
            assert any(registry is each for each in registries), name
    data = json.loads(listed("--json"))
    assert {kind: {entry["name"] for entry in entries} for kind, entries in data.items()} == {
        kind: set(each.registry) for kind, each in KINDS.items()
    }
    assert all(entry["description"] for entries in data.values() for entry in entries)


def test_the_help_and_the_document_name_all_kinds():
    words = " ".join(CliRunner().invoke(app, ["list", "--help"], terminal_width=200, color=False).stdout.split())
    text = (Path(__file__).parents[1] / "docs" / "command_line.md").read_text()
    for kind in KINDS:
        assert kind in words
        assert f"`{kind}`" in text


def test_entries_say_what_is_needed_and_taken(monkeypatch):
    assert by_name("criteria")["thinet"]["needs"] == ["samples", "widths"]
    allocations = by_name("allocations")
    assert allocations["sensitivity"]["needs"] == allocations["knapsack"]["uses"] == ["scan"]
    segmentation = by_name("tasks")["segmentation"]
    assert (segmentation["required_keys"], segmentation["other_keys"]) == (["num_classes"], ["ignore_index"])
    assert by_name("model-sources")["name"]["other_keys"] == ["pretrained", "weights", "kwargs"]
    assert by_name("data-sources")["folder"]["required_keys"] == ["path"]
    assert by_name("training-methods")["slimming"]["other_keys"] == ["strength", "start"]
    monkeypatch.setattr(type(ENGINES["openvino"]), "missing", lambda self, device: "it is not there: install it")
    assert by_name("engines")["openvino"]["needs"] == ["cpu: it is not there: install it"]
    assert "it is not" in listed("engines")


def test_a_recovery_whose_keys_decide_is_listed_as_one_that_needs_images():
    class Spec(RecoverySpec):
        method: str = "deciding"
        share: float

        @property
        def needs_images(self):
            return self.share > 0.5

    with RECOVERIES.restored():
        RECOVERIES.add(Recovery("deciding", "decides", Spec, lambda *_: 0))
        assert by_name("recoveries")["deciding"] == {
            "name": "deciding",
            "description": "decides",
            "needs": ["images"],
            "required_keys": ["share"],
            "other_keys": [],
        }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_of_criteria_lists_them_too(options):
    result = CliRunner().invoke(app, ["criteria", *options])
    assert result.exit_code == 0
    assert result.stdout == listed("criteria", *options)


def test_an_unknown_kind_is_refused_in_one_line():
    result = CliRunner().invoke(app, ["list", "engine"])
    assert result.exit_code == 2
    assert "unknown kind 'engine': did you mean engines" in result.stderr


@pytest.mark.parametrize(
    ("command", "kind"),
    [("criteria", "criteria"), ("allocations", "allocations"), ("recoveries", "recoveries"),
     ("methods", "training-methods"), ("models", "model-sources")],
)  # fmt: skip
def test_each_list_has_a_command_of_its_own(command, kind):
    result = CliRunner().invoke(app, [command, "--json"])
    assert json.loads(result.stdout) == json.loads(listed(kind, "--json"))


def test_timms_models_are_listed_by_a_pattern():
    names = CliRunner().invoke(app, ["models", "resnet1?d"]).stdout.split()
    assert {"resnet10t", "resnet18d"} & {*names} == {"resnet18d"}
    wrong = CliRunner().invoke(app, ["models", "resnat"])
    assert wrong.exit_code == 2
    assert "no model whose name is like 'resnat'" in wrong.stderr
