"""Budgets of rounds, held against numbers by hand, and what does not go with a cut in rounds."""

import pytest

from structprune.errors import RecipeError
from structprune.plan.allocations import ALLOCATIONS, allocation
from structprune.recipe import check_recipe
from structprune.schedules.rounds import ScheduleSpec, rounds_of, shares_gone
from tests.run.small_network import RECIPE


def recipe(schedule, finetune=None, **prune):
    finetune = {**RECIPE["finetune"], **(finetune or {})}
    return {**RECIPE, "prune": {"budget": {"macs": 0.25}, "schedule": schedule, **prune}, "finetune": finetune}


def shares(shape, rounds=2):
    return shares_gone(ScheduleSpec(rounds=rounds, shape=shape))


def test_half_of_the_way_is_half_by_a_line_and_seven_eighths_by_the_cubic_curve():
    assert shares("linear") == [0.5, 1]
    assert shares("cubic") == [0.875, 1]  # 1 - (1/2)³


def test_a_curve_of_the_users_own_says_what_goes_when(tmp_path):
    file = tmp_path / "curves.py"
    file.write_text("def root(time):\n    return time**0.5\n\ndef down(time):\n    return 1 - time\n")
    lines = []
    rounds = rounds_of(check_recipe(recipe({"rounds": 4, "shape": f"{file}:root"})), lines.append)
    assert [each.prune.budget.macs for each in rounds] == pytest.approx([1 - 0.75 * k**0.5 / 2 for k in (1, 2, 3, 4)])
    assert "curves.py" in lines[0]
    (tmp_path / "single.py").write_text("import numpy\n\ndef single(time):\n    return numpy.float32(time)\n")
    assert shares(f"{tmp_path / 'single.py'}:single", 4) == [0.25, 0.5, 0.75, 1]
    with pytest.raises(RecipeError, match=r"down gave 0\.666\d* at 0\.333, 0\.333\d* at 0\.667: give numbers over 0"):
        shares(f"{file}:down", 3)
    with pytest.raises(RecipeError, match=r"has no 'other'|other"):
        check_recipe(recipe({"rounds": 2, "shape": f"{file}:other"}))
    with pytest.raises(RecipeError, match="unknown shape 'cubik': did you mean cubic"):
        check_recipe(recipe({"rounds": 2, "shape": "cubik"}))


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ("linear", [0.75, 0.5, 0.25]),
        ("cubic", [1 - 0.75 * 19 / 27, 1 - 0.75 * 26 / 27, 0.25]),
        ("groups", [0.25, 0.25, 0.25]),  # of all groups together, some of which a round cuts
    ],
)
def test_each_round_has_a_budget_and_epochs_of_its_own(shape, left):
    rounds = rounds_of(check_recipe(recipe({"rounds": 3, "shape": shape, "epochs": 4}, {"epochs": 9})))
    assert [each.prune.budget.macs for each in rounds] == pytest.approx(left, abs=1e-12)
    assert [each.finetune.epochs for each in rounds] == [4, 4, 9]


def test_a_speedup_goes_by_the_share_of_the_dense_networks_time():
    rounds = rounds_of(check_recipe(recipe({"rounds": 2, "shape": "linear"}, budget={"speedup": 2, "macs": 0.8})))
    assert [each.prune.budget.speedup for each in rounds] == pytest.approx([1 / 0.75, 2])
    assert [each.prune.budget.macs for each in rounds] == pytest.approx([0.9, 0.8])


def test_rounds_without_epochs_train_at_the_end_alone():
    rounds = rounds_of(check_recipe(recipe({"rounds": 2, "epochs": 0})))
    assert [each.finetune and each.finetune.epochs for each in rounds] == [None, 2]
    assert rounds_of(check_recipe(RECIPE)) == [check_recipe(RECIPE)]


def test_new_weights_come_in_the_last_round_and_early_ones_in_each():
    scratch = rounds_of(check_recipe(recipe({"rounds": 2}, {"start": "scratch"})))
    assert [each.finetune.start for each in scratch] == ["slim", "scratch"]
    rewound = rounds_of(check_recipe(recipe({"rounds": 2}, {"start": "rewind", "rewind_to": 1})))
    assert [each.finetune.start for each in rewound] == ["rewind", "rewind"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (recipe({"rounds": 2}, budget={"latency_ms": 2}), r"the budget has latency_ms: give one of these, or cut at"),
        (recipe({"rounds": 2}, budget={"macs": 20000}), r"the budget has macs 20000: give one of these"),
        (
            recipe({"rounds": 2, "shape": "groups"}, budget={"speedup": 2}),
            r"it can't correct by what speedup needs to be",
        ),
        (recipe({"rounds": 2}, budget={"macs": 0.5, "quality_drop": 0.1}), r"the budget has quality_drop"),
        (recipe({"rounds": 2, "epochs": 1}, {"warmup_epochs": 1}), r"warmup_epochs=1 leaves nothing of prune.schedule"),
        ({**recipe({"rounds": 2}), "finetune": None}, r"prune.schedule.epochs is of fine-tuning, and there is none"),
        (recipe({"round": 2}), r"prune.schedule.round: unknown key 'round': did you mean rounds"),
    ],
)
def test_what_does_not_go_with_rounds_is_refused(data, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe(data)


def test_costs_are_of_no_use_to_rounds_that_go_to_the_widths_of_one_plan():
    with ALLOCATIONS.restored():
        allocation("by_cost", "weighs costs", needs=["cost"])(lambda choices, scores, load: {})
        with pytest.raises(RecipeError, match="by what allocation by_cost needs to be"):
            check_recipe(recipe({"rounds": 2, "shape": "groups"}, allocation="by_cost"))
        assert check_recipe(recipe({"rounds": 2, "shape": "linear"}, allocation="by_cost")).prune.schedule.rounds == 2
