"""Scaling and layout are never guessed: what contradicts a training is refused, or told once."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import CNNClassifier, InputWarning, Sequential
from fastcnn.data.scaling import KnownSamples, SampleRecord, known_from, record_of
from fastcnn.layers import BatchNorm, Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D
from fastcnn.models import model_files
from fastcnn.models.inputs import channels_first

(X, Y), (X_TEST, Y_TEST) = fastcnn.load_mnist()
X, Y, X_TEST, Y_TEST = X[:600], Y[:600], X_TEST[:300], Y_TEST[:300]

Scale = Callable[[Any], Any]
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST in 0 to 1, as in PyTorch's examples
SCALES: dict[str, Scale] = {
    "bytes": lambda x: x,
    "unit": lambda x: (x / 255).astype(np.float32),
    "unit-double": lambda x: x / 255,
    "unit-half": lambda x: (x / 255).astype(np.float16),
    "centred": lambda x: (x / 255 - 0.5).astype(np.float32),
    "symmetric": lambda x: (x / 127.5 - 1).astype(np.float32),
    "standardised": lambda x: ((x / 255 - MEAN) / DEVIATION).astype(np.float32),
    "long": lambda x: x.astype(np.int64),
    "float": lambda x: x.astype(np.float32),
    "half": lambda x: x.astype(np.float16),
    "short": lambda x: x.astype(np.int16),
    "unsigned": lambda x: x.astype(np.uint16),
    "wide": lambda x: x.astype(np.uint16) * np.uint16(257),
    "signed": lambda x: x.astype(np.int8),
    "bool": lambda x: x > 127,
}


def net() -> list[Any]:
    return [Conv2D(4, 5, strides=3, activation="relu"), Flatten(), Dense(10)]


def trained(scale: str, **settings: Any) -> Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        model = Sequential(net(), (28, 28, 1), seed=0)
        model.fit(SCALES[scale](X), Y, verbose=0, seed=0, **settings)
    return model


MODELS = {name: trained(name) for name in ("bytes", "unit", "centred", "standardised", "long")}

# What is wrong with samples of one scale for a model that was trained on another.
CONTRADICTIONS = [
    ("bytes", "unit", InputWarning, "trained on bytes, which it scales by"),
    ("bytes", "unit-half", InputWarning, "trained on bytes, which it scales by"),
    ("bytes", "symmetric", InputWarning, "trained on bytes, which it scales by"),
    ("bytes", "standardised", InputWarning, "trained on bytes, which it scales by"),
    ("bytes", "float", ValueError, "holds numbers from 0 to 255, but"),
    ("bytes", "half", ValueError, "holds numbers from 0 to 255, but"),
    ("bytes", "long", ValueError, r"must hold bytes .* got int64\. Pixels .*astype\(numpy.uint8"),
    ("bytes", "short", ValueError, "must hold bytes .* got int16"),
    ("bytes", "unsigned", ValueError, "must hold bytes .* got uint16"),
    ("bytes", "signed", ValueError, "must hold bytes .* got int8"),
    ("bytes", "bool", ValueError, "must hold bytes .* got bool"),
    ("unit", "bytes", ValueError, "must hold floats, scaled as .* got uint8"),
    ("unit", "float", ValueError, "holds numbers from 0 to 255, but the model was trained on num"),
    ("unit", "long", ValueError, "holds numbers from 0 to 255, but the model was trained on num"),
    ("unit", "wide", ValueError, "holds numbers from 0 to 65535, but"),
    ("unit", "signed", ValueError, "holds numbers from -12[78] to 12[67], but"),
    ("unit", "centred", InputWarning, "holds numbers from -0.5 to 0.5, but"),
    ("unit", "symmetric", InputWarning, "holds numbers from -1 to 1, but"),
    ("unit", "standardised", InputWarning, "holds numbers from -0.42"),
    ("centred", "unit", InputWarning, "holds numbers from 0 to 1, but"),
    ("centred", "bytes", ValueError, "must hold floats, scaled as .* got uint8"),
    ("centred", "long", ValueError, "holds numbers from 0 to 255, but"),
    ("standardised", "unit", InputWarning, "holds numbers from 0 to 1, but"),
    ("standardised", "float", ValueError, "holds numbers from 0 to 255, but"),
    ("long", "unit", InputWarning, "holds numbers from 0 to 1, but"),
    ("long", "standardised", InputWarning, "holds numbers from -0.42"),
    ("long", "wide", ValueError, "holds numbers from 0 to 65535, but"),
    ("long", "bytes", ValueError, "must hold floats, scaled as .* got uint8"),
]
CALLS: dict[str, Callable[[Sequential, Any, Any], Any]] = {
    "predict": lambda model, x, y: model.predict(x),
    "predict_one": lambda model, x, y: model.predict(x[:1]),
    "predict_classes": lambda model, x, y: model.predict_classes(x),
    "evaluate": lambda model, x, y: model.evaluate(x, y),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
}


def warned(call: Callable[[], Any]) -> list[str]:
    """The texts of the call's input warnings, each of which points at this file."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    warnings_of_input = [one for one in seen if one.category is InputWarning]
    assert {one.filename for one in warnings_of_input} <= {__file__}
    return [str(one.message) for one in warnings_of_input]


def expect(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    """The call raises that error, or gives just one such warning."""
    if kind is not InputWarning:
        with pytest.raises(kind, match=text):
            call()
    else:
        (warnings_of_input,) = warned(call)
        assert re.search(text, warnings_of_input), warnings_of_input


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("before", "after", "kind", "text"), CONTRADICTIONS)
def test_what_contradicts_the_training_is_refused_or_told_once(
    before: str, after: str, kind: type[Exception], text: str, call: str
) -> None:
    model, x = deepcopy(MODELS[before]), SCALES[after](X_TEST)
    if (before, after, call) == ("standardised", "unit", "predict_one"):
        return  # one image within the range of the training may be so
    expect(kind, text, lambda: CALLS[call](model, x, Y_TEST))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", MODELS)
def test_the_scale_of_the_training_is_no_matter(name: str, call: str) -> None:
    assert warned(lambda: CALLS[call](deepcopy(MODELS[name]), SCALES[name](X_TEST), Y_TEST)) == []


ALIKE = [
    ("bytes", "centred"), ("unit", "unit-double"), ("unit", "unit-half"), ("unit", "bool"),
    ("long", "float"), ("long", "half"), ("long", "unsigned"), ("long", "short"),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("before", "after"), ALIKE)
def test_another_dtype_of_the_same_scale_is_no_matter(before: str, after: str, call: str) -> None:
    assert (
        warned(lambda: CALLS[call](deepcopy(MODELS[before]), SCALES[after](X_TEST), Y_TEST)) == []
    )


UNUSUAL: dict[str, Scale] = {
    "black": lambda x: np.zeros_like(x),
    "white": lambda x: np.full_like(x, 255),
    "grey": lambda x: np.full_like(x, 128),
    "dark": lambda x: x // 12,
    "nearly black": lambda x: x // 86,
    "bright": lambda x: 200 + x // 5,
    "inverted": lambda x: 255 - x,
    "one pixel": lambda x: x * (np.arange(784).reshape(28, 28) == 300),
    "noise": lambda x: np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.parametrize("look", UNUSUAL)
@pytest.mark.parametrize("name", MODELS)
def test_no_false_alarm_for_images_of_any_look(name: str, look: str, count: int) -> None:
    x = SCALES[name](UNUSUAL[look](X_TEST[:count]))
    for call in CALLS.values():
        assert warned(lambda: call(deepcopy(MODELS[name]), x, Y_TEST[:count])) == []  # noqa: B023


@pytest.mark.parametrize("name", ["unit", "centred", "standardised"])
def test_no_false_alarm_for_a_little_noise_and_a_hot_pixel(name: str) -> None:
    rng = np.random.default_rng(0)
    x = SCALES[name](X_TEST)
    spread = float(x.max() - x.min())
    noisy = x + rng.normal(0, 0.12 * spread, x.shape)
    hot = x.copy()
    hot[:, 3, 4] = 40 * spread
    for some in (noisy, hot, hot[:1]):
        assert warned(lambda: deepcopy(MODELS[name]).evaluate(some, Y_TEST[: len(some)])) == []  # noqa: B023


def test_no_false_alarm_where_numbers_are_no_pixels() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 3))
    model = Sequential([Dense(1)], (3,), seed=0)
    outside = rng.uniform(-50, 50, (90, 3))
    assert warned(lambda: model.fit(x, x[:, :1], loss="mse", verbose=0)) == []
    assert warned(lambda: model.predict(outside)) == []
    assert (
        warned(lambda: model.fit(1000 * x, x[:, :1], loss="mse", verbose=0, optimizer="adam")) == []
    )
    assert warned(lambda: model.predict([[0, 1, 1]])) == []


def test_no_false_alarm_for_columns_standardised_one_by_one() -> None:
    # Pixels that are nearly always 0 become numbers of several hundred.
    rows = X.reshape(len(X), -1) / 255
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-12)
    assert rows.max() > 20
    model = Sequential([Dense(10)], seed=0)
    assert warned(lambda: model.fit(rows[:400], Y[:400], verbose=0)) == []
    assert warned(lambda: model.evaluate(rows[400:], Y[400:])) == []


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        ("long", "x holds pixels from 0 to 255 as int64, which are not scaled. Give bytes"),
        ("float", "x holds pixels from 0 to 255 as float32, which are not scaled. Give bytes"),
        ("half", "x holds pixels from 0 to 255 as float16, which are not scaled. Give bytes"),
        ("unsigned", "x holds pixels from 0 to 255 as uint16, which are not scaled. Give bytes"),
        ("wide", "x holds numbers from 0 to 65535 as uint16, which are not scaled"),
        ("signed", "x holds numbers from -128 to 127 as int8, which are not scaled"),
    ],
)
def test_a_training_on_unscaled_pixels_is_told(scale: str, text: str) -> None:
    x = SCALES[scale](X)
    for data in (x, x.reshape(len(x), -1)):
        layers = [Flatten(), Dense(10)] if data.ndim == 3 else [Dense(10)]
        model = Sequential(layers, seed=0)
        (warnings_of_input,) = warned(lambda: model.fit(data, Y, verbose=0, optimizer="adam"))  # noqa: B023
        assert warnings_of_input.startswith(text)
        assert warned(lambda: model.fit(data, Y, verbose=0, optimizer="adam")) == []  # noqa: B023
        step = Sequential(layers, seed=0)
        (warnings_of_input,) = warned(lambda: step.train_on_batch(data[:32], Y[:32]))  # noqa: B023
        assert warnings_of_input.startswith(text)


def test_a_training_on_bytes_of_a_small_range_is_told() -> None:
    model = Sequential(net(), (28, 28), seed=0)
    (warnings_of_input,) = warned(lambda: model.fit(X // 128, Y, verbose=0))
    assert warnings_of_input.startswith(
        "x holds bytes of at most 1. Bytes are taken as pixels from 0 to 255"
    )
    (warnings_of_input,) = warned(lambda: deepcopy(MODELS["bytes"]).evaluate(X_TEST // 128, Y_TEST))
    assert warnings_of_input.startswith(
        "x holds bytes of 0 and 1 alone, but the model was trained on bytes up"
    )


def test_no_false_alarm_at_a_training() -> None:
    rng = np.random.default_rng(0)
    rows = X.reshape(len(X), -1)
    planes = rng.integers(-1, 2, (60, 8, 8, 12)).astype(np.int8)
    for x in (
        *(SCALES[name](X) for name in ("bytes", "unit", "centred", "standardised", "bool")),
        SCALES["standardised"](rows),
        np.zeros_like(X), X // 9, X[:1], planes, planes > 0,
        rng.standard_normal((60, 5, 5, 3)), rng.random((60, 4)) * 1e6,
        rng.poisson(3, (60, 12, 12)), np.eye(70),
    ):  # fmt: skip
        layers = [*([Flatten()] if np.ndim(x) > 2 else []), Dense(10)]
        y = Y[: len(x)]
        for call in (lambda m: m.fit(x, y, verbose=0), lambda m: m.train_on_batch(x, y)):  # noqa: B023
            assert warned(lambda: call(Sequential(layers, seed=0))) == []  # noqa: B023
    normalising = Sequential([BatchNorm(), *net()], (28, 28, 1), seed=0)
    assert warned(lambda: normalising.fit(X.astype(float), Y, verbose=0)) == []


def test_validation_data_is_compared_with_the_samples_of_the_training() -> None:
    for before, after, kind, text in CONTRADICTIONS:
        model = Sequential(net(), (28, 28, 1), seed=0)
        x, validation = SCALES[before](X), (SCALES[after](X_TEST), Y_TEST)
        text = text.replace("x ", "validation_data ")
        if before == "long":
            model._knowledge.is_known("unscaled")
        expect(kind, text, lambda: model.fit(x, Y, verbose=0, validation_data=validation))  # noqa: B023


def test_a_first_batch_may_be_dark() -> None:
    for scale in ("bytes", "unit"):
        x = SCALES[scale](X)
        dark = SCALES[scale](X // 100)
        model = Sequential(net(), (28, 28, 1), seed=0)

        def steps() -> None:
            model.train_on_batch(dark[:32], Y[:32])  # noqa: B023
            for first in range(32, 600, 32):
                model.train_on_batch(x[first : first + 32], Y[first : first + 32])  # noqa: B023
            model.predict(x)  # noqa: B023

        assert warned(steps) == []
        assert model._knowledge.record is not None
        assert model._knowledge.record.high == x.max()


def test_an_augmentation_of_ones_own_may_scale() -> None:
    model = Sequential(net(), (28, 28, 1), seed=0)
    raw = X.astype(np.float32)
    fit = lambda **more: model.fit(raw, Y, verbose=0, seed=0, **more)  # noqa: E731
    assert warned(lambda: fit(augment=lambda x, rng: x / 255)) == []
    assert warned(lambda: model.predict(X_TEST / 255)) == []
    expect(ValueError, "x must be scaled as in the training", lambda: model.predict(raw))
    other = Sequential(net(), (28, 28, 1), seed=0)
    (warnings_of_input,) = warned(
        lambda: other.fit(raw, Y, verbose=0, optimizer="adam", augment=lambda x, rng: x[:, ::-1])
    )
    assert warnings_of_input.startswith("x holds pixels from 0 to 255 as float32")
    (warnings_of_input,) = warned(
        lambda: Sequential(net(), (28, 28, 1), seed=0).fit(
            raw, Y, verbose=0, optimizer="adam", augment=fastcnn.Augment(shift=1)
        )
    )
    assert warnings_of_input.startswith("x holds pixels from 0 to 255 as float32")


def through_file(model: Sequential, folder: Path) -> Sequential:
    model.save(folder / "model.safetensors")
    return fastcnn.load_model(folder / "model.safetensors")


def through_checkpoint(model: Sequential, folder: Path) -> Sequential:
    model.save_checkpoint(folder / "checkpoint.safetensors")
    return fastcnn.load_model(folder / "checkpoint.safetensors")


@pytest.mark.parametrize(
    "carried",
    [
        through_file,
        through_checkpoint,
        lambda model, _: copy(model),
        lambda model, _: deepcopy(model),
        lambda model, _: pickle.loads(pickle.dumps(model)),
    ],
    ids=["file", "checkpoint", "copy", "deepcopy", "pickle"],
)
def test_what_is_known_goes_with_the_model(
    carried: Callable[[Sequential, Path], Sequential], tmp_path: Path
) -> None:
    for name in ("bytes", "unit", "long"):
        model = carried(trained(name), tmp_path)
        assert model._knowledge == MODELS[name]._knowledge
        assert model._knowledge.record is not None
        for before, after, kind, text in CONTRADICTIONS:
            if before == name:
                x = SCALES[after](X_TEST)
                expect(kind, text, lambda: deepcopy(model).evaluate(x, Y_TEST))  # noqa: B023


def test_a_training_is_resumed_on_samples_of_its_scale_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for before, after, kind, text in CONTRADICTIONS:
        trained(before, epochs=1).save_checkpoint(path)
        model = Sequential(net(), (28, 28, 1))
        if kind is ValueError:
            with pytest.raises(kind, match=text):
                model.fit(SCALES[after](X), Y, epochs=2, resume=path, verbose=0)
        else:
            with pytest.warns(kind, match=text), pytest.raises(ValueError, match="got other data"):
                model.fit(SCALES[after](X), Y, epochs=2, resume=path, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        Sequential(net(), (28, 28, 1)).fit(SCALES["long"](X), Y, epochs=2, resume=path, verbose=0)


def test_files_and_pickles_of_earlier_versions_still_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deepcopy(MODELS["bytes"])
    described = model_files.description(model)
    del described["samples"], described["preparation"]
    monkeypatch.setattr(model_files, "description", lambda _: described)
    model.save(tmp_path / "earlier.safetensors")
    again = fastcnn.load_model(tmp_path / "earlier.safetensors")
    assert (again.trained_on, again._knowledge.record, again.preparation) == ("uint8", None, None)
    with pytest.raises(ValueError, match="must hold bytes"):
        again.predict(X_TEST.astype(int))
    state = deepcopy(MODELS["unit"].__getstate__())
    renamed = Sequential.__new__(Sequential)
    renamed.__setstate__(deepcopy({**state, "_known": state.pop("_knowledge")}))
    assert renamed._knowledge == MODELS["unit"]._knowledge
    del state["_preparation"]
    older = Sequential.__new__(Sequential)
    older.__setstate__({**state, "trained_on": "floats"})
    assert (older.trained_on, older._knowledge.record, older.preparation) == ("floats", None, None)
    assert warned(lambda: older.predict(X_TEST.astype(float))) == []  # nothing is known of floats


@pytest.mark.parametrize(
    "record",
    [
        [], "x", {}, {"low": 0}, {"low": 0, "high": 1, "rms": 1, "whole": True, "negative": 0},
        {"low": 1.0, "high": 0.0, "rms": 1, "whole": True, "negative": 0, "samples": 1},
        {"low": 0.0, "high": float("nan"), "rms": 1, "whole": True, "negative": 0, "samples": 1},
        {"low": 0.0, "high": "1", "rms": 1, "whole": True, "negative": 0, "samples": 1},
        {"low": 0.0, "high": 1.0, "rms": 1, "whole": 1, "negative": 0, "samples": 1},
        {"low": 0.0, "high": 1.0, "rms": 1, "whole": True, "negative": 0, "samples": 1, "more": 1},
    ],
)  # fmt: skip
def test_a_record_in_a_file_is_checked(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deepcopy(MODELS["bytes"])
    described = model_files.description(model) | {"samples": record}
    monkeypatch.setattr(model_files, "description", lambda _: json.loads(json.dumps(described)))
    with pytest.raises(fastcnn.ModelFileError, match="its architecture: "):
        model.save(tmp_path / "model.safetensors")  # which reads what it is to write


def test_a_stream_of_single_predictions_is_compared_now_and_then() -> None:
    model = deepcopy(MODELS["unit"])
    x = SCALES["unit"](X_TEST)
    for _ in range(40):
        model.predict(x[:1])
    for _ in range(471):
        model.predict(x[:1] * 255)  # not compared
    with pytest.raises(ValueError, match="must be scaled as in the training"):
        model.predict(x[:1] * 255)
    with pytest.raises(ValueError, match="must be scaled as in the training"):  # all that are large
        model.predict(x * 255)


def test_the_record_of_samples() -> None:
    record = record_of(X)
    assert record is not None
    assert (record.low, record.high, record.whole, record.samples) == (0, 255, True, 600)
    assert record.rms == pytest.approx(float(np.sqrt((X.astype(float) ** 2).mean())))
    assert record.negative == pytest.approx(float((X < 128).mean()))
    assert record_of(X[:0]) is None
    assert record_of(np.array([[1, np.nan]])) is None
    assert record_of(np.full((2, 2), np.float16(60000))) is not None
    assert record_of(np.full((2, 2), 1e200)).rms == 1e200  # type: ignore[union-attr]
    some = record_of(np.broadcast_to(X[0], (1 << 20, 28, 28)))  # 800 MB, of which little is read
    assert some is not None
    assert some.samples < 1 << 13
    known = KnownSamples()
    known.learn(X[:100])
    known.learn(X[100:])
    assert known.record is not None
    assert (known.record.high, known.record.samples) == (255, 600)
    assert known_from("uint8", known.as_dict()) == known
    assert SampleRecord(**known.as_dict()) == known.record  # type: ignore[arg-type]


# --- CNNClassifier: numbers as they are, in any dtype ---------------------------------------------


def classifier(scale: str) -> CNNClassifier:
    fitted = CNNClassifier(net(), epochs=1, random_state=0)
    return fitted.fit(SCALES[scale](X), Y)


CLASSIFIERS = {name: classifier(name) for name in ("bytes", "unit", "standardised", "long")}


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("bytes", "unit", InputWarning),
        ("bytes", "symmetric", InputWarning),
        ("bytes", "standardised", InputWarning),
        ("bytes", "wide", ValueError),
        ("bytes", "signed", InputWarning),
        ("unit", "bytes", ValueError),
        ("unit", "long", ValueError),
        ("unit", "standardised", InputWarning),
        ("standardised", "bytes", ValueError),
        ("long", "unit", InputWarning),
    ],
)
def test_a_classifier_compares_too(before: str, after: str, kind: type[Exception]) -> None:
    x = SCALES[after](X_TEST)
    for call in (
        lambda c: c.predict(x),
        lambda c: c.predict_proba(x[:1]),
        lambda c: c.score(x, Y_TEST),
        lambda c: c.predict(x.reshape(len(x), -1)),
    ):
        for carried in (deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
            expect(kind, "X .*hold", lambda: call(carried(CLASSIFIERS[before])))  # noqa: B023


@pytest.mark.parametrize("scale", ["bytes", "long", "float", "half", "unsigned", "short"])
def test_a_classifier_takes_the_same_numbers_in_any_dtype(scale: str) -> None:
    for name in ("bytes", "long"):
        fitted = deepcopy(CLASSIFIERS[name])
        x = SCALES[scale](X_TEST)
        assert warned(lambda: fitted.predict(x)) == []  # noqa: B023
        assert (fitted.predict(x) == fitted.predict(X_TEST)).mean() > 0.99
        for look in UNUSUAL.values():
            dark = SCALES[scale](look(X_TEST[:5]))
            assert warned(lambda: fitted.predict(dark)) == []  # noqa: B023


def test_a_classifier_is_told_nothing_of_its_models_scaling() -> None:
    for scale in SCALES:
        assert warned(lambda: classifier(scale).score(SCALES[scale](X_TEST), Y_TEST)) == []  # noqa: B023


# --- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 48, 64), (4, 16, 16), (1, 8, 8)])
def test_channels_that_come_first_are_told(shape: tuple[int, ...]) -> None:
    x, y = np.random.default_rng(0).random((20, *shape)), np.arange(20) % 2
    assert channels_first(shape)
    layers = [GlobalAvgPool2D(), Dense(2)]
    for call in (
        lambda: Sequential(layers, shape),
        lambda: Sequential(layers).fit(x, y, verbose=0),
        lambda: Sequential(layers).predict(x),
        lambda: Sequential(layers).train_on_batch(x, y),
        lambda: Sequential(layers).build(shape),
    ):
        (warnings_of_input,) = warned(call)
        assert "the channels seem to come first. fastcnn.nchw_to_nhwc(x)" in warnings_of_input
    with pytest.raises(ValueError, match=r"channels seem to come first.*image_shape=\("):
        CNNClassifier(epochs=1).fit(x, y)
    meant = CNNClassifier(layers, image_shape=shape, epochs=1, random_state=0)
    assert warned(lambda: meant.fit(x, y).predict(x)) != []  # of the model, not an error


@pytest.mark.parametrize(
    "shape",
    [(28, 28, 1), (32, 32, 3), (1, 128, 9), (1, 16, 3), (3, 3, 256), (4, 4, 64), (8, 8, 8),
     (7, 7, 7), (3, 3, 3), (1, 1, 512), (1, 100, 1), (16, 16, 16), (28, 28), (2, 30, 40)],
)  # fmt: skip
def test_layouts_that_are_usual_are_not_told(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random((20, *shape))
    layers = [GlobalAvgPool2D(), Dense(2)]
    assert warned(lambda: Sequential(layers, shape).predict(x)) == []
    assert warned(lambda: Sequential(layers).fit(x, np.arange(20) % 2, verbose=0)) == []
    CNNClassifier(layers, epochs=1).fit(x, np.arange(20) % 2)


def test_a_loaded_model_repeats_no_doubt(tmp_path: Path) -> None:
    with pytest.warns(InputWarning, match="channels seem to come first"):
        model = Sequential([GlobalAvgPool2D(), Dense(2)], (3, 32, 32))
    assert warned(lambda: through_file(model, tmp_path).predict(np.zeros((1, 3, 32, 32)))) == []


def test_an_error_of_a_shape_says_what_would_fit() -> None:
    model = Sequential([MaxPool2D(), Flatten(), Dense(2)], (32, 30, 3))
    cases = [
        ((5, 3, 32, 30), r"its channels seem to come first: fastcnn.nchw_to_nhwc\(x\)"),
        ((32, 30, 3), r"a single sample is x\[numpy.newaxis\]"),
        ((5, 2880), r"rows become images by x.reshape\(-1, 32, 30, 3\)"),
    ]
    for shape, text in cases:
        with pytest.raises(ValueError, match=text):
            model.predict(np.zeros(shape))
    grey = Sequential([Flatten(), Dense(2)], (28, 28, 1))
    for shape, text in [
        ((5, 1, 28, 28), "nchw_to_nhwc"), ((28, 28), "a single sample"), ((28, 28, 1), "a single"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=text):
            grey.predict(np.zeros(shape))


def test_a_single_picture_instead_of_images_is_told() -> None:
    x = np.random.default_rng(0).random((32, 32, 3))
    (warnings_of_input,) = warned(lambda: Sequential([Flatten(), Dense(2)]).predict(x))
    assert "seems to be one picture (H, W, C), which is x[numpy.newaxis]" in warnings_of_input
    with pytest.raises(ValueError, match="seems to be one picture"):
        CNNClassifier().fit(x, np.arange(32) % 2)
    assert warned(lambda: Sequential([Flatten(), Dense(2)]).predict(x[:20])) == []  # 20 windows


def test_a_classifier_takes_no_samples_of_another_shape() -> None:
    rng = np.random.default_rng(0)
    fitted = CNNClassifier(epochs=1, random_state=0).fit(
        rng.random((20, 12, 10, 3)), np.arange(20) % 2
    )
    fitted.predict(rng.random((2, 360)))
    for shape in ((2, 3, 12, 10), (2, 10, 12, 3), (2, 12, 30), (2, 36, 10)):
        with pytest.raises(ValueError, match=r"X must hold samples of shape \(12, 10, 3\)"):
            fitted.predict(rng.random(shape))
    grey = CNNClassifier(epochs=1, random_state=0).fit(rng.random((20, 12, 10)), np.arange(20) % 2)
    for shape in ((2, 12, 10), (2, 12, 10, 1), (2, 1, 12, 10), (2, 120)):
        grey.predict(rng.random(shape))
