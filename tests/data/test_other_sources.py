"""Data by a user's own function and by timm's names; what is chosen by is never what is measured on."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from structprune.calibration.rebatching import batches_from, one_batch, rebatched, thinned
from structprune.data import SOURCES, Data, DataSpec, Source, load_data
from structprune.data.digits import DigitsSpec
from structprune.data.folder import FolderSpec
from structprune.data.identity import data_digest
from structprune.data.images import ImagesSpec
from structprune.data.spec import CalibrationSpec
from structprune.data.timm import TimmSpec
from structprune.data.user_function import OwnDataSpec
from structprune.errors import RecipeError
from tests.data.test_folder import net
from tests.image_folders import write_digits

OWN = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

def rows(start, n=20):
    return torch.arange(start, start + n).float()[:, None], torch.arange(n) % 3

def load(n=20):
    return {"train": TensorDataset(*rows(0, n)), "test": TensorDataset(*rows(100))}

class Parts:
    def __init__(self):
        self.train, self.validation = TensorDataset(*rows(0)), TensorDataset(*rows(50))
        self.test, self.calibration = TensorDataset(*rows(100)), DataLoader(TensorDataset(*rows(200)), 7)

class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, index):
        return {"input_ids": torch.tensor([index, 1, 2]), "attention_mask": torch.ones(3), "labels": index % 2}

class Stream(IterableDataset):
    def __iter__(self):
        return iter(rows(0))

class Nested(Items):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        label = item.pop("labels")
        return (item,), label

def texts(): return {"train": Items(), "test": Items()}
def nested(): return {"train": Nested(), "test": Nested()}
def same(): data = TensorDataset(*rows(0)); return {"train": data, "test": data}
def nothing(): return {"train": TensorDataset(*rows(0))}
def no_train(): return {"test": TensorDataset(*rows(0))}
def stream(): return {"train": Stream(), "test": TensorDataset(*rows(0))}
def once(): return {"train": TensorDataset(*rows(0)), "test": iter([1, 2])}
def empty(): return {"train": TensorDataset(*rows(0)), "test": TensorDataset(*rows(0, 0))}
def fails(): return {}["such a key"]
number = 3
"""


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own_data_of_tests.py"
    path.write_text(OWN)

    def spec(name, **keys):
        return OwnDataSpec(source=f"{path}:{name}", **keys)

    return spec


def values(dataset):
    return {float(item[0]) for item in dataset}


def test_a_function_returns_datasets_and_takes_arguments(own):
    told = []
    data = load_data(own("load", kwargs={"n": 30}, calibration={"images": 18}), net(), seed=0, tell=told.append)
    assert [line.split("/")[-1] for line in told] == ["own_data_of_tests.py, as the module own_data_of_tests"]
    assert told[0].startswith("runs code of ")
    assert data.labelled
    assert data.example.shape == (4, 1)
    assert (len(data.train), len(data.test), data.validation) == (30, 20, None)
    assert [batch.images for batch in data.calibration] == [16, 2]
    for batch in data.calibration:
        assert torch.equal(batch.inputs.args[0].flatten().long() % 3, batch.labels)
    chosen = load_data(own("load"), net(), seed=0, choosing=True)
    assert len(chosen.validation) == 2
    assert values(chosen.train) | values(chosen.validation) == set(range(20))
    assert any("2 of 20 samples of train are kept for choices" in note for note in chosen.notes)


def test_an_object_may_bring_its_own_splits_and_loaders(own):
    data = load_data(own("Parts", calibration={"images": 10}), net(), seed=0, choosing=True)
    assert values(data.validation) == set(range(50, 70))
    assert torch.cat([b.inputs.args[0] for b in data.calibration]).flatten().tolist() == list(range(200, 210))
    assert data.example.flatten().tolist() == [200, 201, 202, 203]


def test_dicts_are_keyword_arguments(own):
    data = load_data(own("texts", calibration={"images": 6}), net(), seed=0)
    assert set(data.example.kwargs) == {"input_ids", "attention_mask"}
    assert data.one.kwargs["input_ids"].shape == (1, 3)
    (batch,) = data.calibration
    assert torch.equal(batch.labels, batch.inputs.kwargs["input_ids"][:, 0] % 2)


def test_a_dict_in_a_tuple_is_one_argument(own):
    data = load_data(own("nested", calibration={"images": 6}), net(), seed=0)
    (argument,) = data.example.args
    assert (set(argument), data.example.kwargs) == ({"input_ids", "attention_mask"}, {})
    assert data.one.args[0]["input_ids"].shape == (1, 3)
    (batch,) = data.calibration
    assert torch.equal(batch.labels, batch.inputs.args[0]["input_ids"][:, 0] % 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("same", "train and test are the same"),
        ("nothing", "returns a dict without test"),
        ("no_train", "returns neither train nor calibration"),
        ("stream", "train is a Stream: give a torch Dataset with a length"),
        ("once", "test can be read only once"),
        ("empty", "test is empty"),
        ("fails", "failed: KeyError: 'such a key'"),
        ("number", "is 3: name a function or a class"),
    ],
)
def test_functions_that_return_no_data(own, name, message):
    with pytest.raises(RecipeError, match=message) as error:
        load_data(own(name), net(), seed=0)
    assert "\n" not in str(error.value)


def test_files_of_code_that_are_not_there_or_broken(own, tmp_path):
    with pytest.raises(RecipeError, match=r"unknown name 'lod': did you mean load"):
        load_data(own("lod"), net(), seed=0)
    with pytest.raises(ValueError, match=r"there is no file no\.py"):
        OwnDataSpec(source="no.py:load")
    (tmp_path / "broken_data.py").write_text("import no_such_module_anywhere\ndef load(): pass\n")
    with pytest.raises(RecipeError, match=r"broken_data\.py can't be imported: ModuleNotFoundError: No module named"):
        load_data(OwnDataSpec(source=f"{tmp_path / 'broken_data.py'}:load"), net(), seed=0)


def test_timm_reads_a_folder_by_its_split_and_by_torchvision(tmp_path):
    write_digits(tmp_path / "train", each=6)
    write_digits(tmp_path / "val", each=3, start=30)
    keys = {"image_size": 8, "augment": None, "calibration": {"images": 5}}
    for name in ("", "torch/image_folder"):
        data = load_data(TimmSpec(source="timm", name=name, root=str(tmp_path), **keys), net(), seed=0, choosing=True)
        assert (len(data.train), len(data.validation), len(data.test)) == (15, 3, 9)
        assert data.train[0][0].shape == (1, 8, 8)
        held = [set(part.paths) for part in (data.train, data.validation)]
        assert not held[0] & held[1]
    apart = {**keys, "name": "", "root": str(tmp_path / "train"), "test_split": None}
    data = load_data(TimmSpec(source="timm", **apart), net(), seed=0)
    assert (len(data.train), len(data.test)) == (15, 3)
    with pytest.raises(RecipeError, match=r"splits train and validation of .* share files: set data\.test_split=null"):
        load_data(TimmSpec(source="timm", **{**apart, "test_split": "validation"}), net(), seed=0)


def test_what_timm_can_t_open(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    for name in ("torch/cifar1", "torch/cifar10", "hfds/no/such"):
        with pytest.raises(RecipeError, match=f"timm can't open {name} .*can its hub be reached") as error:
            load_data(TimmSpec(source="timm", name=name, root=str(tmp_path)), net(), seed=0)
        assert "\n" not in str(error.value)


def test_a_choice_takes_digits_from_training_and_none_from_testing():
    model = net(10)
    plain, choosing = (load_data(DigitsSpec(source="digits"), model, 0, choosing=c) for c in (False, True))
    assert torch.equal(plain.test.tensors[0], choosing.test.tensors[0])
    rows = [{x.numpy().tobytes() for x in d.tensors[0]} for d in (choosing.train, choosing.validation, choosing.test)]
    assert len(choosing.validation) in range(140, 148)
    assert len(choosing.train) + len(choosing.validation) == len(plain.train)
    assert sum(map(len, rows)) == len(set.union(*rows))


def test_a_choice_by_images_has_files_of_its_own(tmp_path):
    for i in range(8):
        Image.fromarray(np.full((40, 50, 3), 30 * i, np.uint8)).save(tmp_path / f"{i}.png")
    spec = ImagesSpec(source="images", path=str(tmp_path), crops=6, calibration={"images": 12})
    plain, data = (load_data(spec, net(channels=3), 0, choosing=choosing) for choosing in (False, True))
    assert plain.validation is None

    def levels(images):
        return {round(float(image[0, 0, 0]), 3) for image in images}

    crops = [levels(one_batch(data.calibration).inputs.args[0]), levels(data.validation.tensors[0])]
    crops += [levels(data.test.tensors[0]), levels(data.example)]
    assert crops[3] <= crops[0]
    assert sum(map(len, crops[:3])) == len(set.union(*crops[:3]))
    assert torch.equal(plain.test.tensors[0], data.test.tensors[0]) or crops[2] == levels(plain.test.tensors[0])


def test_batches_are_regrouped_without_loss():
    batches = batches_from(torch.arange(40.0)[:, None], torch.arange(40))
    assert [b.images for b in batches] == [16, 16, 8]
    assert torch.equal(one_batch(batches).labels, torch.arange(40))
    assert [b.images for b in rebatched(batches, 9, 25)] == [9, 9, 7]
    assert torch.cat([b.labels for b in thinned(batches, 3)]).tolist() == list(range(0, 40, 3))
    odd = [batches[0], *batches_from(torch.zeros(3, 2))]
    assert rebatched(odd, 2) == odd
    assert thinned(odd, 2) == odd[:1]


def test_the_digest_of_data_changes_when_the_data_does(own, tmp_path):
    paths = write_digits(tmp_path, each=5)
    spec = FolderSpec(source="folder", path=str(tmp_path), image_size=8)

    def digest(given=spec, **options):
        return data_digest(load_data(given, net(), **{"seed": 0, **options}))

    whole = digest()
    assert whole == digest()
    others = {digest(seed=1), digest(choosing=True), digest(spec.model_copy(update={"augment": None}))}
    others.add(digest(spec.model_copy(update={"calibration": CalibrationSpec(images=4)})))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(paths[0])
    others.add(digest())
    assert len(others - {whole}) == 5
    texts = load_data(own("texts"), net(), 0)
    before = torch.random.get_rng_state()
    mine = data_digest(texts)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert mine == digest(own("texts")) != digest(own("load"))
    assert digest(own("load")) != digest(own("load", kwargs={"n": 21}))


def test_one_file_adds_a_source(tmp_path, monkeypatch):
    (tmp_path / "plugin_source.py").write_text(
        "from typing import Literal\nimport torch\nfrom torch.utils.data import TensorDataset\n"
        "from structprune.data import SOURCES, Data, DataSpec, Source\n"
        "class NoiseSpec(DataSpec):\n    source: Literal['noise']\n    size: int = 4\n"
        "def load(spec, request):\n"
        "    x = torch.randn(8, spec.size)\n    return Data(example=x[:2], test=TensorDataset(x[2:]))\n"
        "SOURCES.add(Source('noise', 'noise', NoiseSpec, load))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with SOURCES.restored():
        import plugin_source

        data = load_data(plugin_source.NoiseSpec(source="noise", size=5), net(), seed=0)
        assert isinstance(data, Data)
        assert data.example.shape == (2, 5)
        with pytest.raises(ValueError, match="a data source named 'noise' is registered already"):
            SOURCES.add(Source("noise", "", DataSpec, lambda spec, request: data))
    sys.modules.pop("plugin_source")
    assert "noise" not in SOURCES
