"""What the documents have of the code: every key of every part of a recipe, and every criterion."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from structprune import generated_documents
from structprune.criteria import CRITERIA
from structprune.recipe import BudgetSpec, PruneSpec, Recipe
from structprune.train.spec import TrainSpec

DOCS = Path(__file__).parents[1] / "docs"
TEXT = generated_documents.recipe_reference()
SECTIONS = dict(re.findall(r"^### (.*)\n((?:(?!### ).*\n)*)", TEXT, re.MULTILINE))


def keys_of(body):
    return re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE)


def test_every_part_has_a_section_with_all_its_keys():
    parts = generated_documents.recipe_parts()
    assert {Recipe, TrainSpec, PruneSpec, BudgetSpec} <= set(parts)
    assert len(SECTIONS) == len(parts)
    for spec, titles in parts.items():
        keys = [name for name, field in spec.model_fields.items() if not field.exclude]
        assert keys_of(SECTIONS["; ".join(titles)]) == keys
        assert not [key for key in keys if not spec.model_fields[key].description], titles


def every_key(value, place=""):
    """The keys of a recipe's file, with the places that they stand in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield place, key
            yield from every_key(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from every_key(inner, place)


@pytest.mark.parametrize("recipe", sorted((DOCS.parent / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_keys_of_the_shipped_recipes_are_found_where_they_stand(recipe):
    for place, key in every_key(yaml.safe_load(recipe.read_text())):
        if place.endswith("kwargs"):
            continue
        bodies = [
            body for title, body in SECTIONS.items() if f"`{place}`" in title or (title, place) == ("The recipe", "")
        ]
        assert any(key in keys_of(body) for body in bodies), f"{place}.{key}"


def test_defaults_bounds_and_types_are_the_specs():
    assert "| `epochs` | whole number ≥ 1 | required |" in SECTIONS["`train`"]
    assert "| `max_ratio` | number > 0 ≤ 1 | `0.9` |" in SECTIONS["`prune`"]
    assert "| `align` | whole number ≥ 1 or `auto` | `auto` |" in SECTIONS["`prune`"]
    assert "| `ignore` | list of texts | none |" in SECTIONS["`prune`"]
    assert "| `planning_seconds` | number > 0 | `600` |" in SECTIONS["`prune`"]
    assert "| `dtype` | `float32` or `int8` | `float32` |" in SECTIONS["`runtime`"]
    assert "| `source` | `calibration` or `batchnorm` | `calibration` |" in SECTIONS["`recover`, `means`"]


def test_every_field_of_a_report_stands_in_its_section():
    sections = dict(re.findall(r"^### (.*)\n((?:(?!### ).*\n)*)", generated_documents.report_reference(), re.MULTILINE))
    parts = generated_documents.report_parts()
    assert len(sections) == len(parts)
    for record, titles in parts.items():
        fields = [field.alias or name for name, field in record.model_fields.items()]
        assert keys_of(sections["; ".join(titles)]) == fields
    assert "| `ci95` | [number, number] | its 95 % interval |" in sections["`latency`"]
    assert "| `notes` | list of texts | what disturbed the timing |" in sections["`latency`"]
    assert "| `trials` | list of mappings |" in sections["`search`"]
    assert "`budget`; `search.asked`; `search.trials.budget`; `search.budget`" in " ".join(sections)
    assert "| `macs` | number |" in next(body for title, body in sections.items() if title.startswith("`budget`"))


def test_every_criterion_is_there_with_its_source():
    text = generated_documents.criteria_reference()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == sorted(CRITERIA)
    for entry in CRITERIA.values():
        assert entry.source.replace("|", "\\|") in text


def test_the_pages_get_what_is_made():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    for page, text in (
        ("recipes.md", TEXT),
        ("choosing.md", generated_documents.criteria_reference()),
        ("report.md", generated_documents.report_reference()),
        ("sweeps.md", generated_documents.sweep_reference()),
    ):
        assert text in hooks.on_page_markdown((DOCS / page).read_text(), page=None)
