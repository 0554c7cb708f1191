"""The sources that come with the package: every module here is imported, so that it registers itself.

None of them imports torch before it builds, so that a recipe can be read without it.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

from .code import CodeSpec  # noqa: E402
from .saved_run import RunSpec  # noqa: E402
from .timm import TimmSpec  # noqa: E402

__all__ = ["CodeSpec", "RunSpec", "TimmSpec"]
