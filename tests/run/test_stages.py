"""Stages: their order, what is found again, who may write, and what a kill or a full disk leaves."""

import dataclasses
import errno
import importlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

import structprune as sp
from structprune.criteria import CRITERIA
from structprune.data.identity import data_digest
from structprune.errors import BudgetError, GateError, RecipeError, StoreError
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.run.runner import Runner
from structprune.run.stage import STAGES, Stage, ordered, stage
from structprune.run.stages import planning
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE, short_turns

train_module = importlib.import_module("structprune.train.stage")
surgery = importlib.import_module("structprune.run.stages.surgery")

TINY = {
    **RECIPE,
    "data": {**RECIPE["data"], "calibration": {"images": 48}},
    "train": {**RECIPE["train"], "epochs": 1},
    "recover": ["means"],
    "finetune": {**RECIPE["finetune"], "epochs": 1},
}
SHORT = {"bench": {"seconds": 0.05}}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    with short_turns():
        yield


@pytest.fixture
def registry():
    before = dict(STAGES)
    yield STAGES
    STAGES.clear()
    STAGES.update(before)


def never(*arguments, **options):
    raise AssertionError("this was made before")


def recipe_file(folder: Path, **changes) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


@pytest.mark.thorough
def test_what_sees_one_part_of_the_data_is_found_again_where_another_part_changes(tmp_path):
    """A scan sees the calibration set, recovery is judged on what is held out, and neither sees what is trained on."""
    recipe = tmp_path / "unlabelled.yaml"
    data = {"source": "images", "crops": 6, "calibration": {"images": 36}}
    prune = {"budget": {"macs": 0.7}, "allocation": "sensitivity", "scan": {"images": 4, "ratios": [0.5]}}
    model = {"name": "test_resnet.r160_in1k", "pretrained": False}
    recipe.write_text(yaml.safe_dump({"model": model, "data": data, "prune": prune, "recover": ["means"], **SHORT}))
    stages = []
    changes = ("data.crops=6", "data.train_crops=5", "data.crops=5", "data.calibration.images=33")
    for number, change in enumerate(changes):
        sp.run(recipe, tmp_path / str(number), overrides=[change])
        events = map(json.loads, (tmp_path / str(number) / "log.jsonl").read_text().splitlines())
        stages.append({event["stage"] for event in events if event["event"] == "found"} & {"scan", "recover"})
    assert stages == [set(), {"scan", "recover"}, {"scan"}, set()]


def test_how_many_processes_read_is_nothing_that_a_scan_hangs_on(tmp_path):
    pages = {"source": "text_pages", "image_size": 128, "pages": 2, "calibration": {"images": 4}}
    digests = []
    for workers in (0, 2):
        recipe = {"model": {"name": "test_resnet.r160_in1k", "pretrained": False}, "task": "text_detection"}
        recipe |= {"data": {**pages, "workers": workers}, "prune": {"budget": {"macs": 0.7}}}
        run = runner_of(check_recipe(recipe), Reporter(), Artefacts(tmp_path))
        assert run.value("held_out").workers == workers
        digests.append(data_digest(run.value("samples")))
    assert digests[0] == digests[1]


def test_two_recipes_that_train_the_same_network_train_it_once(tmp_path, monkeypatch):
    first = sp.run(recipe_file(tmp_path), tmp_path / "a", overrides=["finetune=null"])
    monkeypatch.setattr(train_module, "fit", never)
    second = sp.run(
        recipe_file(tmp_path), tmp_path / "b", overrides=["finetune=null", "recover=[]", "prune.budget.macs=0.6"]
    )
    assert second["quality"]["dense"] == first["quality"]["dense"]
    assert second["macs"]["slim"] > first["macs"]["slim"]
    dense = [load_file(tmp_path / name / "dense.safetensors") for name in ("a", "b")]
    assert all(torch.equal(tensor, dense[1][key]) for key, tensor in dense[0].items())
    for kept in tmp_path.rglob("dense.safetensors"):  # what is written over one in place is no other's
        before = [path.read_bytes() for path in tmp_path.rglob("dense.safetensors") if path != kept]
        with kept.open("r+b") as file:
            file.write(b"other")
        assert [path.read_bytes() for path in tmp_path.rglob("dense.safetensors") if path != kept] == before
    with pytest.raises(AssertionError, match="made before"):  # of another training nothing is taken
        sp.run(recipe_file(tmp_path), tmp_path / "c", overrides=["train.epochs=2", "finetune=null"])
    with pytest.raises(AssertionError, match="made before"):
        sp.run(recipe_file(tmp_path), tmp_path / "d", overrides=["seed=1", "finetune=null"])


def test_a_slim_network_that_does_not_run_leaves_the_trained_one(tmp_path, monkeypatch):
    original = surgery.prune

    def broken(model, plan):
        slim = original(model, plan)
        slim.two.weight.data = slim.two.weight.data[:, :0]
        return slim

    monkeypatch.setattr(surgery, "prune", broken)
    with pytest.raises(GateError, match="does not run"):
        sp.run(recipe_file(tmp_path), tmp_path / "run")
    monkeypatch.setattr(surgery, "prune", original)
    fitted = []
    fit = train_module.fit
    monkeypatch.setattr(train_module, "fit", lambda *a, **k: (fitted.append(k["checkpoint"].name), fit(*a, **k))[1])
    sp.run(recipe_file(tmp_path), tmp_path / "run", resume=True)
    assert fitted == ["slim.training.safetensors"]


def test_two_runs_in_one_folder_at_once(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".run.lock"), pytest.raises(RecipeError, match="another run is at work in"):
        sp.run(recipe_file(tmp_path), folder)
    assert sorted(path.name for path in folder.iterdir()) in ([], [".run.lock"])


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, monkeypatch):
    from structprune.run.stages import training

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    original = train_module.save_file
    monkeypatch.setattr(training, "save_file", full)  # of the recovered network
    untrained = ["train=null", "finetune=null"]
    with pytest.raises(StoreError, match=r"no room left on the disk of .*go on by --resume"):
        sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=untrained)
    monkeypatch.setattr(training, "save_file", original)
    report = sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=untrained, resume=True)
    assert report["gate"]["passed"]


def test_a_full_temporary_folder_is_no_defect_of_the_network(monkeypatch):
    from tests.example_networks import Chain, pruned, randomise

    gate = importlib.import_module("structprune.verify.gate")
    model, x = randomise(Chain()), torch.randn(2, 3, 10, 10)
    plan, slim = pruned(model, x)

    def full(*arguments, **options):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(gate, "save", full)
    with pytest.raises(StoreError, match="no room left for the files of the gate's comparison reload"):
        sp.verify(model, slim, plan, x)


def test_a_rehearsal_reads_no_plan_that_lies_about(tmp_path, monkeypatch):
    from structprune.run import rehearse

    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text("{}")
    rehearse(check_recipe(TINY))
    impossible = {**TINY, "prune": {**TINY["prune"], "budget": {"macs": 0.0001}}}
    with pytest.raises(BudgetError):
        rehearse(check_recipe(impossible))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_stage_takes_one_function(tmp_path, registry):
    """Doubles the last layer's bias of the slim network, between the cut and its measurement."""

    @stage("louder", after="cut", needs=("slim",), makes=("slim", "louder"))
    def louder(work, slim):
        slim.head.bias.data *= 2
        return {"slim": slim, "louder": float(slim.head.bias.detach().abs().sum())}

    names = [entry.name for entry in ordered(registry)]
    assert names.index("cut") < names.index("louder") < names.index("check")
    quiet = dict(registry)
    del quiet["louder"]
    recipe = check_recipe({**TINY, "train": None, "finetune": None, "recover": []})
    plain = Runner(recipe, Artefacts(tmp_path), Reporter(), stages=ordered(quiet))
    runner = runner_of(recipe, Reporter(), Artefacts(tmp_path))
    assert runner.value("louder") == pytest.approx(2 * float(plain.value("slim").head.bias.detach().abs().sum()))
    assert torch.equal(runner.value("slim").head.bias, 2 * plain.value("slim").head.bias)
    with pytest.raises(RecipeError, match="stage louder is there already"):
        stage("louder", after="cut", makes=("x",))(lambda work: None)
    stray = dataclasses.replace(registry["louder"], name="stray", after="cutt")
    with pytest.raises(RecipeError, match="did you mean cut"):
        ordered({**registry, "stray": stray})


def kept(name: str, calls: list, after: str | None, needs: tuple = (), makes: str = "") -> Stage:
    def run(work, **inputs):
        calls.append(name)
        (work.folder / "value").write_text(f"{name}{work.spec}({','.join(map(str, inputs.values()))})")

    def read(work):
        return (work.folder / "value").read_text()

    return Stage(
        name, run, after, lambda recipe: needs, (makes or name,), lambda recipe: recipe.prune.align, lambda r: True,
        read=read,
    )  # fmt: skip


def test_what_a_stage_makes_is_made_again_only_if_what_it_hangs_on_changed(tmp_path):
    calls: list[str] = []
    line = [kept("a", calls, None), kept("b", calls, "a", ("a",)), kept("c", calls, "b", ("b", "a"), makes="a")]
    recipe = check_recipe(TINY)

    def values(align=1):
        changed = recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"align": align})})
        from structprune.run.runner import Runner

        runner = Runner(changed, Artefacts(tmp_path), Reporter(), stages=line)
        return runner.value("a")

    assert values() == "c1(b1(a1()),a1())"
    assert calls == ["a", "b", "c"]
    assert values() == "c1(b1(a1()),a1())"
    assert calls == ["a", "b", "c"]
    assert values(2) == "c2(b2(a2()),a2())"
    assert calls == ["a", "b", "c"] * 2


def test_the_criterion_that_widths_are_planned_by_needs_nothing():
    """So every recipe can have it, whatever its own criterion needs."""
    assert CRITERIA[planning.WIDTHS_BY].needs == frozenset()


def test_of_a_stage_that_is_left_out_an_earlier_ones_artefact_counts(tmp_path):
    from structprune.run.runner import Runner

    calls: list[str] = []

    @dataclasses.dataclass
    class Failed:
        passed = False

    def live(name: str, after: str, makes: str, value: object, **options: object) -> Stage:
        return Stage(name, lambda work: value, after, lambda r: (), (makes,), lambda r: None, lambda r: True, **options)

    line = [
        kept("a", calls, None),
        live("g", "a", "gates.g", Failed()),
        dataclasses.replace(kept("b", calls, "g", ("a",), makes="a"), sound_only=True),
        live("q", "b", "quality.b", 0.5, sound_only=True),
        kept("c", calls, "q", ("a", "gates.*", "quality.*")),
    ]

    def value(align: int) -> str:
        recipe = check_recipe({**TINY, "prune": {**TINY["prune"], "align": align}})
        return Runner(recipe, Artefacts(tmp_path), Reporter(), stages=line).value("c")

    assert value(1).startswith("c1(a1(),")
    assert value(1).endswith(",{})")  # and the quality that was not measured is not there
    assert calls == ["a", "c"]
    line[-1] = dataclasses.replace(line[-1], spec=lambda recipe: 1)
    assert value(1).startswith("c1(a1(),")
    assert value(2).startswith("c1(a2(),")  # another `a` is another `c`


def test_a_gate_that_fails_before_recovery_is_the_runs_error(tmp_path, monkeypatch):
    original = surgery.prune

    def broken(model, plan):
        slim = original(model, plan)
        slim.two.weight.data = slim.two.weight.data.roll(1, dims=1)
        return slim

    monkeypatch.setattr(surgery, "prune", broken)
    with pytest.raises(GateError, match="not the one planned"):
        sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=["train=null", "finetune=null"])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["verdict"]["state"] == "broken"
    assert "recovered" not in report["quality"]
    assert report["recovery"] == []


SLOPED = """
import torch
from torch import nn

class Sloped(nn.Module):
    num_classes = 10

    def __init__(self, slope=0.1):
        super().__init__()
        self.slope = slope
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        return self.c(self.b(torch.nn.functional.leaky_relu(self.a(x), self.slope)).relu().mean((2, 3)))
"""


SETS = """
import torch
from torch.utils.data import TensorDataset

def make():
    x, y = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    return {"train": TensorDataset(x[:20], y[:20]), "test": TensorDataset(x[20:], y[20:])}
"""


def keys(folder: Path, **changes) -> dict[str, str]:
    """By stage, what the scores of a recipe hang on."""
    runner = runner_of(
        check_recipe({**TINY, "train": None, "finetune": None, **changes}), Reporter(), Artefacts(folder)
    )
    runner.settle("scores")
    return {name: runner.key(name).digest for name in ("scores", "dense_onnx")}


def test_arguments_that_only_a_networks_code_uses_count(tmp_path, monkeypatch):
    (tmp_path / "sloped_of_stages.py").write_text(SLOPED)
    source = f"{tmp_path / 'sloped_of_stages.py'}:Sloped"
    one, two = (keys(tmp_path, model={"source": source, "kwargs": {"slope": slope}}) for slope in (0.1, 5.0))
    assert one["scores"] != two["scores"]
    assert one["dense_onnx"] != two["dense_onnx"]
    assert one == keys(tmp_path, model={"source": source, "kwargs": {"slope": 0.1}})


def test_the_code_of_a_package_and_of_what_is_registered_counts(tmp_path, monkeypatch):
    from structprune.criteria import CRITERIA

    package = tmp_path / "package_of_stages"
    package.mkdir()
    for name, text in (("__init__", ""), ("nets", SLOPED), ("helpers", "SHIFT = 1")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"source": "package_of_stages.nets:Sloped"}
    before = keys(tmp_path, model=model)
    assert before == keys(tmp_path, model=model)
    (package / "helpers.py").write_text("SHIFT = 10")  # which a forward may read
    changed = keys(tmp_path, model=model)
    assert changed["scores"] != before["scores"]
    (package / "sets.py").write_text(SETS)
    data = {"source": "package_of_stages.sets:make", "calibration": {"images": 4}}
    given = keys(tmp_path, data=data)
    assert given == keys(tmp_path, data=data)
    (package / "helpers.py").write_text("SHIFT = 100")  # which a dataset may read
    assert keys(tmp_path, data=data)["scores"] != given["scores"]
    changed = keys(tmp_path, model=model)

    own = tmp_path / "criterion_of_stages.py"
    text = "import structprune as sp\n\n@sp.criterion('own', 'own')\ndef own(group):\n    return group.per_unit()\n"
    own.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("criterion_of_stages")
    assert "own" in CRITERIA
    registered = keys(tmp_path, model=model)
    assert registered["scores"] != changed["scores"]
    own.write_text(text + "# another\n")
    assert keys(tmp_path, model=model)["scores"] != registered["scores"]


def test_other_calibration_images_are_no_other_training(tmp_path):
    def key(**data):
        recipe = check_recipe({**TINY, "data": {"source": "digits", "image_size": 8, **data}})
        runner = runner_of(recipe, Reporter(), Artefacts(tmp_path))
        runner.settle("graph")
        return runner.key("train").digest

    plain, calibrated = key(calibration={"images": 48}), key(calibration={"images": 64})
    assert plain == calibrated
    assert plain != key(calibration={"images": 48}, image_size=16)


@pytest.fixture
def untimed_machine(monkeypatch):
    costs = importlib.import_module("structprune.run.stages.costs")
    for name in ("learn_multiples", "learn_cost"):
        monkeypatch.setattr(costs, name, never)
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "off")


def test_a_recipe_times_nothing_to_plan_where_that_is_off(tmp_path, untimed_machine, monkeypatch):
    from structprune.cost import known_multiples

    untrained = ["train=null", "finetune=null", "recover=[]", "prune={budget: {macs: 0.6}}"]
    reporter = Reporter()
    plan = sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=untrained, plan_only=True, reporter=reporter)
    assert reporter.log is None  # what it reports next is not of this run
    assert plan["constraints"]["align"] == known_multiples()
    assert "not of what was timed here (STRUCTPRUNE_TIMING=off)" in " ".join(plan["notes"])
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    with pytest.raises(AssertionError, match="made before"):  # that plan is not taken for one with timed steps
        sp.run(recipe_file(tmp_path), tmp_path / "timed", overrides=untrained, plan_only=True)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("off", r"a budget of latency_ms=3 and speedup=2 is met by timing networks, and STRUCTPRUNE_TIMING=off"),
        ("no", r"STRUCTPRUNE_TIMING=no: give on or off"),
    ],
)
def test_a_budget_of_speed_is_refused_where_nothing_may_be_timed(
    tmp_path, untimed_machine, monkeypatch, switch, message
):
    monkeypatch.setenv("STRUCTPRUNE_TIMING", switch)
    budget = "prune.budget={speedup: 2, macs: 0.5, latency_ms: 3}"
    with pytest.raises(BudgetError, match=message):
        sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=["train=null", "finetune=null", budget])
    assert not (tmp_path / "run").exists()


def untimed(report: dict) -> dict:
    """A report without what clocks say."""
    left = {k: v for k, v in report.items() if k not in ("verdict", "latency", "layers", "environment", "also", "int8")}
    left["recovery"] = [{k: v for k, v in step.items() if k != "seconds"} for step in left["recovery"]]
    return json.loads(json.dumps(left))


same_twice = pytest.mark.skipif(torch.cuda.is_available(), reason="training is the same twice on a CPU alone")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts: its folder and its report."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "run", sp.run(recipe_file(folder), folder / "run")


def assert_resumes_as(whole, folder: Path, out: Path) -> None:
    """What a killed run left ends as the whole one did, and nothing else is left."""
    report = sp.run(recipe_file(folder), out, resume=(out / "recipe.yaml").is_file())
    assert untimed(report) == untimed(whole[1])
    ours, theirs = load_file(out / "slim.safetensors"), load_file(whole[0] / "slim.safetensors")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole[0].iterdir())
    store = out.parent / ".structprune"
    assert not [path for path in store.iterdir() if path.suffix in (".part", ".lock")]
    assert not list(store.glob("*/.*"))


def kill_before(calls: list[int], folder: Path, out: Path) -> None:
    command = [sys.executable, "-m", "tests.run.killed_runs", str(recipe_file(folder)), str(out), *map(str, calls)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)


@pytest.mark.thorough
@same_twice
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_report(tmp_path, whole):
    out = tmp_path / "run"
    kill_before([20, 45, 90], tmp_path, out)
    assert not (out / "report.json").exists()
    assert_resumes_as(whole, tmp_path, out)


@pytest.mark.slow
@same_twice
def test_a_run_that_is_killed_before_any_change_of_the_file_system_ends_in_the_same_report(tmp_path, whole):
    for call in range(1, 320, 3):
        folder = tmp_path / str(call)
        folder.mkdir()
        kill_before([call], folder, folder / "run")
        assert_resumes_as(whole, folder, folder / "run")


@pytest.mark.slow
@same_twice
def test_a_run_that_is_killed_fifty_times_ends_in_the_same_report(tmp_path, whole):
    draw, kills, seconds = random.Random(0), 0, 0.0
    for turn in itertools.count():
        folder = tmp_path / str(turn)
        folder.mkdir()
        if not seconds:
            start = time.monotonic()
            assert not was_killed(folder, folder / "run", timeout=600)
            seconds = time.monotonic() - start
        while kills < 50 and was_killed(folder, folder / "run", timeout=seconds * draw.uniform(0.3, 1.0)):
            kills += 1
        assert_resumes_as(whole, folder, folder / "run")
        if kills == 50:
            break
    assert kills == 50


def was_killed(folder: Path, out: Path, timeout: float) -> bool:
    """Whether a run, begun or resumed in a process of its own, was killed before it ended. One that ends is right."""
    command = [sys.executable, "-c", "from structprune.cli import main; main()", "run", str(recipe_file(folder))]
    resume = ["--resume"] if (out / "recipe.yaml").is_file() else []
    process = subprocess.Popen(
        [*command, "--out", str(out), *resume],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, errors.decode()[-2000:]
    return False


@pytest.mark.parametrize(
    "prune",
    [
        {"allocation": "sensitivity"},
        {"allocation": "uniform", "surgery": "merge"},
        {"allocation": "uniform", "criterion": "thinet"},
        {"allocation": "uniform", "rotate": True},
    ],
    ids=lambda prune: " ".join(map(str, prune.values())),
)
def test_what_looks_at_weights_sees_the_trained_ones_where_these_are_found(tmp_path, prune):
    """Scores and widths that another run has made ask for no network, and the graph was traced before the training."""
    other = {**TINY, "prune": {**TINY["prune"], "allocation": "uniform"}}
    changed = check_recipe({**TINY, "prune": {**TINY["prune"], **prune}})
    runner_of(check_recipe(other), Reporter(), Artefacts(tmp_path / "shared")).value("plan")
    runners = [runner_of(changed, Reporter(), Artefacts(tmp_path / name)) for name in ("shared", "alone")]
    plans = [runner.value("plan") for runner in runners]
    assert plans[0].groups == plans[1].groups
    assert plans[0].merges == plans[1].merges
    scans = [runner.value("scores").sensitivity for runner in runners]
    assert scans[0] == scans[1]
    weights = [runner.value("graph").model.state_dict() for runner in runners]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
