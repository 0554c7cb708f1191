"""The blocks of Python in the pages, in order, and how far each goes."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?:<!-- (?P<slow>slow): \S.*? -->\n\n)?```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Code of a page. `slow` blocks stand under a comment that says why they take long."""

    page: Path
    code: str
    line: int
    slow: bool

    def run(self, names):
        """Runs it where `names` are known, and adds what it names; errors point into the page."""
        exec(compile("\n" * self.line + self.code, str(self.page), "exec"), names)


def blocks_of(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, found["code"], text[: found.start("code")].count("\n"), bool(found["slow"]))
        for found in BLOCK.finditer(text)
    ]
