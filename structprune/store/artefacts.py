"""The store of what the stages of runs make, looked up by what it was made from.

An artefact is a folder `STAGE-DIGEST` in the store. It appears whole or not at all: its files are written into
`STAGE-DIGEST.part`, which keeps what an interrupted stage has written, and renamed once its manifest lists them all.
Each artefact has a lock, by which a second run waits for what a first one is making.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StoreError
from . import atomic_files

MANIFEST = "artefact.json"
SCHEMA = "structprune.artefact/1"
_LETTERS = 20  # of the digest, in a folder's name: two of a million artefacts are alike with a chance of 1e-12
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Key:
    """What an artefact is made from: the stage, its part of the recipe, its inputs' digests, the versions at work."""

    stage: str
    spec: Any
    inputs: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def digest(self) -> str:
        return digest_of({"stage": self.stage, "spec": self.spec, "inputs": self.inputs, "versions": self.versions})

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.digest[:_LETTERS]}"


@dataclass(frozen=True)
class Artefact:
    """A finished artefact: its folder, and the digest of its contents."""

    folder: Path
    digest: str


def digest_of(data: Any) -> str:
    """SHA-256 of plain data, in hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 of this package's own code: another version of it may make something else of the same recipe."""
    total = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        total.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    return total.hexdigest()


class Artefacts:
    """The store in a folder, which is created with the first artefact.

    Several runs, of this process or others, may use it at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: Key) -> Artefact | None:
        """The artefact, or None if it is not there or its files are no longer those that were written."""
        folder = self.root / key.name
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            entries = manifest["files"]
            if manifest["key"] != key.digest or any(_sha256(folder / n) != e["sha256"] for n, e in entries.items()):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
            return None
        return Artefact(folder, _contents(entries))

    def make(self, key: Key, writer: Callable[[Path], object], waiting: Callable[[], None] = lambda: None) -> Artefact:
        """Makes an artefact by `writer`, unless another run has made it meanwhile.

        Args:
            key: what it is made from.
            writer: writes the artefact's files into its argument, a folder that holds what an interrupted writer left
                there.
            waiting: called once if another run is making it now.

        Returns:
            The finished artefact.

        Raises:
            StoreError: the store can't be written.
        """
        with self._locked(key, waiting):
            if (artefact := self.find(key)) is not None:
                return artefact
            shutil.rmtree(self.root / key.name, ignore_errors=True)  # damaged
            part = self.root / f"{key.name}.part"
            part.mkdir(exist_ok=True)
            atomic_files.clear(part)
            writer(part)
            return self._finish(key, part)

    def _finish(self, key: Key, part: Path) -> Artefact:
        entries = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(part.iterdir())
            if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
        }
        manifest = {
            "schema": SCHEMA,
            "key": key.digest,
            "stage": key.stage,
            "spec": key.spec,
            "inputs": dict(key.inputs),
            "versions": dict(key.versions),
            "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "files": entries,
        }
        atomic_files.write_text(part / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")
        folder = self.root / key.name
        os.rename(part, folder)
        atomic_files.flush(self.root)
        return Artefact(folder, _contents(entries))

    @contextmanager
    def _locked(self, key: Key, waiting: Callable[[], None]) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / f"{key.name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise StoreError(f"{self.root}, where what runs make is kept, can't be written ({error})") from error
        try:
            yield
        finally:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is held: whoever waits for it sees that it is gone
            lock.release()


def _contents(entries: Mapping[str, Mapping[str, Any]]) -> str:
    return digest_of({name: entry["sha256"] for name, entry in entries.items()})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _by_blocks(stream)
        )


def _by_blocks(stream: Any) -> str:
    total = hashlib.sha256()
    while block := stream.read(1 << 20):
        total.update(block)
    return total.hexdigest()
