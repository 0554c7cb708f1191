"""What a page says of a run beside its report: from the files of its folder."""

import json
import sys
from pathlib import Path

import pytest

from structprune.json_records import read_record
from structprune.report import Report, render_html
from structprune.report.run_facts import command_line, facts_of

COMMAND = "structprune run quickstart --set 'prune.budget={macs: 0.5}'"


@pytest.fixture
def folder(tmp_path):
    events = [{"time": 1795738615.5, "event": "started", "command": COMMAND}, {"time": 1795738703.6, "event": "stage"}]
    lines = [json.dumps(event) for event in events]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"time": 17957']))  # cut off
    (tmp_path / "slim.onnx").write_bytes(b"")
    return tmp_path


def test_the_log_tells_when_how_long_and_by_which_command(folder):
    facts = facts_of(folder)
    assert (facts.started, facts.duration, facts.command) == ("2026-11-27 00:16 UTC", "1 min 28 s", COMMAND)
    assert list(facts.files) == ["report.json", "slim.onnx", "log.jsonl"]


def test_the_time_between_a_plan_and_its_resumption_does_not_count(tmp_path):
    resumption = f"{COMMAND} --resume"
    events = [
        {"time": 1000.0, "event": "started", "command": f"{COMMAND} --plan"},
        {"time": 1010.0, "event": "stage"},
        {"time": 90000.0, "event": "started", "command": resumption},
        {"time": 90020.0, "event": "stage"},
        {"time": 90025.0, "event": "stage"},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, events)))
    facts = facts_of(tmp_path)
    assert (facts.started, facts.duration, facts.command) == ("1970-01-01 00:16 UTC", "35 s", resumption)


def test_a_folder_without_a_log_has_its_files(tmp_path):
    assert facts_of(tmp_path)[:3] == ("", "", "")


def test_the_page_says_it_and_links_the_files(folder):
    report = read_record(Path(__file__).parent / "report.json", Report)
    page = render_html(report, "net", facts_of(folder))
    assert "2026-11-27 00:16 UTC" in page
    assert '<a href="slim.onnx">' in page
    assert "prune.budget={macs: 0.5}" in page
    assert "<a href" not in render_html(report, "net")


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/structprune", "run", "a b.yaml"], "structprune run 'a b.yaml'"),
        (["/opt/structprune/__main__.py", "run"], "structprune run"),
        (["/home/me/train.py"], ""),
        ([""], ""),
    ],
)
def test_only_our_own_command_is_told(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == command
