"""Fonts from Debian's packages: those with letters are kept, beside what says whose they are."""

from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile

import matplotlib
import pytest

from structprune.errors import StructPruneError
from structprune.suites import debian_packages, fonts

SHIPPED = Path(matplotlib.get_data_path(), "fonts", "ttf")


def test_where_there_is_no_apt_get_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(debian_packages, "which", lambda name: None)
    with pytest.raises(StructPruneError, match=r"apt-get is not installed.*data\.fonts"):
        fonts.fetch("fonts-lato", tmp_path)


def test_fonts_with_letters_are_kept(tmp_path, monkeypatch):
    content = tmp_path / "content" / "usr" / "share"
    (content / "doc" / "fonts-some").mkdir(parents=True)
    (content / "doc" / "fonts-some" / "copyright").write_text("OFL")
    (content / "fonts").mkdir()
    for name in ("cmr10.ttf", "STIXSizOneSymReg.ttf"):  # letters, and symbols
        copyfile(SHIPPED / name, content / "fonts" / name)
    copyfile(SHIPPED / "cmr10.ttf", content / "fonts" / "A-Keyboard.ttf")
    (content / "fonts" / "link.ttf").symlink_to(content / "fonts" / "cmr10.ttf")
    (content / "fonts" / "broken.ttf").write_bytes(b"no font")

    @contextmanager
    def unpacked(package, instead):
        yield tmp_path / "content"

    monkeypatch.setattr(fonts, "extracted", unpacked)
    assert fonts.fetch("fonts-some", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cmr10.ttf", "fonts-some.copyright.txt"]
    assert (tmp_path / "out" / "fonts-some.copyright.txt").read_text() == "OFL"


def test_packages_are_named_once():
    assert len(set(fonts.PACKAGES)) == len(fonts.PACKAGES) > 40
    assert all(name.startswith("fonts-") and not name.endswith("-") for name in fonts.PACKAGES)
