"""What is written as JSON for others to read: records whose fields say what they mean.

A record is a frozen pydantic model. Its JSON schema is published in docs/, the tables on the site are made of the
descriptions of its fields, and a file is checked against it when it is read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import StoreError
from .messages import shown

Interval = tuple[float, float]


class JsonRecord(BaseModel):
    """A record of a JSON file. A later version may add fields: those that are not known here are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_data(self) -> dict[str, Any]:
        """The record as its file holds it.

        Returns:
            Plain data. A field that was not set is left out, as an earlier version has left it out.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def set_fields(self) -> dict[str, Any]:
        """The fields that were set, by name, as they are: for a record of a further class."""
        return {name: getattr(self, name) for name in self.model_fields_set}


Kind = TypeVar("Kind", bound=BaseModel)


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """The record in a file.

    Args:
        path: A JSON file.
        kind: The class of the record.

    Returns:
        The record, each of whose fields has been checked.

    Raises:
        StoreError: The file can't be read, is not JSON, has another schema, or lacks a field. The message names the
            place.
    """
    try:
        return kind.model_validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error}") from error
    except ValidationError as error:
        raise StoreError(f"{path} is damaged: {_first_mistake(error)}") from None


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    if not place:  # no JSON at all
        return first["msg"]
    return f"{place} is {shown(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
