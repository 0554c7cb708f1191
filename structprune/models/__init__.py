"""Builds the model that a recipe or a command line names, in evaluation mode.

In go the fields of `model` in a recipe, or the text of a command line; out comes an `nn.Module`, or one line that says
what is wrong. Nothing here knows of data, graphs or plans. A source of models is one file in `sources/`.
"""

from typing import TYPE_CHECKING

from .. import lazy_imports
from .registry import MODEL_SOURCES, ModelSource, ModelSpec, model_source, parse_model
from .sources import CodeSpec, RunSpec, TimmSpec

if TYPE_CHECKING:
    from .building import build_model, check_finite, spec_from_text
    from .inputs import example_inputs, first_layer, inputs_of_onnx, resolve_model_data_config

__all__ = [
    "MODEL_SOURCES",
    "CodeSpec",
    "ModelSource",
    "ModelSpec",
    "RunSpec",
    "TimmSpec",
    "build_model",
    "check_finite",
    "example_inputs",
    "first_layer",
    "inputs_of_onnx",
    "model_source",
    "parse_model",
    "resolve_model_data_config",
    "spec_from_text",
]

_BUILDING = dict.fromkeys(("build_model", "check_finite", "spec_from_text"), "building")
_INPUTS = dict.fromkeys(("example_inputs", "first_layer", "inputs_of_onnx", "resolve_model_data_config"), "inputs")
__getattr__ = lazy_imports.names_of(__name__, {**_BUILDING, **_INPUTS})
