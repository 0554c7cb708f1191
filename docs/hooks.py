"""What MkDocs does on the way: a line `<!-- made of the code: NAME -->` becomes what `structprune.reference` makes."""

import re

from structprune import reference

MARK = re.compile(r"^<!-- made of the code: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """The text of a page, with its marks filled in."""
    return MARK.sub(lambda mark: getattr(reference, mark.group(1))(), markdown)
