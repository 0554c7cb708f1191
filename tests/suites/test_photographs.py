"""Photographs from packages of wallpapers: one of each scene, made smaller, none that shows nothing."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from structprune.errors import StructPruneError
from structprune.suites import debian_packages, photographs
from structprune.suites.photographs import cut_out, one_of_each_scene, pasted, scenes, smaller


def picture(path, size, flat=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pixels = np.full((*size, 3), 90) if flat else rng.integers(0, 255, (*size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_of_each_scene_the_largest_picture_is_taken(tmp_path):
    large = picture(tmp_path / "Path of Sand" / "contents" / "images" / "300x200.png", (20, 30))
    others = [
        picture(tmp_path / "Path of Sand" / "contents" / "images_dark" / "30x20.png", (10, 10)),
        picture(tmp_path / "Path of Sand" / "contents" / "screenshot.png", (60, 60)),
        picture(tmp_path / "lake-l.jpg", (8, 8)),
    ]
    dark = picture(tmp_path / "lake-d.jpg", (30, 30))
    (tmp_path / "readme.txt").write_text("no picture")
    files = [large, dark, *others, tmp_path / "readme.txt"]
    assert [*one_of_each_scene(files)] == [("Path-of-Sand", large), ("lake", dark)]


def test_pictures_are_made_smaller_and_flat_or_broken_ones_left_out(tmp_path):
    assert smaller(picture(tmp_path / "a.png", (1000, 2000))).size == (1536, 768)
    assert smaller(picture(tmp_path / "b.png", (200, 150))).size == (150, 200)
    assert smaller(picture(tmp_path / "icon.png", (100, 200))) is None
    assert smaller(picture(tmp_path / "c.png", (150, 150), flat=True)) is None
    (tmp_path / "d.png").write_bytes(b"no picture")
    assert smaller(tmp_path / "d.png") is None


def test_pictures_in_a_resource_file_are_found_and_other_files_left_out(tmp_path):
    images = [picture(tmp_path / name, size) for name, size in (("a.webp", (130, 140)), ("b.jpg", (150, 160)))]
    resources = tmp_path / "explore_animals.rcc"
    resources.write_bytes(b"qres\0\0" + b"names".join(path.read_bytes() for path in images) + b"and more")
    drawing = tmp_path / "lang.rcc"
    drawing.write_bytes(images[0].read_bytes())
    found = dict(scenes([resources, drawing, *images], ["*/explore_*.rcc"]))
    assert {name: smaller(file).size for name, file in found.items()} == {
        "explore-animals-0": (140, 130),
        "explore-animals-1": (160, 150),
    }
    assert all(isinstance(file, BytesIO) for file in found.values())


def test_where_there_is_no_apt_get_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(debian_packages, "which", lambda name: None)
    with pytest.raises(StructPruneError, match=r"apt-get is not installed.*data\.calibration\.path"):
        photographs.fetch("ukui-wallpapers", tmp_path)


def test_things_that_are_cut_out_are_put_onto_photographs(tmp_path):
    pixels = np.zeros((300, 400, 4), np.uint8)
    pixels[40:200, 100:340] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "ball.png")
    thing = cut_out(tmp_path / "ball.png")
    assert thing.size == (240, 160)
    assert cut_out(picture(tmp_path / "whole.png", (200, 200))) is None
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert cut_out(tmp_path / "broken.png") is None
    for seed in range(20):
        made = np.asarray(pasted(thing, Image.new("RGB", (300, 200), (0, 0, 255)), np.random.default_rng(seed)))
        red = (made == (255, 0, 0)).all(-1)
        assert made.shape == (200, 300, 3)
        assert 0.4 * 200 - 2 <= red.any(0).sum() <= 0.9 * 200 + 2
        assert red.sum() == pytest.approx(red.any(0).sum() * red.any(1).sum(), rel=0.05)  # one block
        assert (made[~red] == (0, 0, 255)).all(-1).mean() > 0.9


def test_drawings_among_photographs_are_left_out(tmp_path):
    files = [picture(tmp_path / "stamps" / "animals" / name, (130, 130)) for name in ("cat.png", "cartoon/dog.png")]
    assert [name for name, _ in scenes(files, ["*/stamps/animals/*"])] == ["cat"]
