"""The sources that come with the package. `MODEL_SOURCES` imports every module here, so that it registers itself.

None of them imports torch before it builds, so that a recipe can be read without it.
"""

from .code import CodeSpec
from .saved_run import RunSpec
from .timm import TimmSpec

__all__ = ["CodeSpec", "RunSpec", "TimmSpec"]
