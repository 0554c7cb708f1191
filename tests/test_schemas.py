"""The published schemas are those of the code."""

import json
from pathlib import Path

from structprune.schemas import main, schemas

DOCS = Path(__file__).parents[1] / "docs"


def test_the_published_schemas_are_those_of_the_code():
    texts = dict(schemas())
    assert set(texts) == {path.name for path in DOCS.glob("*.schema.json")}
    for name, text in texts.items():
        assert json.loads((DOCS / name).read_text(encoding="utf-8")) == json.loads(text), (
            f"{name} is out of date: python -m structprune.schemas docs"
        )


def test_they_are_written(tmp_path):
    main(str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict(schemas())
