"""What is held out stays out, and classes keep their numbers, in whatever way data comes."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from structprune.data import images, load_data
from structprune.data.folder import FolderSpec
from structprune.data.identity import data_digest
from structprune.data.images import ImagesSpec
from structprune.data.loading import loader_of
from structprune.data.preprocessing import preprocessing
from structprune.data.spec import PreprocessingKeys
from structprune.data.timm import TimmSpec
from structprune.data.user_function import OwnDataSpec
from structprune.errors import RecipeError
from tests.data.test_folder import net
from tests.image_folders import write_digits

KEYS = {"image_size": 8, "augment": None}


def timm(root, **keys):
    return TimmSpec(source="timm", root=str(root), **{"name": "", **KEYS, **keys})


def grey(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)


def test_a_held_out_image_never_stands_in_for_a_broken_one(tmp_path):
    for index in range(20):
        grey(tmp_path / "ab"[index % 2] / f"{index:02}.png", 10 * index)
    spec = timm(tmp_path, test_split=None, max_unreadable=0.5, mean=[0.0], std=[1.0])
    whole = load_data(spec, net(2), 0)
    for name in [path for path in whole.train.paths if path.parent.name == "a"][:3]:
        name.write_bytes(name.read_bytes()[:45])
    data = load_data(spec, net(2), 0)

    def levels(samples):
        return {round(255 * float(image.mean())) for image, _ in samples}

    assert [len(data.train), len(data.test)] == [16, 4]
    held_out = levels(data.test)
    assert not held_out & levels(data.train)
    assert len(data.skipped) == 3


def test_broken_images_of_timms_count_and_are_named(tmp_path):
    paths = write_digits(tmp_path, each=8)
    paths[0].write_bytes(paths[0].read_bytes()[:60])

    def read():
        data = load_data(timm(tmp_path, test_split=None, max_unreadable=0.0), net(), 0)
        return [list(loader_of(part, 4)) for part in (data.train, data.test)]

    with pytest.raises(RecipeError, match=r"images can't be read \(.*\), and data.max_unreadable=0 allows 0"):
        read()


def test_what_timm_holds_out_keeps_each_class_share(tmp_path):
    write_digits(tmp_path, each=10)
    data = load_data(timm(tmp_path, test_split=None), net(), 0)
    assert sorted(label for _, label in data.test) == [0, 0, 1, 1, 2, 2]


def test_classes_of_timms_splits_have_the_same_numbers(tmp_path):
    write_digits(tmp_path / "train", each=6)
    write_digits(tmp_path / "val", each=3, start=30, classes=("1", "2"))
    for name in ("", "torch/image_folder"):
        data = load_data(timm(tmp_path, name=name), net(), 0)
        assert sorted(label for _, label in data.test) == [1, 1, 1, 2, 2, 2]
        assert data.classes == 3
    write_digits(tmp_path / "val", each=3, start=30, classes=("7",))
    with pytest.raises(RecipeError, match="validation has a class 7, which train lacks"):
        load_data(timm(tmp_path), net(), 0)


def test_a_network_of_other_outputs_than_timms_classes_is_refused(tmp_path):
    write_digits(tmp_path / "train", each=6)
    write_digits(tmp_path / "val", each=3, start=30)
    with pytest.raises(RecipeError, match="3 classes and the network scores 5"):
        load_data(timm(tmp_path), net(5), 0)


def test_names_that_are_numbered_alike_have_one_order(tmp_path):
    for name in ("1", "01", "001", "0001"):
        grey(tmp_path / name / "x.png", 9)
        grey(tmp_path / name / "y.png", 9)
    data = load_data(FolderSpec(source="folder", path=str(tmp_path), held_out=0.5, **KEYS), net(4), 0)
    assert "numbered in this order: 0001, 001, 01, 1" in data.notes[-1]


def test_a_file_under_two_names_is_one(tmp_path):
    write_digits(tmp_path / "train", each=4)
    (tmp_path / "val" / "0").mkdir(parents=True)
    first = sorted((tmp_path / "train" / "0").iterdir())[0]
    os.link(first, tmp_path / "val" / "0" / "other.png")
    with pytest.raises(RecipeError, match="keep held-out files in one split only"):
        load_data(FolderSpec(source="folder", path=str(tmp_path), **KEYS), net(), 0)


def test_the_crop_of_a_model_is_its_own():
    model = net(channels=3)
    model.pretrained_cfg = {"input_size": (3, 8, 8), "crop_mode": "squash", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    image = Image.fromarray(np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 20, 0).repeat(3, 2))
    pixels = preprocessing(model, PreprocessingKeys(crop_pct=1.0)).transform()(image)
    assert float(pixels.max() - pixels.min()) > 0.85  # from edge to edge; a crop of the middle half has 0.5


OWN = """
import torch
from torch.utils.data import Subset, TensorDataset

whole = TensorDataset(torch.arange(40.0)[:, None], torch.arange(40) % 3)

def overlap(): return {"train": Subset(whole, range(0, 30)), "test": Subset(whole, range(28, 40))}
def nested(): return {"train": whole, "test": Subset(Subset(whole, range(10, 40)), range(5))}
def apart(): return {"train": Subset(whole, range(0, 30)), "test": Subset(whole, range(30, 40))}
def twice():
    train = Subset(whole, range(0, 30))
    return {"train": train, "calibration": train, "test": Subset(whole, range(30, 40))}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own_parts_of_tests.py"
    path.write_text(OWN)
    return lambda name, **keys: OwnDataSpec(source=f"{path}:{name}", **keys)


def test_parts_of_one_dataset_may_not_overlap(own):
    for name, count in (("overlap", 2), ("nested", 5)):
        with pytest.raises(RecipeError, match=f"{count} samples of test are in train too"):
            load_data(own(name), net(), 0)
    assert len(load_data(own("apart"), net(), 0).test) == 10


def test_what_is_chosen_by_does_not_calibrate(own):
    data = load_data(own("twice", calibration={"images": 27}), net(), 0, choosing=True)
    held = {float(x) for x, _ in data.validation}
    assert len(held) == 3
    assert not held & {float(x) for batch in data.calibration for x in batch.inputs.args[0]}


def test_labels_that_are_not_wanted_are_not_there(own):
    data = load_data(own("apart", labels=False, calibration={"images": 16}), net(), 0)
    assert [batch.labels for batch in data.calibration] == [None]


def test_the_two_views_of_one_scene_are_on_one_side(monkeypatch):
    """Of the motorcycle that ships with skimage."""
    used = []
    monkeypatch.setattr(
        images, "calibration_crops", lambda files, *_: used.append({path.name for path in files}) or torch.ones(2, 3)
    )
    monkeypatch.setattr(images, "split_for_choices", lambda files, seed: (files[:2], files[2:]))
    spec = ImagesSpec(source="images", crops=1, calibration={"images": 40})
    for choosing in (False, True):
        load_data(spec, net(channels=3), 0, choosing=choosing)
    assert used[0] - used[1] == {"motorcycle_left.png", "motorcycle_right.png"}


def test_images_that_are_broken_or_hidden(tmp_path):
    for index in range(4):
        grey(tmp_path / f"{index}.png", 50 * index)
    (tmp_path / ".thumb.png").write_bytes(b"none")
    spec = ImagesSpec(source="images", path=str(tmp_path), crops=4)
    assert len(load_data(spec, net(channels=3), 0).test) == 4
    whole = (tmp_path / "1.png").read_bytes()
    for broken in (b"none", whole[:30], whole[:45], whole.replace(b"IHDR", b"IHDX")):
        (tmp_path / "1.png").write_bytes(broken)
        with pytest.raises(RecipeError, match=r"1\.png is not an image that can be read"):
            load_data(spec, net(channels=3), 0)


def test_subsets_of_files_say_what_was_skipped(tmp_path):
    paths = write_digits(tmp_path, each=8)
    data = load_data(timm(tmp_path, test_split=None, max_unreadable=0.5), net(), 0)
    data.train.paths[0].write_bytes(b"")
    list(loader_of(data.train, 4))
    assert data.skipped == [str(data.train.paths[0])]
    assert len(paths) == 24


def test_images_of_16_bits_keep_their_greys(tmp_path):
    greys = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    for index in range(4):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        Image.fromarray(greys).save(tmp_path / "ab"[index % 2] / f"{index}.png")
    keys = {"mean": [0.0], "std": [1.0], "crop_pct": 1.0, "interpolation": "nearest", **KEYS}
    folder = load_data(FolderSpec(source="folder", path=str(tmp_path), held_out=0.5, **keys), net(2), 0)
    named = load_data(timm(tmp_path, test_split=None, held_out=0.5, **keys), net(2), 0)
    for data in (folder, named):
        assert torch.allclose(data.test[0][0], torch.from_numpy(greys / 65535).float()[None], atol=1 / 200)
    crops = load_data(ImagesSpec(source="images", path=str(tmp_path), crops=4), net(channels=3), 0).test.tensors[0]
    assert float(crops.std()) > 0.2
    assert float((crops >= crops.max() - 1e-6).float().mean()) < 0.5


def test_a_part_of_another_name_is_said(tmp_path):
    path = tmp_path / "own_misspelt_of_tests.py"
    path.write_text(OWN + "\ndef misspelt(): return {**apart(), 'vaildation': whole}\n")
    with pytest.raises(RecipeError, match="returns unknown part 'vaildation': did you mean validation"):
        load_data(OwnDataSpec(source=f"{path}:misspelt"), net(), 0)


class Odd(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise ValueError(f"sample {index} is odd")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_dataset_raises_in_a_worker_is_said(workers):
    with pytest.raises(RecipeError, match="the data can't be read: ValueError: sample 0 is odd"):
        list(loader_of(Odd(), 2, workers=workers))


@pytest.mark.thorough
def test_data_of_a_module_is_other_data_when_the_module_changes(tmp_path, monkeypatch):
    path = tmp_path / "own_module_of_tests.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = OwnDataSpec(source="own_module_of_tests:apart")
    before = data_digest(load_data(spec, net(), 0))
    assert before == data_digest(load_data(spec, net(), 0))
    path.write_text(OWN + "# as if it read other files\n")
    assert before != data_digest(load_data(spec, net(), 0))
