"""What a finished run came to, shown again."""

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from structprune.cli import app

REPORT = Path(__file__).parents[1] / "report" / "report.json"


def shown(*words):
    return CliRunner().invoke(app, ["show", *map(str, words)], terminal_width=200, color=False)


def test_a_finished_run_is_shown_as_it_was_when_it_ended(tmp_path):
    shutil.copy(REPORT, tmp_path / "report.json")
    report = json.loads(REPORT.read_text())
    result = shown(tmp_path)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert f"{tmp_path.name}: {report['model']['name']}" in text
    assert report["verdict"]["text"] in text
    assert f"{report['macs']['dense']:,}" in text
    assert "slim.onnx" not in result.stdout  # it is not there
    (tmp_path / "slim.onnx").write_bytes(b"")
    assert "slim.onnx" in shown(tmp_path).stdout
    assert json.loads(shown(tmp_path, "--json").stdout)["macs"] == report["macs"]


def test_a_folder_where_nothing_has_finished_is_one_line(tmp_path):
    for folder, reason in ((tmp_path, "nothing has finished there"), (tmp_path / "none", "is not a folder")):
        result = shown(folder)
        assert result.exit_code == 2
        assert reason in " ".join(result.output.split())


def test_a_damaged_report_is_one_line(tmp_path):
    (tmp_path / "report.json").write_text("{")
    result = shown(tmp_path)
    assert result.exit_code == 2
    assert "is damaged" in " ".join(result.output.split())
