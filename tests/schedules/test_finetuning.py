"""How long the slim network is trained, and what goes with other weights than those that were cut."""

import pytest
from pydantic import ValidationError

from structprune.errors import RecipeError
from structprune.recipe import check_recipe
from structprune.schedules.finetuning import FinetuneSpec, in_full
from tests.run.small_network import RECIPE


@pytest.mark.parametrize(
    ("dense", "slim", "epochs"),
    [
        (1000, 250, 40),  # four times fewer MACs: four times as many epochs
        (1000, 300, 33),  # 33.3: never more compute than was equal
        (1000, 1000, 10),
        (1000, 999, 10),
    ],
)
def test_equal_compute_is_more_epochs_of_a_smaller_network(dense, slim, epochs):
    spec = FinetuneSpec(epochs=10, lr=0.1, equal="compute")
    assert in_full(spec, {"dense": dense, "slim": slim}).epochs == epochs
    assert in_full(spec.model_copy(update={"equal": "epochs"}), {"dense": dense, "slim": slim}).epochs == 10


def test_what_is_counted_in_epochs_moves_with_them():
    spec = FinetuneSpec(
        epochs=10, lr=0.1, equal="compute", sched="multistep", decay_milestones=[5, 8], decay_epochs=3, warmup_epochs=1
    )
    longer = in_full(spec, {"dense": 900, "slim": 300})
    assert (longer.epochs, longer.decay_milestones, longer.decay_epochs) == (30, (15, 24), 9)
    assert longer.warmup_epochs == 1


def test_rewinding_needs_an_epoch():
    with pytest.raises(ValidationError, match="start=rewind needs rewind_to, the epoch of train"):
        FinetuneSpec(epochs=1, lr=0.1, start="rewind")
    with pytest.raises(ValidationError, match="rewind_to is for start=rewind, and start is slim"):
        FinetuneSpec(epochs=1, lr=0.1, rewind_to=1)


@pytest.mark.parametrize(
    ("finetune", "changes", "message"),
    [
        ({"start": "scratch"}, {"recover": ["batchnorm"], "data.calibration": 1}, "leave one out"),
        ({"start": "rewind", "rewind_to": 1}, {"train": None}, "there is none: add train"),
        ({"start": "rewind", "rewind_to": 2}, {}, "rewind_to=2 is not before the end of train, after 2 epochs"),
        ({"start": "scratch"}, {"prune": {"budget": {"quality_drop": 0.1}}}, "train each by prune.search.epochs"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_other_weights_is_refused(finetune, changes, message):
    recipe = {**RECIPE, "finetune": {**RECIPE["finetune"], **finetune}}
    if changes.pop("data.calibration", None):
        recipe["data"] = {**RECIPE["data"], "calibration": {"images": 48}}
    with pytest.raises(RecipeError, match=message):
        check_recipe({**recipe, **changes})
