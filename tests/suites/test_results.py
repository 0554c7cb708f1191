"""A results file is read as it was written, by this version or by one before."""

import json

import pytest

from structprune.suites.results import Results, origin, stamp


def test_results_are_written_at_once_and_read_again(tmp_path):
    path = tmp_path / "new" / "results.json"
    results = Results(path)
    results.put("results", "b", {"status": "passed"})
    results.put("results", "a", {"status": "refused"})
    results.put("smallest", "family", {"model": "a"})
    again = Results(path)
    assert again.data == {
        "results": {"a": {"status": "refused"}, "b": {"status": "passed"}},
        "smallest": {"family": {"model": "a"}},
    }
    assert len(path.read_text().splitlines()) == 9  # a line for each entry, so that two files can be compared
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_file_that_is_no_results_is_one_line_and_code_2(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(SystemExit) as end:
        Results(path)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {path} can't be read (")


def test_records_of_several_versions_name_each():
    records = [{"made": {"date": "2026-01-02", "versions": {"torch": "2.12"}}}, {"made": stamp({"torch": "2.13"})}]
    assert origin(records).endswith("with torch 2.12 and 2.13.")
    assert origin(records).startswith("Made 2026-01-02 to ")
    assert json.dumps(records)
