"""Data sets in other forms than MNIST's four files: EMNIST, Kaggle, .npz, CIFAR-10, pictures."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import idx
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn import load_mnist, load_pictures
from fastcnn.cli import app
from fastcnn.data.array_files import CIFAR_TEST, CIFAR_TRAIN, MAX_BYTES, DatasetError
from fastcnn.data.preparation import MNIST, Preparation
from fastcnn.datasets import form_of, load_dataset
from fastcnn.pictures import PictureError

RNG = np.random.default_rng(0)
X, XT = (RNG.integers(0, 256, (n, 9, 8), np.uint8) for n in (14, 5))
Y, YT = (RNG.integers(0, 4, n, np.uint8) for n in (14, 5))
ARRAYS = {"train-images-idx3": X, "train-labels-idx1": Y, "test-images-idx3": XT,
          "test-labels-idx1": YT}  # fmt: skip


def assert_loaded(folder: Any, *expected: Any) -> None:
    (x, y), (xt, yt) = load_mnist(folder)
    for array, reference in zip((x, y, xt, yt), expected or (X, Y, XT, YT), strict=True):
        np.testing.assert_array_equal(array, reference)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert (x.dtype, y.dtype, xt.dtype, yt.dtype) == (np.uint8, np.int64, np.uint8, np.int64)


def emnist(folder: Path, split: str) -> None:
    for name, array in ARRAYS.items():
        idx(folder / f"emnist-{split}-{name}-ubyte.gz", array)


def kaggle(folder: Path) -> None:
    for name, array in ARRAYS.items():
        inside = folder / f"{name.replace('test', 't10k')}-ubyte"
        inside.mkdir(parents=True)
        idx(inside / inside.name, array)


def test_emnists_own_names(tmp_path: Path) -> None:
    emnist(tmp_path, "letters")
    assert_loaded(tmp_path)
    assert form_of(tmp_path) == "emnist"
    emnist(tmp_path, "digits")
    with pytest.raises(
        FileNotFoundError, match=r"several data sets; give one of .*emnist-digits, "
    ):
        load_mnist(tmp_path)
    assert_loaded(tmp_path / "emnist-letters")
    assert_loaded(str(tmp_path / "emnist-digits"))
    with pytest.raises(FileNotFoundError, match=r"no such folder of a data set: .*emnist-mnist"):
        load_mnist(tmp_path / "emnist-mnist")


def test_kaggles_folders_that_hold_the_files(tmp_path: Path) -> None:
    kaggle(tmp_path)
    assert_loaded(tmp_path)
    dotted = tmp_path / "train-images.idx3-ubyte"  # Kaggle has each file twice
    idx(dotted, X)
    assert_loaded(tmp_path)


def test_files_in_folders_inside(tmp_path: Path) -> None:
    kaggle(tmp_path / "FashionMNIST" / "raw")
    assert_loaded(tmp_path)
    kaggle(tmp_path / "KMNIST" / "raw")
    with pytest.raises(FileNotFoundError, match="holds several data sets"):
        load_mnist(tmp_path)
    emnist(tmp_path, "mnist")  # what is nearest serves
    assert_loaded(tmp_path)
    deep = tmp_path / "a" / "b" / "c" / "d" / "e"
    kaggle(deep)
    with pytest.raises(FileNotFoundError, match=r"holds folders without pictures .*: b/$"):
        load_mnist(tmp_path / "a")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FileNotFoundError, match="and no other data set: here/"):
        load_mnist(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    emnist(tmp_path, "letters")
    (tmp_path / "emnist-letters-test-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks emnist-letters-test-labels-idx1-ubyte\.gz or"
    ):
        load_mnist(tmp_path)


def test_what_a_folder_holds_instead_is_told_in_short(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"file{i:02}.txt").touch()
    (tmp_path / "inside").mkdir()
    with pytest.raises(FileNotFoundError) as raised:
        load_mnist(tmp_path)
    assert str(raised.value).endswith(
        "holds no data set that is known (see load_mnist): file00.txt, file01.txt, file02.txt, "
        "file03.txt, file04.txt, file05.txt and 25 more"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty is empty, and holds no data set"):
        load_mnist(tmp_path / "empty")
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"folders without pictures.*: cat/"):
        load_mnist(tmp_path / "classes")
    with pytest.raises(NotADirectoryError, match=r"a folder or an \.npz file, got the file"):
        load_mnist(tmp_path / "file00.txt")
    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / "empty" / name).write_bytes(pickle.dumps({}))
    with pytest.raises(FileNotFoundError, match="pickle files, which run code when they are read"):
        load_mnist(tmp_path / "empty")


# --- .npz -----------------------------------------------------------------------------------------

KERAS = {"x_train": X, "y_train": Y, "x_test": XT, "y_test": YT}
COLOURED = RNG.integers(0, 256, (14, 9, 8, 3), np.uint8)


def test_npz_of_keras_and_medmnist(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **KERAS)
    assert_loaded(tmp_path)
    assert_loaded(tmp_path / "mnist.npz")
    medical = {
        "train_images": COLOURED, "train_labels": Y[:, None].astype(np.int16),
        "val_images": XT, "val_labels": YT[:, None],
        "test_images": COLOURED[:5], "test_labels": YT[:, None],
    }  # fmt: skip
    np.savez_compressed(tmp_path / "other.npz", **medical)
    assert_loaded(tmp_path / "other.npz", COLOURED, Y, COLOURED[:5], YT)
    with pytest.raises(FileNotFoundError, match=r"several \.npz files; give the path of one"):
        load_mnist(tmp_path)
    np.savez(tmp_path / "order.npz", **KERAS | {"x_train": np.asfortranarray(X)})
    assert_loaded(tmp_path / "order.npz")


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\1\0" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, contents in members.items():
            file.writestr(f"{name}.npy", contents)


def npy(array: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


class Runs:
    """A pickle of it makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


NPZ: dict[str, tuple[dict[str, bytes], str]] = {
    "missing": ({"y_test": b""}, "must hold the arrays x_train, y_train"),
    "pickle": ({"x_train": npy(np.array([Runs()], object), allow_pickle=True)}, "got object"),
    "huge": ({"x_train": header((1 << 20, 1 << 10, 1 << 10))}, "promises .* more than"),
    "beyond integers": ({"x_train": header((10**30, 5))}, "promises .* more than"),
    "negative": ({"x_train": header((-1, 5, 5)) + bytes(99)}, "damaged|truncated|longer"),
    "short": ({"x_train": header((14, 9, 8)) + bytes(99)}, "truncated"),
    "long": ({"x_train": header((14, 9, 8)) + bytes(1009)}, "longer"),
    "bomb": ({"x_train": header((1, 9, 8)) + bytes(50_000_000)}, "longer"),
    "no npy": ({"x_train": b"hello"}, "damaged"),
    "version": ({"x_train": b"\x93NUMPY\7\0" + bytes(50)}, "damaged|version"),
    "nonsense": ({"x_train": header((1,))[:20]}, "damaged"),
    "floats": ({"x_train": npy(X / 255)}, "x_train must hold integers, got float64"),
    "wide": ({"x_train": npy(X.astype(int))}, r"x_train must hold bytes \(uint8\), got int64"),
    "flat": ({"x_train": npy(X.reshape(14, -1))}, r"must have the shape \(N, H, W\)"),
    "labels": ({"y_train": npy(np.eye(14, dtype=int))}, "must hold one class number for each"),
    "fewer": ({"y_train": npy(Y[:3])}, "has 14 images, but y_train 3 labels"),
    "below 0": ({"y_train": npy(Y.astype(int) - 9)}, "class numbers from 0 on"),
}


@pytest.mark.parametrize("name", NPZ)
def test_damaged_and_hostile_npz(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, text = NPZ[name]
    members = {key: npy(array) for key, array in KERAS.items()} | change
    if name == "missing":
        del members["y_test"]
    archive(tmp_path / "data.npz", **members)
    with pytest.raises(DatasetError, match=text) as raised:
        load_mnist(tmp_path / "data.npz")
    assert "data.npz" in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_npz_files_with_flipped_and_missing_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **KERAS)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[: rng.integers(len(whole)) if rng.random() < 0.3 else None])
        for at in rng.integers(0, max(1, len(damaged)), 3):
            damaged[at : at + 1] = bytes([rng.integers(256)])
        path.write_bytes(damaged)
        try:
            load_mnist(path)
        except DatasetError:
            refused += 1
    assert refused > 100


def test_npz_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.npz"):
        load_mnist(tmp_path / "no.npz")
    os.mkfifo(tmp_path / "waits.npz")
    with pytest.raises(OSError, match="must be a regular file"):
        load_mnist(tmp_path / "waits.npz")
    with pytest.raises(OSError, match="must be a regular file"):
        load_mnist(tmp_path)


# --- CIFAR-10 -------------------------------------------------------------------------------------


def write_cifar(folder: Path, count: int = 4) -> dict[str, tuple[Any, Any]]:
    folder.mkdir(exist_ok=True)
    written = {}
    for name in (*CIFAR_TRAIN, CIFAR_TEST):
        images = RNG.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels = RNG.integers(0, 10, count, np.uint8)
        rows = images.transpose(0, 3, 1, 2).reshape(count, -1)
        (folder / name).write_bytes(np.hstack([labels[:, None], rows]).tobytes())
        written[name] = images, labels
    return written


def test_cifar10_in_its_binary_version(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "cifar-10-batches-bin"):
        sets = write_cifar(folder)
        images, labels = (np.concatenate([sets[n][i] for n in CIFAR_TRAIN]) for i in (0, 1))
        assert_loaded(tmp_path, images, labels, *sets[CIFAR_TEST])
        if folder == tmp_path:
            for name in (*CIFAR_TRAIN, CIFAR_TEST):
                (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c[:-1], r"must hold records of 3,073 bytes"),
        (lambda c: b"", r"must hold records of 3,073 bytes"),
        (lambda c: b"\x0a" + c[1:], "must hold labels from 0 to 9, got 10"),
    ],
)
def test_damaged_cifar10(change: Callable[[bytes], bytes], text: str, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=f"data_batch_3.bin {text}"):
        load_mnist(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        load_mnist(tmp_path)


# --- pictures by class ----------------------------------------------------------------------------


def write_pictures(folder: Path, count: int = 12, size: tuple[int, int] = (9, 8)) -> None:
    rng = np.random.default_rng(1)
    for label, name in enumerate(("cat", "dog", "eel")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            grey = rng.integers(80 * label, 80 * label + 90, size).astype(np.uint8)
            Image.fromarray(grey).save(folder / name / f"{i:02}.png")


def test_pictures_by_class(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / ".hidden.png").touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "nothing").mkdir()
    images, labels, names = load_pictures(tmp_path)
    assert (images.shape, images.dtype, labels.dtype) == ((36, 9, 8), np.uint8, np.int64)
    assert names == ("cat", "dog", "eel")
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 12))
    for at, name in ((0, "cat/00"), (35, "eel/11")):
        np.testing.assert_array_equal(images[at], np.asarray(Image.open(tmp_path / f"{name}.png")))
    (x, y), (xt, yt) = load_mnist(tmp_path)
    np.testing.assert_array_equal(xt, images[5::6])
    assert (len(x), np.bincount(y).tolist(), yt.tolist()) == (30, [10] * 3, [0, 0, 1, 1, 2, 2])


def test_pictures_for_training_and_test(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "test", 2)
    (x, _), (xt, yt) = load_mnist(tmp_path)
    assert (x.shape, xt.shape, yt.tolist()) == ((36, 9, 8), (6, 9, 8), [0, 0, 1, 1, 2, 2])
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "cow")
    with pytest.raises(DatasetError, match="has the class 'cow', which the training set lacks"):
        load_mnist(tmp_path)
    (tmp_path / "test" / "cow").rename(tmp_path / "cow")  # a class may have no test pictures
    assert load_mnist(tmp_path)[1][1].tolist() == [1, 1, 2, 2]


def test_sizes_agree_or_are_asked_for(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    Image.new("L", (30, 20), 7).save(tmp_path / "dog" / "05a.png")
    with pytest.raises(DatasetError, match=r"05a.png has 30×20 pixels, but .*00.png 8×9; size="):
        load_pictures(tmp_path)
    images, _, _ = load_pictures(tmp_path, size=(6, 5))
    assert images.shape == (37, 6, 5)
    assert (images[12 + 6] == 7).all()


def test_colours_and_transparency(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    clear = Image.new("RGBA", (8, 9), (255, 0, 0, 0))
    clear.save(tmp_path / "dog" / "clear.png")
    images, _, _ = load_pictures(tmp_path)
    assert images.shape == (4, 9, 8, 3)
    assert (images[2] == 255).all()  # on white
    assert load_pictures(tmp_path, channels=1).images.shape == (4, 9, 8)
    turned = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(8, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "dog" / "turned.jpg", exif=exif)
    assert load_pictures(tmp_path).images.shape == (5, 9, 8, 3)


def test_bad_folders_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder of pictures"):
        load_pictures(tmp_path / "no")
    with pytest.raises(DatasetError, match="has no folders with pictures"):
        load_pictures(tmp_path)
    write_pictures(tmp_path, 3)
    with pytest.raises(DatasetError, match="fewer than 6 pictures of each class"):
        load_mnist(tmp_path)
    (tmp_path / "cat" / "x.png").write_bytes(b"hello")
    with pytest.raises(PictureError, match=r"x\.png is no PNG, JPEG, GIF, BMP or WebP file"):
        load_pictures(tmp_path)
    (tmp_path / "cat" / "x.png").unlink()
    os.mkfifo(tmp_path / "cat" / "x.png")
    with pytest.raises(OSError, match="must be a regular file"):
        load_pictures(tmp_path)
    (tmp_path / "cat" / "x.png").unlink()
    monkeypatch.setattr("fastcnn.data.picture_folders.MAX_BYTES", 9 * 9 * 8 - 1)
    with pytest.raises(DatasetError, match="holds 648 bytes of pixels, more than 647"):
        load_pictures(tmp_path)
    assert MAX_BYTES == 1 << 30


# --- the commands ---------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_train_evaluate_and_predict_on_a_folder_of_pictures(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "model.safetensors"
    write_pictures(data, 30, (20, 22))
    Image.new("L", (40, 40), 200).save(data / "eel" / "large.png")
    train = ("train", "--data", data, "--epochs", 12, "--save", model)
    done = run(*train)
    assert done.exit_code == 2
    assert "large.png has 40×40 pixels, but" in done.output
    done = run(*train, "--size", 20)
    assert done.exit_code == 0, done.output
    assert "classes: 0 cat, 1 dog, 2 eel" in done.output
    net = fastcnn.load_model(model)
    assert net.input_shape == (20, 20, 1)
    assert net.preparation == Preparation(edges="crop")
    done = run("evaluate", model, "--data", data)
    assert done.exit_code == 0, done.output
    accuracy = load_dataset(data, (20, 20)).test
    assert net.evaluate(*accuracy)["accuracy"] > 0.8
    done = run("predict", model, data / "dog" / "03.png")
    assert done.output.splitlines()[2] == "  middle cut out and scaled to 20×20", done.output
    assert run("train", "--size", 20, "--save", model).exit_code == 2  # MNIST has its own


def test_emnist_pictures_are_turned_as_its_images_are(tmp_path: Path) -> None:
    (x, y), (xt, yt) = load_mnist()
    for part, images, labels in (("train", x[:240], y[:240]), ("test", xt[:20], yt[:20])):
        idx(tmp_path / f"emnist-mnist-{part}-images-idx3-ubyte.gz", images.swapaxes(1, 2))
        idx(tmp_path / f"emnist-mnist-{part}-labels-idx1-ubyte.gz", labels)
    model = tmp_path / "model.safetensors"
    done = run("train", "--net", "article", "--data", tmp_path, "--epochs", 1, "--save", model)
    assert done.exit_code == 0, done.output
    net = fastcnn.load_model(model)
    assert net.preparation == replace(MNIST, transposed=True)
    Image.fromarray(xt[0]).save(tmp_path / "upright.png")
    prepared = fastcnn.pictures.prepare(tmp_path / "upright.png", (28, 28, 1), net.preparation)
    np.testing.assert_array_equal(prepared.pixels[..., 0], xt[0].T)
    done = run("predict", model, tmp_path / "upright.png")
    assert "rows and columns exchanged, as in the training" in done.output
