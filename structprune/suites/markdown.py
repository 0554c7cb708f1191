"""Plain text in Markdown."""

from __future__ import annotations

import re


def escape(text: str) -> str:
    """Plain text for a cell or a line of Markdown."""
    return re.sub(r"([|*<>`\[\]\\])", r"\\\1", " ".join(text.split()))
