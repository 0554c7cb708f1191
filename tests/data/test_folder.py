"""Folders of images: split by file and class, prepared as the model wants, broken files named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from structprune.data import Data, load_data
from structprune.data.folder import FolderSpec
from structprune.data.loading import loader_of
from structprune.errors import RecipeError
from structprune.quality_judge import Judge
from structprune.tasks.building import make_task
from tests.image_folders import write_digits


def net(classes=3, channels=1):
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    model.num_classes = classes
    return model.eval()


def spec(path, **keys):
    return FolderSpec(**{"source": "folder", "path": str(path), "image_size": 8, "augment": None, **keys})


def files(part):
    while not hasattr(part, "paths"):
        part = part.dataset
    return {path.resolve() for path in part.paths}


def test_a_split_of_its_own_is_seeded_and_keeps_each_class_share(tmp_path):
    write_digits(tmp_path, each=10)
    data = load_data(spec(tmp_path, held_out=0.3), net(), seed=0, choosing=True)
    assert data.labelled
    assert data.classes == 3
    for part, each in ((data.test, 3), (data.validation, 1), (data.train, 6)):
        assert np.bincount(part.labels).tolist() == [each] * 3
    again = load_data(spec(tmp_path, held_out=0.3), net(), seed=0, choosing=True)
    other = load_data(spec(tmp_path, held_out=0.3), net(), seed=1, choosing=True)
    assert files(data.test) == files(again.test) != files(other.test)
    assert files(data.validation) == files(again.validation)


@pytest.mark.parametrize("given", [(), ("val",), ("test",), ("validation", "test")])
def test_what_is_held_out_is_neither_trained_nor_calibrated_on_nor_chosen_by(tmp_path, given):
    place = tmp_path / "train" if given else tmp_path
    write_digits(place, each=9)
    for i, name in enumerate(given):
        write_digits(tmp_path / name, each=3, start=20 + 10 * i)
    data = load_data(spec(tmp_path, calibration={"images": 8}), net(), seed=0, choosing=True)
    parts = [files(part) for part in (data.train, data.validation, data.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    if given:
        named = "test" if "test" in given else given[0]
        assert all(path.parent.parent.name == named for path in parts[2])
    if len(given) == 2:
        assert all(path.parent.parent.name == "validation" for path in parts[1])
    trained = {image.numpy().tobytes(): label for image, label in data.train}
    assert sum(len(batch.labels) for batch in data.calibration) == 8
    for batch in data.calibration:
        for image, label in zip(batch.inputs.args[0], batch.labels, strict=True):
            assert trained[image.numpy().tobytes()] == label
    assert all(image.numpy().tobytes() in trained for image in data.example)
    assert load_data(spec(tmp_path), net(), seed=0).validation is None  # nothing to choose, and nothing is taken away


def test_images_are_prepared_as_the_model_or_the_recipe_says(tmp_path):
    (path, *_) = write_digits(tmp_path, each=4, classes=("0", "1"))
    given = {"image_size": [8, 8], "mean": [0.25], "std": [0.5], "crop_pct": 1.0, "interpolation": "nearest"}
    data = load_data(spec(tmp_path, **given), net(2), seed=0)
    image, label = next(
        item for part in (data.train, data.test) for i, item in enumerate(part) if part.paths[i] == path
    )
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy())[None] / 255
    torch.testing.assert_close(image, (pixels - 0.25) / 0.5)
    assert label == 0
    assert data.notes[0] == "2 classes, numbered in this order: 0, 1"
    coloured = load_data(FolderSpec(source="folder", path=str(tmp_path)), net(2, channels=3), seed=0)
    assert coloured.example.shape == (4, 3, 224, 224)
    assert "Sequential does not say what images it wants: image_size, mean, std are taken" in coloured.notes[0]
    assert "(3×224×224, ImageNet's mean and std): set data.image_size, data.mean, data.std if" in coloured.notes[0]


def test_training_images_are_augmented_and_no_others(tmp_path):
    write_digits(tmp_path, each=8)
    data = load_data(spec(tmp_path, augment={"hflip": 0.0, "scale": [0.3, 0.5]}), net(), seed=0)
    torch.manual_seed(0)
    assert not torch.equal(data.train[0][0], data.train[0][0])
    assert torch.equal(data.test[0][0], data.test[0][0])


def test_a_loader_with_workers_gives_the_same(tmp_path):
    write_digits(tmp_path, each=8)
    data = load_data(spec(tmp_path, held_out=0.5), net(), seed=0)
    alone, beside = ([x for x, _ in loader_of(data.test, 5, workers=workers)] for workers in (0, 2))
    assert [len(x) for x in alone] == [5, 5, 2]
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_one_unreadable_file_is_left_out_with_a_note(tmp_path):
    write_digits(tmp_path, each=20)
    (tmp_path / "0" / "no.png").write_bytes(b"no image")
    data = load_data(spec(tmp_path, max_unreadable=0.02), net(), seed=0)
    assert any("left out as unreadable" in note and "no.png" in note for note in data.notes)
    assert len(data.train) + len(data.test) == 60
    with pytest.raises(RecipeError, match=r"1 of 61 images can't be read \(.*no\.png\), and .*=0\.01 allows 0"):
        load_data(spec(tmp_path), net(), seed=0)


def test_a_file_that_begins_as_an_image_is_met_where_it_is_read(tmp_path):
    write_digits(tmp_path / "train", each=4)
    paths = write_digits(tmp_path / "val", each=4, start=30)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(paths[0])
    paths[0].write_bytes(paths[0].read_bytes()[:900])  # cut off: its header is sound
    for workers in (0, 1):
        data = load_data(spec(tmp_path, max_unreadable=0.1, workers=workers), net(), seed=0)
        quality = Judge(make_task(), data.test, net(), workers=workers)(net())
        assert quality.n == 11
        assert data.skipped == [str(paths[0])]
        strict = load_data(spec(tmp_path, workers=workers), net(), seed=0)
        with pytest.raises(RecipeError, match=rf"1 of 12 images can't be read \({paths[0]}\)"):
            Judge(make_task(), strict.test, net(), workers=workers)(net())


def test_in_training_the_next_image_stands_in_for_a_broken_one(tmp_path):
    paths = write_digits(tmp_path / "train", each=4)
    write_digits(tmp_path / "val", each=2, start=30)
    data = load_data(spec(tmp_path, max_unreadable=0.1), net(), seed=0)
    at = data.train.paths.index(paths[2])
    paths[2].write_bytes(b"gone")
    assert torch.equal(data.train[at][0], data.train[at + 1][0])
    assert data.skipped == [str(paths[2])]


@pytest.mark.parametrize("flat", [True, False])
def test_without_labels_any_folder_will_do(tmp_path, flat):
    paths = write_digits(tmp_path, each=6)
    if flat:
        for path in paths:
            path.rename(tmp_path / path.name)
    data = load_data(spec(tmp_path, labels=False, calibration={"images": 10}), net(), seed=0)
    assert not data.labelled
    assert isinstance(data, Data)
    assert len(data.test) == 4
    assert data.test[0].shape == (1, 8, 8)
    assert all(batch.labels is None for batch in data.calibration)
    quality = Judge(make_task(), data.test, net(), labelled=False).dense
    assert (quality.metric, quality.value, quality.n) == ("agreement", 1.0, 4)


def test_calibration_from_elsewhere(tmp_path):
    write_digits(tmp_path / "all", each=6)
    more = write_digits(tmp_path / "more", each=4, start=40)
    data = load_data(spec(tmp_path / "all", calibration={"images": 9, "path": str(tmp_path / "more")}), net(), seed=0)
    assert sum(batch.images for batch in data.calibration) == 9
    held = load_data(spec(tmp_path / "all"), net(), seed=0).test.paths[0]
    for given, message in (
        ({"files": [str(held), str(more[0])]}, "is in test and in calibration: keep held-out files in one split only"),
        ({"files": [str(more[0])]}, "images=9: data.calibration has 1 to take them from"),
        ({"files": ["none.png"]}, "there is no file none.png"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_data(spec(tmp_path / "all", calibration={"images": 9, **given}), net(), seed=0)


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (lambda p: None, {}, "there is no folder"),
        (lambda p: p.mkdir(), {}, r"holds no images \(\.bmp, \.jpeg"),
        (lambda p: write_digits(p, classes=("4",)), {}, "has one class, 4: give two or more, or set data.labels=false"),
        (
            lambda p: write_digits(p, classes=("4", "5")),
            {},
            "2 classes and the model 3: set model.kwargs",
        ),
        (lambda p: write_digits(p / "val"), {}, "has val and no train"),
        (lambda p: (write_digits(p / "train"), write_digits(p / "val", classes=("7",))), {}, "unknown class '7'"),
        (lambda p: write_digits(p)[0].rename(p / "x.png"), {}, r"x\.png lies in no folder of a class"),
        (lambda p: write_digits(p), {"calibration": {"images": 99}}, "images=99: .* has 15 to take them from"),
        (lambda p: write_digits(p), {"mean": [1, 2]}, "data.mean has 2 numbers and the model's images 1 channels"),
        (lambda p: (write_digits(p / "train"), (p / "val").symlink_to(p / "train")), {}, "is in train and in test"),
    ],
)
def test_what_can_t_be_used_is_said_in_one_line(tmp_path, make, keys, message):
    make(tmp_path / "pictures")
    with pytest.raises(RecipeError, match=message) as error:
        load_data(spec(tmp_path / "pictures", **keys), net(), seed=0)
    assert "\n" not in str(error.value)


def test_a_network_with_other_outputs_than_there_are_classes_is_refused(tmp_path):
    write_digits(tmp_path)
    model = net(7)
    del model.num_classes  # a module that does not say it
    with pytest.raises(RecipeError, match="the data has 3 classes and the network scores 7"):
        load_data(spec(tmp_path), model, seed=0)
    assert not load_data(spec(tmp_path, labels=False), model, seed=0).labelled
