"""What Debian's packages hold, by apt-get; nothing is installed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copyfile, which

from ..errors import StructPruneError
from ..store import atomic_files
from .command_line import fail, note

CLIENTS = ("apt-get", "dpkg-deb")


@contextmanager
def extracted(package: str, instead: str) -> Iterator[Path]:
    """Downloads a package and unpacks it into a folder, which is gone afterwards.

    Args:
        package: Its name.
        instead: What to do where there is no apt-get.

    Yields:
        The folder.

    Raises:
        StructPruneError: The clients are not installed, or the package can't be had.
    """
    if missing := [client for client in CLIENTS if which(client) is None]:
        raise StructPruneError(f"{missing[0]} is not installed, which Debian and its kin have: elsewhere {instead}")
    with tempfile.TemporaryDirectory() as temporary:
        _run("apt-get", "download", "--quiet", package, at=temporary)
        (archive,) = Path(temporary).glob("*.deb")
        _run("dpkg-deb", "--extract", str(archive), "content", at=temporary)
        yield Path(temporary, "content")


def files_of(content: Path) -> list[Path]:
    """The files in a package's folder, without links."""
    return sorted(path for path in content.rglob("*") if path.is_file() and not path.is_symlink())


def keep_notice(content: Path, package: str, folder: Path) -> None:
    """Writes `PACKAGE.copyright.txt` into a folder: whose a package's files are, and under which licences."""
    for notice in content.glob("usr/share/doc/*/copyright"):
        atomic_files.write(folder / f"{package}.copyright.txt", partial(copyfile, notice))


def fetch_all(packages: Sequence[str], fetch: Callable[[str, Path], int], folder: Path, what: str) -> None:
    """Fetches packages for a command in tools/, says what each gave, and ends the process where one can't be had.

    Args:
        packages: Their names.
        fetch: From a package's name and the folder to how many files it gave.
        folder: Gets them.
        what: The files are, in the plural.
    """
    if not packages:
        fail("--packages names nothing")
    try:
        for package in packages:
            note(f"{package}: {fetch(package, folder)} {what}")
    except StructPruneError as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        note(f"interrupted: the {what} so far stay")
        raise SystemExit(130) from None


def _run(*command: str, at: str) -> None:
    try:
        subprocess.run(command, cwd=at, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.startswith("E:")]
        raise StructPruneError(f"{' '.join(command)}: {lines[-1] if lines else 'failed'}") from error
