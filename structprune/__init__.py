"""structprune: structured filter pruning, proven against its plan and measured on the CPU."""

from ._compat import declare_torchvision_ops

declare_torchvision_ops()

from .bench import benchmark  # noqa: E402
from .criteria import criterion, score, sensitivity  # noqa: E402
from .export import export_onnx  # noqa: E402
from .graph import trace  # noqa: E402
from .plan import plan  # noqa: E402
from .records import Plan  # noqa: E402
from .recover import recover  # noqa: E402
from .run import run  # noqa: E402
from .store import load, save  # noqa: E402
from .surgery import prune  # noqa: E402
from .verify import verify  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "Plan",
    "benchmark",
    "criterion",
    "export_onnx",
    "load",
    "plan",
    "prune",
    "recover",
    "run",
    "save",
    "score",
    "sensitivity",
    "trace",
    "verify",
]
