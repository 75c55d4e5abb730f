"""load_mnist: the bundled data, folders of other data, and files that nobody should trust."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from limits import run, slowness

import fastcnn
from fastcnn.data import datasets
from fastcnn.data.datasets import DatasetError
from fastcnn.datasets import load_mnist

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

MD5_OF_CONTENTS = {
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">2x2B{array.ndim}I", 0x08, array.ndim, *array.shape) + array.tobytes()


def small_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        TRAIN_IMAGES: rng.integers(0, 256, (7, 5, 4), np.uint8),
        TRAIN_LABELS: rng.integers(0, 10, 7, np.uint8),
        TEST_IMAGES: rng.integers(0, 256, (3, 5, 4), np.uint8),
        TEST_LABELS: rng.integers(0, 10, 3, np.uint8),
    }


@pytest.fixture(autouse=True)
def no_data_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCNN_DATA_DIR", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small sound data set of the form of MNIST, images gzip-compressed, labels plain."""
    for name, array in small_data().items():
        if array.ndim == 3:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def assert_small_data(loaded: object) -> None:
    (x_train, y_train), (x_test, y_test) = loaded  # type: ignore[misc]
    for got, want in zip((x_train, y_train, x_test, y_test), small_data().values(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_bundled_mnist() -> None:
    (x_train, y_train), (x_test, y_test) = fastcnn.load_mnist()
    for array, shape, dtype in (
        (x_train, (60000, 28, 28), np.uint8),
        (y_train, (60000,), np.int64),
        (x_test, (10000, 28, 28), np.uint8),
        (y_test, (10000,), np.int64),
    ):
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert x_train.mean() == pytest.approx(33.3184, abs=1e-4)


@pytest.mark.parametrize("name", MD5_OF_CONTENTS)
def test_bundled_contents_are_those_of_mnist(name: str) -> None:
    contents = gzip.decompress((datasets.BUNDLED / f"{name}.gz").read_bytes())
    assert hashlib.md5(contents, usedforsecurity=False).hexdigest() == MD5_OF_CONTENTS[name]


def test_loading_takes_less_than_0_6_seconds_in_a_fresh_process() -> None:
    code = (
        "import time, fastcnn.datasets; start = time.process_time(); "
        "fastcnn.datasets.load_mnist(); print(time.process_time() - start)"
    )
    seconds = [float(run([sys.executable, "-c", code], check=True).stdout) for _ in range(4)]
    assert min(seconds) < 0.6 * max(1.0, slowness())


def test_each_call_returns_new_arrays(folder: Path) -> None:
    load_mnist(folder)[0][0][:] = 0
    assert_small_data(load_mnist(folder))


def test_folder_by_argument(folder: Path) -> None:
    assert_small_data(load_mnist(folder))
    assert_small_data(load_mnist(str(folder)))


def test_folder_by_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCNN_DATA_DIR", str(folder))
    assert_small_data(load_mnist())


def test_argument_wins_over_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCNN_DATA_DIR", str(folder / "elsewhere"))
    assert_small_data(load_mnist(folder))


def test_empty_environment_variable_means_the_bundled_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTCNN_DATA_DIR", "")
    assert load_mnist()[1][0].shape == (10000, 28, 28)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
def test_every_variant_of_the_names(tmp_path: Path, separator: str, suffix: str) -> None:
    for name, array in small_data().items():
        variant = name.replace("-idx", f"{separator}idx") + suffix
        contents = gzip.compress(idx(array)) if suffix else idx(array)
        (tmp_path / variant).write_bytes(contents)
    assert_small_data(load_mnist(tmp_path))


def test_compression_is_told_by_content_not_by_name(folder: Path) -> None:
    compressed = folder / f"{TRAIN_IMAGES}.gz"
    compressed.write_bytes(gzip.decompress(compressed.read_bytes()))
    plain = folder / TRAIN_LABELS
    plain.write_bytes(gzip.compress(plain.read_bytes()))
    assert_small_data(load_mnist(folder))


def test_empty_sets(tmp_path: Path) -> None:
    for name, array in small_data().items():
        (tmp_path / name).write_bytes(idx(array[:0]))
    (x_train, y_train), _ = load_mnist(tmp_path)
    assert x_train.shape == (0, 5, 4)
    assert y_train.shape == (0,)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        load_mnist(tmp_path / "no-such-folder")


def test_missing_files_are_named_with_their_folder(folder: Path) -> None:
    (folder / TEST_LABELS).unlink()
    (folder / TRAIN_LABELS).unlink()
    with pytest.raises(FileNotFoundError) as raised:
        load_mnist(folder)
    for part in (str(folder), TEST_LABELS, TRAIN_LABELS, "t10k-labels.idx1-ubyte.gz"):
        assert part in str(raised.value)
    assert TRAIN_IMAGES not in str(raised.value)


def test_folder_that_is_no_path() -> None:
    with pytest.raises(TypeError, match="folder must be a path, got 5"):
        load_mnist(5)  # type: ignore[arg-type]


def test_the_other_package_named_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist", types.ModuleType("mnist"))
    with pytest.raises(ImportError, match="pip uninstall python-mnist") as raised:
        load_mnist()
    assert "pip install --force-reinstall mnist" in str(raised.value)


def with_byte(at: int, value: int) -> Callable[[bytes], bytes]:
    return lambda contents: contents[:at] + bytes([value]) + contents[at + 1 :]


SOUND = {TRAIN_IMAGES: (7, 5, 4), TRAIN_LABELS: (7,), TEST_IMAGES: (3, 5, 4), TEST_LABELS: (3,)}

DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "truncated"),
    "one byte": (lambda c: c[:1], "truncated"),
    "half a header": (lambda c: c[:7], "truncated"),
    "body one short": (lambda c: c[:-1], "truncated"),
    "body one long": (lambda c: c + b"\0", "longer"),
    "web page": (lambda c: b"<!DOCTYPE html><html></html>", "no IDX file"),
    "signed bytes": (with_byte(2, 0x09), "0x09"),
    "floats": (with_byte(2, 0x0D), "0x0d"),
    "unknown type": (with_byte(2, 0x77), "0x77"),
    "no dimension": (with_byte(3, 0), "dimensions, got 0"),
    "two dimensions": (with_byte(3, 2), "dimensions, got 2"),
    "255 dimensions": (with_byte(3, 255), "dimensions, got 255"),
    "enormous count": (with_byte(4, 0xFF), "promises"),
}


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(folder: Path, name: str, damage: str, compress: bool) -> None:
    change, fault = DAMAGE[damage]
    damaged = change(idx(small_data()[name]))
    for old in folder.glob(f"{name}*"):
        old.unlink()
    path = folder / (name + ".gz" * compress)
    path.write_bytes(gzip.compress(damaged) if compress else damaged)
    with pytest.raises(DatasetError) as raised:
        load_mnist(folder)
    assert str(path) in str(raised.value)
    assert fault in str(raised.value)


GZIP_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "header alone": (lambda c: c[:2], "truncated"),
    "stream cut": (lambda c: c[: len(c) // 2], "truncated"),
    "trailer cut": (lambda c: c[:-3], "truncated"),
    "wrong CRC": (with_byte(-8, 0), "corrupted"),
    "wrong length": (lambda c: c[:-4] + b"\1\1\1\1", "corrupted"),
    "wrong method": (with_byte(2, 3), "corrupted"),
    "invalid block": (with_byte(10, 0xFF), "corrupted"),
    "garbage behind": (lambda c: c + b"garbage", "corrupted"),
    "second stream": (lambda c: c + gzip.compress(b"more"), "longer"),
}


@pytest.mark.parametrize("damage", GZIP_DAMAGE)
def test_damaged_gzip_stream(folder: Path, damage: str) -> None:
    change, fault = GZIP_DAMAGE[damage]
    path = folder / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError) as raised:
        load_mnist(folder)
    assert str(path) in str(raised.value)
    assert fault in str(raised.value)


def test_images_without_pixels(folder: Path) -> None:
    path = folder / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(idx(np.zeros((7, 0, 4), np.uint8)))
    with pytest.raises(DatasetError, match="at least one pixel"):
        load_mnist(folder)


def test_counts_of_images_and_labels_differ(folder: Path) -> None:
    (folder / TEST_LABELS).write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(DatasetError, match=r"3 images, but .*t10k-labels.* 4 labels"):
        load_mnist(folder)


def test_sizes_of_training_and_test_images_differ(folder: Path) -> None:
    (folder / f"{TEST_IMAGES}.gz").write_bytes(idx(np.zeros((3, 4, 5), np.uint8)))
    with pytest.raises(DatasetError, match=r"\(4, 5\) pixels, but .* \(5, 4\)"):
        load_mnist(folder)


@pytest.mark.parametrize("promised", [20, datasets.MAX_BYTES])
def test_memory_is_not_spent_on_a_bomb_or_a_promise(folder: Path, promised: int) -> None:
    # 64 MB of zeros behind a header that promises 20 bytes; a few bytes behind one of 1 GiB.
    header = struct.pack(">2x2B3I", 0x08, 3, 1, 1, promised)
    body = bytes(64_000_000) if promised == 20 else bytes(100)
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(header + body, 1))
    del body
    load_mnist(datasets.BUNDLED)  # what is imported once is not counted
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="longer" if promised == 20 else "truncated"):
            load_mnist(folder)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
