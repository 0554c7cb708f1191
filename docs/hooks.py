"""MkDocs puts what `structprune.generated_documents` writes in place of `<!-- made of the code: NAME -->`."""

import re

from structprune import generated_documents

MARK = re.compile(r"^<!-- made of the code: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """The text of a page, with its marks filled in."""
    return MARK.sub(lambda mark: getattr(generated_documents, mark.group(1))(), markdown)
