"""What the networks put out for the held-out images, from which their quality is measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...data.tensors import Tensors as Data
from ...errors import GateError
from ...train import predict
from ..stage import Work, stage


@stage("judge", after="cut", needs=("dense", "data"), makes=("outputs.dense",))
def of_dense(work: Work, dense: nn.Module, data: Data) -> Tensor:
    work.reporter.stage(f"measuring quality on {len(data.test)} held-out images")
    return predict(dense, data.test)


@stage("judge_cut", after="judge", needs=("slim", "data"), makes=("outputs.pruned",))
def of_cut(work: Work, slim: nn.Module, data: Data) -> Tensor:
    return outputs_of(slim, data)


@stage(
    "judge_recovered",
    after="recover",
    needs=("slim", "data"),
    makes=("outputs.recovered",),
    when=lambda recipe: bool(recipe.recover),
    sound_only=True,
)
def of_recovered(work: Work, slim: nn.Module, data: Data) -> Tensor:
    return outputs_of(slim, data)


@stage("judge_final", after="finetune", needs=("slim", "data"), makes=("outputs.final",))
def of_final(work: Work, slim: nn.Module, data: Data) -> Tensor:
    return outputs_of(slim, data)


def outputs_of(slim: nn.Module, data: Data) -> torch.Tensor:
    """Raises GateError for a network whose shapes do not fit."""
    try:
        return predict(slim, data.test)
    except (RuntimeError, ValueError, IndexError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GateError(f"the slim network does not run, so no slim artefact was kept: {detail}") from error
