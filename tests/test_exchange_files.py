"""Files of weights: what PyTorch and safetensors write is read, and nothing else."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import state_files
from hypothesis import given, settings
from hypothesis import strategies as st
from state_files import dictionary, storage, tensor, value, write_archive

import fastcnn
from fastcnn import ModelFileError
from fastcnn.core.arguments import Array

FLOATS = np.arange(24, dtype=np.float32)


def refused(path: Path) -> str:
    """The message of the error for a file, which names the file."""
    with pytest.raises(ModelFileError) as raised:
        fastcnn.read_weights(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def of_tensor(path: Path, *, offset: int = 0, shape: tuple[int, ...], strides: tuple[int, ...],
              size: int = 24, kind: str = "FloatStorage") -> Path:  # fmt: skip
    """A file with one tensor, "x", in a storage of 24 numbers."""
    part = tensor(storage("0", kind, size), offset, shape, strides)
    write_archive(path, dictionary({"x": part}), {"0": FLOATS.tobytes()})
    return path


@pytest.mark.parametrize("name", state_files.KINDS)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_dtypes_and_shapes_stay(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f"net.{kind}"
    shapes = ((), (0, 3), (2, 3, 1, 2))
    arrays = {f"{len(shape)}.w": np.ones(shape, np.float64).astype(name) for shape in shapes}
    arrays["3.w"] = (np.arange(6).reshape(2, 3) % 2).astype(name)
    write = state_files.write_state_dict if kind == "pt" else state_files.write_safetensors
    write(path, arrays)
    result = fastcnn.read_weights(path)
    assert [*result] == ([*arrays] if kind == "pt" else sorted(arrays))
    for key, array in arrays.items():
        assert result[key].dtype == array.dtype
        assert result[key].shape == array.shape
        assert (result[key] == array).all()
        assert not result[key].flags.writeable


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_views_of_one_storage(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any tensor that lies in its storage is NumPy's view of the same offset and strides."""
    path = tmp_path_factory.mktemp("views") / "net.pt"
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    strides = tuple(data.draw(st.integers(0, 12)) for _ in shape)
    offset = data.draw(st.integers(0, 24))
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    size = int(np.prod(shape))
    of_tensor(path, offset=offset, shape=shape, strides=strides)
    if size and (last >= 24 or size > 24):
        assert "storage" in refused(path)
        return
    result = fastcnn.read_weights(path)["x"]
    assert result.shape == shape
    for index in np.ndindex(shape):
        at = offset + sum(i * step for i, step in zip(index, strides, strict=True))
        assert result[index] == FLOATS[at]


def test_tensors_of_one_storage_share_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    parts = {
        "a": tensor(storage("0", "FloatStorage", 24), 0, (4, 6), (6, 1)),
        "b": tensor(storage("0", "FloatStorage", 24), 0, (6, 4), (1, 6)),
    }
    write_archive(path, dictionary(parts), {"0": FLOATS.tobytes()})
    result = fastcnn.read_weights(path)
    assert (result["a"] == result["b"].T).all()
    assert np.shares_memory(result["a"], result["b"])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    numbers = np.array([1.5, -3.0, 0.0, np.inf], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "net.pt"
    part = tensor(storage("0", "BFloat16Storage", 4), 1, (3,), (1,))
    write_archive(path, dictionary({"x": part}), {"0": bits.tobytes()})
    assert fastcnn.read_weights(path)["x"].tolist() == numbers[1:].tolist()
    path.write_bytes(state_files.header_of({"x": ("BF16", (2, 2), 0, 8)}, bits.tobytes()))
    result = fastcnn.read_weights(path)["x"]
    assert result.dtype == np.float32
    assert result.tolist() == numbers.reshape(2, 2).tolist()


def test_the_byte_order_of_the_writer_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    part = tensor(storage("0", "FloatStorage", 24), 0, (24,), (1,))
    write_archive(
        path, dictionary({"x": part}), {"0": FLOATS.astype(">f4").tobytes()}, {"byteorder": b"big"}
    )
    result = fastcnn.read_weights(path)["x"]
    assert (result == FLOATS).all()
    assert result.dtype.isnative
    write_archive(path, dictionary({"x": part}), {"0": FLOATS.tobytes()}, {"byteorder": b"odd"})
    assert "byte order" in refused(path)


def test_the_state_dictionary_of_a_checkpoint_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    inner, storages = state_files.state_dict({"fc.weight": FLOATS})
    for key in ("state_dict", "model"):
        whole = b"}(" + value("epoch") + value(3) + value(key) + inner + b"u"
        write_archive(path, whole, storages)
        assert [*fastcnn.read_weights(path)] == ["fc.weight"]
    write_archive(path, b"}(" + value("other") + inner + b"u", storages)
    assert "'other'" in refused(path)
    write_archive(path, b"}(" + value("epoch") + value(3) + b"u", {})
    assert "no arrays" in refused(path)


def test_a_parameter_is_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    part = tensor(storage("0", "FloatStorage", 24), 0, (24,), (1,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + part + b"\x88" + b")tR"
    write_archive(path, dictionary({"x": parameter}), {"0": FLOATS.tobytes()})
    assert (fastcnn.read_weights(path)["x"] == FLOATS).all()


RAN: list[str] = []


def ran(text: str) -> None:
    """What a hostile pickle would call."""
    RAN.append(text)


class Hostile:
    """Pickled, a call of :func:`ran`."""

    def __reduce__(self) -> object:
        return ran, ("code of the file",)


HOSTILE = {
    "a function of Python": b"cos\nsystem\n(" + value("true") + b"tR",
    "a function of this test": pickle.dumps(Hostile(), 2)[2:-1],
    "a function by name and protocol 4": pickle.dumps(Hostile(), 4)[2:-1],
    "eval in place of a tensor": dictionary({"x": b"cbuiltins\neval\n(" + value("1") + b"tR"}),
    "an instance by OBJ": b"(cos\nsystem\n" + value("true") + b"o",
    "an instance by INST": b"(" + value("true") + b"ios\nsystem\n",
    "an object by NEWOBJ": b"ccollections\nOrderedDict\n)\x81",
    "an extension": b"\x82\x01",
    "a text integer": b"I5\n",
    "a class of the user's": b"c__main__\nNet\n)R",
    "a call of a dictionary": b"})R",
    "an attribute of a number": value(1) + b"}b",
    "an item of a number": value(1) + value("a") + value(2) + b"s",
    "a list as a key": b"}]" + value(1) + b"s",
    "a get without a put": b"h\x05",
    "an empty stack": b"0",
    "a tuple without a mark": b"t",
    "a mark as a value": b"(\x85",
    "a tensor without arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "a storage of another kind": b"(" + value("storage") + value("x") * 4 + b"tQ",
    "a storage of an unknown dtype": tensor(storage("0", "ComplexFloatStorage", 3), 0, (3,), (1,)),
    "an ordered dictionary of a list": b"ccollections\nOrderedDict\n(]tR",
    "a dictionary in itself": b"}q\x00" + value("model") + b"h\x00s",
    "a name in place of a tensor": dictionary({"x": b"ctorch\nFloatStorage\n"}),
    "nothing but a number": value(7),
    "an instruction that does nothing to the rest": b"I5\n0" + dictionary({}),
    "a name that nothing calls": b"cos\nsystem\n0" + dictionary({}),
}


REASONS = {
    "an instruction that does nothing to the rest": "the instruction INT",
    "a name that nothing calls": "'os.system'",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_no_code_of_a_file_runs(tmp_path: Path, what: str) -> None:
    path = tmp_path / "net.pt"
    write_archive(path, HOSTILE[what], {"0": FLOATS.tobytes()})
    reason = refused(path)
    assert RAN == []
    if what in REASONS:
        assert REASONS[what] in reason


def test_the_hostile_pickle_would_run() -> None:
    """The instructions of the test above are those that Python's own reader runs."""
    pickle.loads(b"\x80\x02" + HOSTILE["a function of this test"] + b".")
    assert RAN.pop() == "code of the file"


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ({"shape": (25,), "strides": (1,)}, "repeats"),
        ({"shape": (5, 5), "strides": (1, 1)}, "repeats"),
        ({"shape": (2,), "strides": (24,)}, "exceeds"),
        ({"shape": (2,), "strides": (2**61,)}, "exceeds"),
        ({"shape": (1,), "strides": (1,), "offset": 24}, "exceeds"),
        ({"shape": (2**61, 2**61), "strides": (0, 0)}, "repeats"),
        ({"shape": (1,), "strides": (1,), "offset": -1}, "arguments"),
        ({"shape": (2, -1), "strides": (1, 1)}, "impossible shape"),
        ({"shape": (2,), "strides": (-1,)}, "impossible shape"),
        ({"shape": (2,), "strides": (1, 1)}, "strides"),
        ({"shape": (True,), "strides": (1,)}, "impossible shape"),
        ({"shape": (2**70,), "strides": (1,)}, "impossible shape"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "no shape"),
        ({"shape": (1,), "strides": (1,), "size": 25}, "has 96 bytes"),
        ({"shape": (1,), "strides": (1,), "size": 2**60}, "has 96 bytes"),
        ({"shape": (1,), "strides": (1,), "size": -24}, "is described as"),
        ({"shape": (1,), "strides": (1,), "kind": "DoubleStorage"}, "has 96 bytes"),
    ],
)
def test_tensors_lie_in_their_storage(tmp_path: Path, of: dict[str, int], reason: str) -> None:
    assert reason in refused(of_tensor(tmp_path / "net.pt", **of))  # type: ignore[arg-type]


def test_storages_are_there_and_have_one_kind(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    missing = tensor(storage("../0", "FloatStorage", 24), 0, (1,), (1,))
    write_archive(path, dictionary({"x": missing}), {"0": FLOATS.tobytes()})
    assert "'net/data/../0' is missing" in refused(path)
    two = {
        "a": tensor(storage("0", "FloatStorage", 24), 0, (1,), (1,)),
        "b": tensor(storage("0", "IntStorage", 24), 0, (1,), (1,)),
    }
    write_archive(path, dictionary(two), {"0": FLOATS.tobytes()})
    assert "two kinds of numbers" in refused(path)


def test_other_zip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    described, storages = state_files.state_dict({"x": FLOATS})
    write_archive(path, described, storages, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)
    write_archive(path, described, storages, {"constants.pkl": b"x"})
    assert "TorchScript" in refused(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        write_archive(path, described, storages, {"data.pkl": PROTOCOL_ONLY})
    assert "two records of one name" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", b"nothing")
    assert "without one data.pkl" in refused(path)
    write_archive(path, described, storages)
    whole = path.read_bytes()
    at = whole.index(FLOATS.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "CRC" in refused(path)


PROTOCOL_ONLY = b"\x80\x02}."


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    """Two entries of the directory with the same bytes, as in a zip bomb."""
    path, memory = tmp_path / "net.pt", io.BytesIO()
    described, _ = state_files.state_dict({"x": FLOATS})
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("net/data.pkl", state_files.PROTOCOL + described + b".")
        file.writestr("net/data/0", FLOATS.tobytes())
        info = zipfile.ZipInfo("net/data/1")
        info.file_size = info.compress_size = 96
        info.CRC, info.header_offset = file.getinfo("net/data/0").CRC, 0
        file.filelist.append(info)
        file.NameToInfo[info.filename] = info
        file._didModify = True
    path.write_bytes(memory.getvalue())
    assert "overlap" in refused(path)


def test_other_kinds_of_files_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for contents, advice in (
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch.save(torch.load("),
        (b"\x93NUMPY\x01\x00v\x00" + b" " * 30, "safetensors"),
        (b"\x08\x08\x12\x07pytorch\x1a" + b" " * 30, "ONNX"),
        (b"", "truncated"),
        (b"not a file of weights at all", "truncated"),
    ):
        path.write_bytes(contents)
        assert advice in refused(path)
    fastcnn.Sequential([fastcnn.layers.Dense(2)], (3,)).save(path)
    assert "load_model" in refused(path)
    with pytest.raises(FileNotFoundError):
        fastcnn.read_weights(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        fastcnn.read_weights(tmp_path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"x": ("F32", (6,), 0, 24), "y": ("F32", (6,), 23, 47)}, "overlaps"),
        ({"x": ("F32", (5,), 0, 20), "y": ("F32", (6,), 24, 48)}, "gap"),
        ({"x": ("F32", (6,), 0, 24)}, "end at 24 of 48"),
        ({"x": ("F32", (13,), 0, 52)}, "does not have"),
        ({"x": ("F32", (12,), 0, 10**18)}, "truncated"),
        ({"x": ("F32", (2**61, 2**61, 0), 0, 48)}, "does not have"),
        ({"x": ("F8_E4M3", (48,), 0, 48)}, "dtype 'F8_E4M3'"),
        ({"x": ("F32", (-12,), 0, 48)}, "impossible shape"),
        ({"x": ("F32", (12.0,), 0, 48)}, "impossible shape"),
        ({"x": ("F32", (12,), 48, 0)}, "offsets"),
        ({"x": ("F32", (12,), -1, 47)}, "offsets"),
    ],
)
def test_hostile_headers_of_safetensors(
    tmp_path: Path, entries: dict[str, tuple[str, tuple[int, ...], int, int]], reason: str
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(state_files.header_of(entries, bytes(48)))
    assert reason in refused(path)


def test_headers_that_are_no_headers(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for text in (b"{", b"[]", b'{"x": 3}', b'{"x": {"dtype": "F32"}}', b"\xff\xfe", b"[" * 10**5):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        refused(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert "truncated" in refused(path)


def test_arrays_of_odd_lengths_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    numbers: Array = np.arange(3, dtype=np.float64)
    entries = {"a": ("U8", (3,), 0, 3), "b": ("F64", (3,), 3, 27)}
    path.write_bytes(state_files.header_of(entries, bytes(3) + numbers.tobytes()))
    result = fastcnn.read_weights(path)["b"]
    assert result.flags.aligned
    assert (result == numbers).all()
