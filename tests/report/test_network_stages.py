"""The stages that a long page folds by."""

import pytest

from structprune.report.network_stages import is_worth_folding, stages_of


@pytest.mark.parametrize(
    ("names", "stages"),
    [
        (["conv1", *(f"layer{i}.{j}.conv1" for i in (1, 2) for j in range(4))], ["conv1", "layer1", "layer2"]),
        (
            ["stem", *(f"blocks.{i}.{j}.conv" for i in range(3) for j in range(4))],
            ["stem", *(f"blocks.{i}" for i in range(3))],
        ),
        ([f"features.{i}" for i in range(13)], ["features"]),
        (["0", "3", "7"], ["0", "3", "7"]),
        ([], []),
    ],
)
def test_a_stage_is_a_prefix_that_several_layers_have(names, stages):
    assert list(dict.fromkeys(stages_of(names))) == stages
    assert len(stages_of(names)) == len(names)


def test_only_what_becomes_shorter_is_folded():
    assert is_worth_folding(["a", "a", "b", "b"])
    assert not is_worth_folding(["a", "b", "c"])
    assert not is_worth_folding(["a", "a", "a"])
    assert not is_worth_folding([])
