"""Fonts of the user's own: which are taken, and that text is rendered in them."""

from pathlib import Path
from shutil import copyfile

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.subset import Subsetter
from fontTools.ttLib import TTFont
from PIL import ImageFont
from torch import nn

from structprune.data import load_data
from structprune.data.spec import TextLinesSpec
from structprune.errors import RecipeError
from structprune.text.fonts import fonts_in

SHIPPED = Path(matplotlib.get_data_path(), "fonts", "ttf")


def own_fonts(folder):
    """Three files that are left out, and two fonts in folders of their own."""
    (folder / "inside").mkdir(parents=True)
    copyfile(SHIPPED / "cmr10.ttf", folder / "inside" / "mine.TTF")
    copyfile(SHIPPED / "DejaVuSansMono.ttf", folder / "other.ttf")
    copyfile(SHIPPED / "STIXGeneral.ttf", folder / "STIXGeneral.ttf")  # which quality is measured in
    (folder / "broken.otf").write_bytes(b"no font")
    few = TTFont(SHIPPED / "DejaVuSans.ttf")
    subsetter = Subsetter()
    subsetter.populate(text="abc")
    subsetter.subset(few)
    few.save(folder / "few.ttf")
    return folder


def test_whole_fonts_are_taken_and_those_of_the_measurement_left_out(tmp_path):
    folder = own_fonts(tmp_path / "fonts")
    assert fonts_in(folder) == (str(folder / "inside" / "mine.TTF"), str(folder / "other.ttf"))


def test_a_folder_without_a_font_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.fonts: .*nowhere is not a folder"):
        fonts_in(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match=r"holds no fonts \(\.otf, \.ttf\)"):
        fonts_in(tmp_path)
    copyfile(SHIPPED / "cmss10.ttf", tmp_path / "cmss10.ttf")
    with pytest.raises(RecipeError, match=r"of the 1 fonts .* none has all letters"):
        fonts_in(tmp_path)


def drawn(fonts, workers=0):
    """What calibrates, what is trained on and what is measured on."""
    options = {"source": "text_lines", "width": 128, "lines": 4, "train_lines": 40, "workers": workers}
    spec = TextLinesSpec.model_validate({**options, "calibration": {"images": 40}, "fonts": fonts})
    data = load_data(spec, nn.Conv2d(1, 1, 1), 0)
    torch.manual_seed(0)
    trained = torch.stack([data.train[i][0] for i in range(40)])
    assert data.workers == workers
    return data.calibration[0].inputs.args[0], trained, data.test.tensors[0]


def test_text_is_rendered_in_them_but_for_the_measurement(tmp_path, monkeypatch):
    used = []
    opened = ImageFont.truetype
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: used.append(path) or opened(path, size))
    shipped, own = drawn(None), drawn(str(own_fonts(tmp_path / "fonts")))
    assert {str(tmp_path / "fonts" / "inside" / "mine.TTF"), str(tmp_path / "fonts" / "other.ttf")} < set(used)
    assert torch.equal(shipped[2], own[2])
    assert not any(torch.equal(one, other) for one, other in zip(shipped[:2], own[:2], strict=True))


def test_text_to_train_on_is_other_text_each_time():
    first, again = drawn(None)[1], drawn(None, workers=1)[1]
    assert torch.equal(first, again)
    assert len({np.asarray(line).tobytes() for line in first}) == len(first)


def test_another_font_of_the_same_name_is_other_data(tmp_path):
    folder = own_fonts(tmp_path / "fonts")
    spec = TextLinesSpec.model_validate({"source": "text_lines", "width": 128, "lines": 1, "fonts": str(folder)})
    before = load_data(spec, nn.Conv2d(1, 1, 1), 0).identity
    copyfile(SHIPPED / "DejaVuSerif.ttf", folder / "other.ttf")
    assert load_data(spec, nn.Conv2d(1, 1, 1), 0).identity != before
