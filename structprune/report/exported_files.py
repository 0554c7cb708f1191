"""What a report says of the formats that the slim network was also written in, beside ONNX."""

from __future__ import annotations

from pydantic import Field

from ..json_records import JsonRecord
from ..verify.gate_records import Comparison


class ExportedFormat(JsonRecord):
    """A format that the recipe asked for by `export.formats`."""

    format: str = Field(description="its name")
    files: dict[str, int] = Field(description="the bytes of each file; empty where it is not handed out")
    comparison: Comparison | None = Field(description="slim and the files; `null` where it could not be written")
    reason: str = Field(default="", description="why it is not handed out; empty where it is")

    def row(self) -> tuple[str, str, str, str]:
        """(what, dense, slim, change) for the table of a run."""
        if self.reason or self.comparison is None:
            return f"{self.format} file", "", "none", self.reason
        size, difference = sum(self.files.values()), self.comparison.max_rel
        shown = f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        return f"{self.format} file", "", shown, f"differs from slim by {difference:.1e}"
