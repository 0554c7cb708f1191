"""One command is what CI runs, and its quick part is what runs before a commit."""

import os
import subprocess
from pathlib import Path

from pre_commit.clientlib import load_config

ROOT = Path(__file__).parents[1]
CHECK = ROOT / ".ci/check"


def test_before_a_commit_the_quick_part_runs_from_this_folder_alone():
    (repository,) = load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    (hook,) = repository["hooks"]
    assert hook["language"] in ("system", "unsupported")  # which newer versions call it: what is here, nothing fetched
    assert hook["entry"] == ".ci/check quick"
    assert os.access(CHECK, os.X_OK)


def test_ci_runs_the_command_that_contributors_run():
    assert CHECK.relative_to(ROOT).as_posix() in (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert "\n.ci/check\n" in (ROOT / "CONTRIBUTING.md").read_text()


def test_ci_runs_the_tests_that_pytest_alone_leaves_out_but_for_the_slow_ones(pytestconfig):
    options = " ".join(pytestconfig.getini("addopts"))
    left_out = [marker for marker in ("thorough", "slow") if f"not {marker}" in options]
    runs = [line.partition(" -m pytest")[2].strip() for line in CHECK.read_text().splitlines() if " -m pytest" in line]
    assert (left_out, runs) == (["thorough", "slow"], ["", "-m thorough"])


def test_a_part_that_there_is_not_is_refused_before_anything_runs():
    result = subprocess.run([CHECK, "slow"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "no part slow: leave it out for all checks" in result.stderr
