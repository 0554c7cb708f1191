"""report.json as a record: what was written before reads back as it was, what is broken is said in one line."""

import copy
import json
from pathlib import Path

import pytest

from structprune.errors import StoreError
from structprune.json_records import JsonRecord, read_record
from structprune.report import Report, render_html, report_table

FILE = Path(__file__).parent / "report.json"  # a run's, of before there were records, with parts of others


def test_a_file_of_before_reads_back_field_by_field():
    data = json.loads(FILE.read_text())
    report = read_record(FILE, Report)
    assert report.to_data() == data
    assert [*report.to_data()][:3] == ["schema", "verdict", "model"]
    assert json.loads(json.dumps(report.to_data())) == data
    assert report.quality.stages() == {
        name: data["quality"][name] for name in ("dense", "pruned", "recovered", "final")
    }
    assert report.recovery[0].option("source") == "calibration"
    assert report.recovery[0].option("weights") is None
    assert report.budget.asked() == {"agreement": 0.99}


def test_what_early_versions_did_not_write_is_not_added():
    data = json.loads(FILE.read_text())
    for place, names in {
        "": ("verdict", "search", "also", "data"),
        "latency": ("cores", "joules"),
        "quality": ("higher_is_better", "others", "likeness", "kl", "random_weights"),
        "environment": ("instructions",),
    }.items():
        for name in names:
            del (data[place] if place else data)[name]
    report = Report.model_validate(data)
    assert report.to_data() == data
    assert "slower than dense" in str(report_table(report, "net").title)
    assert "slower than dense" in render_html(report, "net")


def test_a_stage_of_ones_own_has_its_quality():
    data = json.loads(FILE.read_text())
    data["quality"]["polished"] = 0.5
    assert Report.model_validate(data).quality.stages()["polished"] == 0.5
    assert Report.model_validate(data).to_data() == data


def test_a_network_that_gives_nan_is_written_and_read(tmp_path):
    data = json.loads(FILE.read_text())
    data["quality"]["final"] = float("nan")
    (tmp_path / "report.json").write_text(json.dumps(data))
    report = read_record(tmp_path / "report.json", Report)
    assert report.quality.final != report.quality.final
    assert json.dumps(report.to_data(), sort_keys=True) == json.dumps(data, sort_keys=True)


def _set(*path, to):
    def edit(data):
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = to

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _set("schema", to="structprune.report/2"),
            "schema is 'structprune.report/2': input should be 'structprune.re",
        ),
        (lambda data: data.pop("gate"), "gate is missing"),
        (lambda data: data["gate"].pop("float64"), "gate.float64 is missing"),
        (_set("gate", "passed", to="yes"), "gate.passed is 'yes': input should be a valid boolean"),
        (_set("latency", "ci95", to=[1.0]), "latency.ci95.1 is missing"),
        (_set("latency", "speedup", to="3"), "latency.speedup is '3': input should be a valid number"),
        (_set("groups", 0, "kind", to="fine"), "groups.0.kind is 'fine': input should be 'exact',"),
        (_set("layers", to={}), "layers is {}: input should be a valid"),
    ],
)
def test_what_is_broken_is_one_line_with_its_place(tmp_path, edit, message):
    data = copy.deepcopy(json.loads(FILE.read_text()))
    edit(data)
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(StoreError) as caught:
        read_record(tmp_path / "report.json", Report)
    assert str(caught.value).startswith(f"{tmp_path / 'report.json'} is damaged: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_report_at_all(tmp_path, text):
    (tmp_path / "report.json").write_bytes(text)
    with pytest.raises(StoreError, match=r"report\.json is damaged: ") as caught:
        read_record(tmp_path / "report.json", Report)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match=r"report\.json can't be read"):
        read_record(tmp_path / "report.json", Report)


def records(kind):
    """All kinds of records, of the modules that are imported here."""
    for inner in kind.__subclasses__():
        yield inner
        yield from records(inner)


@pytest.mark.parametrize("kind", sorted(records(JsonRecord), key=lambda kind: kind.__qualname__), ids=str)
def test_every_record_and_field_is_described(kind):
    assert kind.__doc__
    assert not [name for name, field in kind.model_fields.items() if not field.description]


def test_a_record_does_not_change():
    report = read_record(FILE, Report)
    with pytest.raises(ValueError, match="frozen"):
        report.form = "graph"
