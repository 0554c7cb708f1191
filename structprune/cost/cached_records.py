"""What each kind of file in the cache holds; their JSON schema is docs/cache.schema.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..graph.layers import KINDS
from .cache import Entry
from .probes import Timings

Kind = Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
Multiple = Annotated[int, Field(ge=1)]
PossibleMultiples = dict[Kind, list[Multiple]]  # of each kind of layer those that timings allow: one where they agree


@dataclass(frozen=True)
class Standard:
    """Multiples, and what is to be said of them."""

    steps: Annotated[
        dict[Kind, Multiple], Field(description="channels between which nothing is gained, by kind of layer")
    ]
    notes: Annotated[tuple[str, ...], Field(description="what a plan by these multiples says of them")] = ()


class ProbesEntry(Entry[Timings]):
    """What slim networks of some widths took, kernel by kernel."""

    kind = "probes"


class MultiplesEntry(Entry[PossibleMultiples]):
    """The multiples of each kind of layer."""

    kind = "steps"


class StandardEntry(Entry[Standard]):
    """Multiples that timings did not agree on, kept for the day."""

    kind = "steps-today"


class DenseEntry(Entry[Annotated[float, Field(gt=0)]]):
    """The milliseconds of a dense network."""

    kind = "dense"


CacheEntry = ProbesEntry | MultiplesEntry | StandardEntry | DenseEntry
