"""Images of one's own: formats, broken files, classes, and reading ahead of a training."""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastcnn
from fastcnn import Augment, Callback, InputWarning, Sequential, StopTraining
from fastcnn.augmentation import Mixup
from fastcnn.data.array_files import DatasetError
from fastcnn.data.image_sets import ImageSet, LazyImages, load_images
from fastcnn.data.pictures import PictureError, prepare
from fastcnn.data.read_ahead import parts_ahead
from fastcnn.layers import Conv2D, Dense, Flatten
from fastcnn.recipes.training import epochs_on_pictures, settings_for

SIZE = (8, 6)
ENDINGS = ("png", "jpg", "gif", "bmp", "webp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of seven pictures each, of all formats and of several sizes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for k, name in enumerate(("ant", "bee", "Öhr")):
        (root / name).mkdir()
        for i in range(7):
            shape = 20 + 3 * i, 31 + k, 3
            pixels = rng.integers(60 * k, 60 * k + 100, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.{ENDINGS[i % 5]}")
    (root / "ant" / "notes.txt").write_text("no picture")
    return root


def net() -> Sequential:
    layers = [Conv2D(3, 3, activation="relu"), Flatten(), Dense(3)]
    return Sequential(layers, (*SIZE, 3), seed=0, engine="im2col")


def same(some: Sequential, other: Sequential) -> bool:
    pairs = zip(some.get_weights(), other.get_weights(), strict=True)
    return all((mine == theirs).all() for mine, theirs in pairs)


def test_images_labels_and_classes(folder: Path) -> None:
    images = load_images(folder, SIZE)
    assert images.images.shape == (21, *SIZE, 3)
    assert images.labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert images.classes == ("ant", "bee", "Öhr")
    for row in (0, 8, 16):  # as a prediction prepares the same files
        preparation = fastcnn.Preparation(edges="crop")
        pixels = prepare(images.files[row], (*SIZE, 3), preparation).pixels
        assert (images.images[row] == pixels).all()
    assert load_images(folder, 5, "gray").images.shape == (21, 5, 5, 1)
    x, y = images
    assert x is images.images
    assert y is images.labels


def test_files_that_need_care(tmp_path: Path) -> None:
    """Orientation, palettes, alpha, 16 bits and CMYK."""
    place = tmp_path / "a"
    place.mkdir()
    half = np.zeros((8, 6, 3), np.uint8)
    half[:4] = 200  # light above
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(half)))
    exif = turned.getexif()
    exif[0x0112] = 6  # turned by 90°
    Image.fromarray(half).save(place / "0.png")
    turned.save(place / "1.png", exif=exif)
    Image.fromarray(half).quantize(4).save(place / "2.png")
    rgba = np.dstack([half, np.full((8, 6), 255, np.uint8)])
    rgba[4:, :, 3] = 0  # the lower half is transparent, and becomes white
    Image.fromarray(rgba).save(place / "3.png")
    Image.fromarray(half[..., 0].astype(np.uint16) * 257).save(place / "4.png")
    Image.fromarray(half).convert("CMYK").save(place / "5.jpg", quality=100)
    images = load_images(tmp_path, (8, 6)).images
    reference = np.asarray(images[0], np.int64)
    assert (reference == half).all()
    for row in (1, 2, 4):
        assert np.abs(images[row] - reference).max() <= 1, row
    assert (images[3][:4] == 200).all()
    assert (images[3][4:] == 255).all()
    assert np.abs(images[5][[0, 7]] - reference[[0, 7]]).max() < 30


def test_reading_leaves_the_filters_of_warnings_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters belong to the process, and threads that change them overtake each other."""
    filters = warnings.filters
    pillow_open = Image.open

    def checked_open(*arguments: object, **options: object) -> Image.Image:
        assert warnings.filters is filters
        return pillow_open(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", checked_open)
    assert not load_images(folder, SIZE).broken


def test_broken_files_are_told_together(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = (folder / "ant" / "0.png").read_bytes()
    (tmp_path / "a" / "good.png").write_bytes(whole)
    for ending in ENDINGS:
        source = next((folder / "ant").glob(f"*.{ending}")).read_bytes()
        (tmp_path / "a" / f"cut.{ending}").write_bytes(source[: len(source) // 3])
    (tmp_path / "b" / "other.png").write_bytes(b"\0" * 50)
    bomb = bytearray((folder / "ant" / "3.bmp").read_bytes())
    bomb[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    (tmp_path / "b" / "bomb.bmp").write_bytes(bomb)
    for lazy in (False, True):
        with pytest.warns(InputWarning, match="7 of 8 pictures cannot be read") as record:
            images = load_images(tmp_path, SIZE, lazy=lazy)
        assert len(record) == 1
        assert len(images) == 1
        assert len(images.broken) == 7
        assert images.classes == ("a", "b")
        assert (np.asarray(images.images) == load_images(folder, SIZE).images[:1]).all()
    with pytest.raises(PictureError, match=r"cut\.bmp"):
        load_images(tmp_path, SIZE, broken="raise", workers=1)
    unchecked = load_images(tmp_path, SIZE, lazy=True, check=False)
    with pytest.raises(PictureError, match=r"cut\.bmp is damaged"):
        Sequential([Flatten(), Dense(2)], (*SIZE, 3)).fit(unchecked, shuffle=False, verbose=0)
    (tmp_path / "a" / "good.png").unlink()
    with pytest.raises(PictureError, match="none of the 7 pictures can be read"):
        load_images(tmp_path, SIZE)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": (8,)}, ValueError, r"size must be a side or \(height, width\)"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"color": "grey"}, ValueError, 'color must be "rgb" or "gray", got \'grey\''),
        ({"broken": "skip"}, ValueError, 'broken must be "report" or "raise"'),
        ({"classes": ["ant", "bee"]}, DatasetError, "the class 'Öhr', which is not among"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
    ],
)
def test_wrong_arguments(
    folder: Path, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_images(folder, **{"size": SIZE, **arguments})


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_images(tmp_path / "none", 4)
    Image.new("L", (3, 4)).save(tmp_path / "single.png")
    with pytest.raises(DatasetError, match="pictures belong into a folder for each class"):
        load_images(tmp_path, 4)


def test_other_classes_keep_their_numbers(folder: Path) -> None:
    names = ["wasp", "Öhr", "bee", "ant"]
    images = load_images(folder, SIZE, classes=names)
    assert images.labels.tolist() == [3] * 7 + [2] * 7 + [1] * 7


def test_splits_have_all_classes(folder: Path) -> None:
    images = load_images(folder, SIZE, lazy=True)
    train, test = images.split(0.3)
    assert sorted((*train.files, *test.files)) == sorted(images.files)
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert isinstance(train.images, LazyImages)
    rows = [images.files.index(name) for name in test.files]
    assert (np.asarray(test.images) == images.images[np.array(rows)]).all()
    others = [images.split(0.4, seed=seed)[1].files for seed in (0, 0, 1)]
    assert len(others[0]) == 9  # 2.8 of each class, to the nearest
    assert others[0] == others[1] != others[2]
    first_of_each = [name for name in images.files if name.endswith(("0.png", "1.jpg", "2.gif"))]
    assert sorted(others[0]) != sorted(first_of_each)
    for share in (0, 1, 0.01, True):
        with pytest.raises(ValueError, match="share"):
            images.split(share)


def test_threads_that_read_change_nothing(folder: Path) -> None:
    model = net()
    images = load_images(folder, SIZE)
    settings_of_fit: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 1, "verbose": 0}
    history = model.fit(images, validation_split=0.3, **settings_of_fit)
    assert model.classes == ("ant", "bee", "Öhr")
    assert model.preparation == fastcnn.Preparation(edges="crop")
    assert model.trained_on == "uint8"
    augmented = list[Sequential]()
    for workers in (1, 3):
        lazy = load_images(folder, SIZE, lazy=True, workers=workers)
        other = net()
        of_other = other.fit(lazy, validation_split=0.3, **settings_of_fit)
        assert same(model, other)
        assert of_other.history["val_loss"] == history.history["val_loss"]
        assert other.evaluate(lazy, batch_size=5) == model.evaluate(images, batch_size=5)
        assert (other.predict(lazy, 5) == model.predict(images, 5)).all()
        augmented.append(net())
        augmented[-1].fit(lazy, augment=Augment(shift=1), **settings_of_fit)
    assert same(*augmented)
    assert not same(augmented[0], model)


def test_each_epoch_and_each_seed_augment_in_their_own_way(folder: Path) -> None:
    images = load_images(folder, SIZE, lazy=True, workers=3)
    draws = list[float]()

    def augment(images: Any, rng: np.random.Generator) -> Any:
        draws.append(rng.random())
        return images

    for seed in (1, 1, 2):
        net().fit(
            images, epochs=2, batch_size=7, shuffle=False, seed=seed, augment=augment, verbose=0
        )
    first, again, other = (sorted(draws[i : i + 6]) for i in (0, 6, 12))
    assert first == again != other
    assert len({*first}) == 6


class StopsAt(Callback):
    """Saves the training after a batch of an epoch, and ends it."""

    def __init__(self, epoch: int, batch: int, path: Path) -> None:
        self.place, self.path = (epoch, batch), path

    def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
        if (model.progress.epoch, batch) == self.place:
            model.save_checkpoint(self.path)
            raise StopTraining


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 22),
    st.integers(0, 40),
    st.booleans(),
    st.sampled_from([None, Augment(shift=1, flip=True), Mixup(0.3)]),
    st.sampled_from([None, 2]),
)
def test_threads_and_a_stop_in_the_middle_of_an_epoch_leave_every_bit(
    folder: Path,
    workers: tuple[int, int, int],
    size: int,
    place: int,
    shuffle: bool,
    augment: Any,
    steps: int | None,
) -> None:
    batches = min(-(-21 // size), steps or 21)
    fit: dict[str, Any] = {
        "epochs": 2, "batch_size": size, "verbose": 0, "augment": augment, "shuffle": shuffle,
        "metrics": ["f1"], "steps_per_epoch": batches if steps else None,
    }  # fmt: skip
    whole, stopped, resumed = net(), net(), net()
    sets = [load_images(folder, SIZE, lazy=True, workers=n, progress=False) for n in workers]
    history = whole.fit(sets[0], seed=5, **fit).history
    if augment is None:
        arrays = net()
        arrays.fit(load_images(folder, SIZE, progress=False), seed=5, **fit)
        assert same(whole, arrays)
    with tempfile.TemporaryDirectory() as place_of_file:
        path = Path(place_of_file) / "training.st"
        stop = StopsAt(*divmod(place % (2 * batches), batches), path)
        stopped.fit(sets[1], seed=5, callbacks=[stop], **fit)
        again = resumed.fit(sets[2], resume=path, **fit).history
    assert same(whole, resumed)
    for name in ("loss", "accuracy", "f1"):
        np.testing.assert_array_equal(again[name], history[name])


def test_classes_must_be_those_of_the_model(folder: Path) -> None:
    images, model = load_images(folder, SIZE), net()
    model.classes = ["bee", "ant", "Öhr"]
    with pytest.raises(ValueError, match=r"x must have the classes of the model.*'bee', 'ant'"):
        model.fit(images, verbose=0)
    two = Sequential([Flatten(), Dense(2)], (*SIZE, 3), engine="im2col")
    with pytest.raises(ValueError, match="y must be at least 0 and below 2"):
        two.fit(images, verbose=0)
    with pytest.raises(ValueError, match="y must be None"):
        net().fit(images, images.labels)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_threads_that_read_ahead_give_way(folder: Path) -> None:
    images = load_images(folder, SIZE, lazy=True, workers=2).images
    assert isinstance(images, LazyImages)
    priorities = set[int]()

    def convert(some: Any, number: int) -> Any:
        priorities.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return some

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert len([*parts_ahead(images, [slice(0, 2), slice(2, 4)], convert)]) == 2
    assert priorities == {max(own, 10)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_reading_ahead_ends_with_its_threads(folder: Path) -> None:
    images = load_images(folder, SIZE, lazy=True, workers=2).images
    assert isinstance(images, LazyImages)
    parts: list[Any] = [slice(i, i + 3) for i in range(0, 21, 3)]
    calls = list[int]()

    def convert(some: Any, number: int) -> Any:
        calls.append(number)
        return some

    ahead: Iterator[Any] = parts_ahead(images, parts, convert)
    assert (next(ahead) == images[:3]).all()
    ahead.close()  # type: ignore[attr-defined]
    assert len(calls) <= 4  # never all of the set
    assert (np.concatenate([*parts_ahead(images, parts)]) == np.asarray(images)).all()


def test_a_set_describes_itself() -> None:
    images = ImageSet(np.zeros((2, 3, 4, 1), np.uint8), np.zeros(2, np.int64), ("a",), ("", ""))
    assert repr(images) == "ImageSet(2 images of (3, 4, 1), in memory, 1 classes: ['a'])"


def test_few_pictures_are_seen_more_often(folder: Path) -> None:
    settings_of_net = settings_for("small", batch_size=2)
    assert epochs_on_pictures(folder, settings_of_net) == 200 // 11  # 21 pictures
    assert epochs_on_pictures(folder, settings_for("small")) == 30  # at most
    assert epochs_on_pictures(folder, settings_for("small", batch_size=2, epochs=40)) == 40
