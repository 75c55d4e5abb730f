"""Comparison of samples with the samples of a model's training.

A model scales bytes and nothing else. Pixels in another dtype, or with another scale, would give
wrong results without an error. Therefore a model records whether its training samples were bytes or
other numbers (:class:`KnownSamples`), and their range (:class:`SampleRecord`). Later samples are
compared with this record.

**Errors** are raised for samples that cannot be meant:

- bytes after a training on floats;
- integers or booleans that are no bytes after a training on bytes;
- images whose root mean square is above 16 times the largest number of the training.

**Warnings** (:class:`InputWarning`, each once for a model) are given for probable mistakes:

- numbers far outside of the range of the training;
- only positive numbers after a training with many negative ones;
- fractions up to one sixteenth of the range after a training on whole numbers;
- training images that are not scaled.

Images that are black, dark, or of one colour are in the range of any training, so nothing is said
about them. Vectors of fewer than 64 numbers are no pixels, and their values are not compared.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from math import inf, isfinite, prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.data.on_demand import Samples
from fastcnn.data.pixel_scaling import CENTRED, Scaling

Kind = Literal["uint8", "floats"]

_RECORD_NUMBERS = 1 << 19  # numbers of a training in its record, from evenly spaced samples
_CHECK_NUMBERS = 1 << 20  # numbers of an evaluation that are compared with the record
_GLANCE_NUMBERS = 1 << 14  # numbers of one prediction that are compared with the record
_CHUNK = 1 << 18
# The first small predictions are compared, and then one in _EVERY, because a comparison takes about
# as long as a prediction of one small image. Predictions of _MANY numbers are always compared.
_FIRST_CALLS, _EVERY, _MANY = 16, 512, 1 << 17
_PIXELS = 64  # numbers in the shortest vector that may be an image
_FEW_SAMPLES = 16
# Samples are compared only with a record of at least _FEW_TRAINED samples. An error needs a record
# of _MANY_TRAINED samples, because the first batches of a training may all be dark.
_FEW_TRAINED, _MANY_TRAINED = 8, 256
FEW_STEPS_TRAINED = 64
"""A training step compares its samples with a record of at least this many samples."""
_UNSCALED = 16.0  # numbers with a larger root mean square are not scaled
_BEYOND = 16.0  # largest root mean square, in multiples of the largest number of the training
_EXCESS = 0.02  # largest mean square of the excess over the range, in squares of the range's width
_MOSTLY_SIGNED = 0.3  # share of negative numbers

_HERE = str(Path(__file__).parents[1])


class InputWarning(UserWarning):
    """The scale or the layout of samples is probably not the one that a model needs."""


def warn(message: str) -> None:
    """Give an :class:`InputWarning` at the line that called fastcnn."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, InputWarning, stacklevel=level)


@dataclass(frozen=True)
class SampleRecord:
    """Statistics of samples, before scaling.

    Attributes:
        low, high: the smallest and the largest number.
        rms: the root of the mean square.
        whole: whether all numbers are whole.
        negative: the share of numbers below 0, or of bytes that scaling makes negative.
        samples: number of samples in the statistics.
    """

    low: float
    high: float
    rms: float
    whole: bool
    negative: float
    samples: int

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.rms, self.negative)
        if not all(isinstance(n, int | float) and isfinite(n) for n in numbers):
            raise ValueError(f"a record of samples must hold finite numbers, got {numbers}")
        if self.low > self.high or type(self.whole) is not bool or type(self.samples) is not int:
            raise ValueError(f"a record of samples must be in order, got {self}")

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    def with_more(self, other: SampleRecord) -> SampleRecord:
        """The record of these samples and of other samples together."""
        return SampleRecord(
            min(self.low, other.low),
            max(self.high, other.high),
            max(self.rms, other.rms),
            self.whole and other.whole,
            min(self.negative, other.negative),
            self.samples + other.samples,
        )


def record_of(
    array: Samples, numbers: int = _RECORD_NUMBERS, middle: float = 127.5
) -> SampleRecord | None:
    """The record of samples (N, …), from about ``numbers`` numbers of evenly spaced samples.

    Numbers below 0 count as negative, and bytes below ``middle``, which scaling makes negative. The
    result is None if there is no number, or a number is not finite.

    >>> record_of(np.array([[0, 255], [0, 255]], np.float32) / 255 - 0.5)
    SampleRecord(low=-0.5, high=0.5, rms=0.5, whole=False, negative=0.5, samples=2)
    """
    low, high, signs, squares, are_integers, count, size = inf, -inf, 0, 0.0, True, 0, 0
    zero = middle if array.dtype == np.uint8 else 0
    for part in _parts(array, _distance(array, numbers)):
        if not part.size:
            return None
        least, most = float(part.min()), float(part.max())
        if not (isfinite(least) and isfinite(most)):
            return None
        low, high = min(low, least), max(high, most)
        count, size = count + len(part), size + part.size
        signs += int(np.count_nonzero(part < zero))
        for chunk in _chunks(part):
            squares += _sum_of_squares(chunk)
            if are_integers and part.dtype.kind == "f":
                are_integers = bool((chunk == np.rint(chunk)).all())
    if not size:
        return None
    rms = sqrt(squares / size) if isfinite(squares) else max(abs(low), abs(high))
    return SampleRecord(low, high, rms, are_integers, signs / size, count)


@dataclass
class KnownSamples:
    """A model's knowledge of its training samples, with which later samples are compared.

    Attributes:
        kind: "uint8", "floats" (all numbers that are no bytes), or None before a training.
        record: statistics of the samples. None if unknown, as in files of earlier versions.
        scales_bytes: whether bytes are scaled and other numbers are not, as in ``Sequential``.
            If False, bytes are numbers like all others.
        scaling: of bytes.
    """

    kind: Kind | None = None
    record: SampleRecord | None = None
    scales_bytes: bool = True
    scaling: Scaling = CENTRED
    # The character of the last dtype that passed the check.
    _last_dtype: str = field(default="", repr=False, compare=False)
    _calls: int = field(default=0, repr=False, compare=False)
    _steps: int = field(default=0, repr=False, compare=False)
    _step_dtype: object = field(default=None, repr=False, compare=False)
    _warned: set[str] = field(default_factory=set, repr=False, compare=False)

    def glance(
        self, name: str, array: Samples, least: int = _FEW_TRAINED, *, closer: bool = False
    ) -> None:
        """A fast :meth:`check` for short calls: each call compares dtypes, some compare numbers.

        The numbers of the first calls, of one call in 512 and of large calls are compared; with
        ``closer`` the numbers of each call. ``least`` is the number of training samples that a
        comparison of numbers needs.
        """
        code = array.dtype.char
        kind = self.kind
        if kind is None or (code == "B" and kind == "uint8"):
            return
        if code != self._last_dtype:
            if self.scales_bytes:
                self._check_dtype(name, array)
            self._last_dtype = code
        self._calls = calls = self._calls + 1
        if calls % _EVERY and calls > _FIRST_CALLS and array.size < _MANY and not closer:
            return  # the usual case
        self._check_numbers(name, array, _GLANCE_NUMBERS, least)

    def check(self, name: str, array: Samples) -> None:
        """Raise ``ValueError``, or warn, if samples contradict the samples of the training.

        Args:
            name: the argument's name for the message.
            array: samples (N, …) of numbers.
        """
        if self.kind is None:
            return
        if self.scales_bytes:
            self._check_dtype(name, array)
        self._check_numbers(name, array, _CHECK_NUMBERS, _FEW_TRAINED)

    def check_training(self, name: str, array: Samples, normalised: bool = False) -> None:
        """Warn if the samples of a first training are not scaled.

        ``normalised`` says that the model begins with a normalisation, which removes any scale.
        """
        if self.record is not None or normalised:
            return
        record = record_of(array)
        if record is None or not _may_be_pixels(array):
            return
        text = None
        if array.dtype == np.uint8:
            if len(array) >= _FEW_SAMPLES and 0 < record.high <= _UNSCALED:
                text = (
                    f"{name} holds bytes of at most {record.high:g}. Bytes are taken as pixels "
                    f"from 0 to 255, and scaled by {self.scaling}, which makes them nearly alike. "
                    f"Give floats, such as {name} / {record.high:g}"
                )
        elif record.whole and record.low >= 0 and 128 <= record.high <= 255:
            text = (
                f"{name} holds pixels from {record.low:g} to {record.high:g} as {array.dtype}, "
                f"which are not scaled. Give bytes, which are: {name}.astype(numpy.uint8)"
            )
        elif record.rms > _UNSCALED:
            text = (
                f"{name} holds numbers from {record.low:g} to {record.high:g} as {array.dtype}, "
                "which are not scaled, and nets train badly on numbers of such a size. Scale them "
                "to about -1 to 1"
            )
        if text is not None:
            self._warn("unscaled", text)

    def learn(self, array: Samples) -> None:
        """Add samples of a training to the record."""
        kind: Kind = "uint8" if array.dtype == np.uint8 else "floats"
        if self.kind is None:
            self.kind = kind
        if self.kind != kind and self.scales_bytes:
            return
        record = record_of(array, middle=self._middle())
        if record is not None:
            self.record = record if self.record is None else self.record.with_more(record)

    def is_routine(self, array: Array) -> bool:
        """Whether a training step needs neither :meth:`glance` nor :meth:`learn_batch`.

        Most steps need neither. The exceptions are the first steps, one step in 512, large batches,
        and a step with another dtype than the last one that was examined.
        """
        steps = self._steps + 1
        if steps <= _FIRST_CALLS or steps % _EVERY == 0:
            return False
        if array.dtype is not self._step_dtype or array.size >= _MANY:
            return False
        self._steps = steps
        return True

    def learn_batch(self, array: Samples, normalises: Callable[[], bool]) -> None:
        """:meth:`learn` for single steps: it records the first steps, and then one step in 512.

        ``normalises`` says whether the model begins with a normalisation.
        """
        self._steps, self._step_dtype = self._steps + 1, array.dtype
        if self._steps <= _FIRST_CALLS or self._steps % _EVERY == 0:
            if array.dtype != np.uint8:  # a batch of bytes may be dark
                self.check_training("x", array, normalises())
            self.learn(array)

    def warn_once(self, rule: str, message: str) -> None:
        """Warn, unless this rule has warned before."""
        self._warn(rule, message)

    def is_known(self, rule: str) -> None:
        """Never warn by this rule."""
        self._warned.add(rule)

    def as_dict(self) -> JsonObject | None:
        """The record as a JSON object, or None."""
        return None if self.record is None else asdict(self.record)

    def __getstate__(self) -> dict[str, Any]:
        # A copy may repeat the warnings.
        return {name: getattr(self, name) for name in ("kind", "record", "scales_bytes", "scaling")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _middle(self) -> float:
        """Bytes below this are negative after scaling."""
        return 255 * float(np.mean(self.scaling.mean)) if self.scales_bytes else 0

    def _check_dtype(self, name: str, array: Samples) -> None:
        if self.kind == "floats" and array.dtype == np.uint8:
            raise ValueError(
                f"{name} must hold floats, scaled as in the training, got uint8; if that scale was "
                f"{self.scaling}, set model.trained_on = 'uint8', and the model scales bytes so"
            )
        if self.kind == "uint8" and array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ValueError(
                f"{name} must hold bytes (uint8), as in the training, or "
                f"floats that are scaled as bytes are, by {self.scaling}, got {array.dtype}. "
                f"Pixels from 0 to 255 become bytes by {name}.astype(numpy.uint8)"
            )

    def _check_numbers(self, name: str, array: Samples, numbers: int, least: int) -> None:
        trained, of_bytes = self.record, False
        if self.kind == "uint8" and self.scales_bytes:
            if array.dtype == np.uint8:
                self._check_bytes(name, array, numbers)
                return
            share = 0.0 if trained is None else trained.negative
            low, high = self.scaling.low, self.scaling.high
            rms = max(abs(low), abs(high))
            trained, of_bytes = SampleRecord(low, high, rms, False, share, _MANY_TRAINED), True
        if trained is None or trained.low == trained.high or trained.samples < least:
            return
        if not of_bytes and not _may_be_pixels(array):
            return
        sample = _evenly(array, numbers)
        if not sample.size:
            return
        low, high = float(sample.min()), float(sample.max())
        inside = trained.low <= low and high <= trained.high
        if inside and not trained.whole and not (low >= 0 and trained.negative >= _MOSTLY_SIGNED):
            return  # the usual case
        record = record_of(sample, numbers, middle=0)
        if record is None:
            return
        if of_bytes:
            trained_on = f"bytes, which it scales by {self.scaling}"
            remedy = f"Give the bytes, or floats scaled by {self.scaling}"
        else:
            trained_on = f"numbers from {trained.low:g} to {trained.high:g}"
            remedy = "Scale them as in the training"
        text = (
            f"numbers from {low:g} to {high:g}, but the model was trained on {trained_on}. {remedy}"
        )
        surely = record.rms > _BEYOND * trained.largest and trained.samples >= _MANY_TRAINED
        if surely and _may_be_pixels(array):
            raise ValueError(f"{name} must be scaled as in the training, but holds {text}")
        if _contradicts(sample, record, trained):
            self._warn("range", f"{name} holds {text}")

    def _check_bytes(self, name: str, array: Samples, numbers: int) -> None:
        """Warn if bytes are only 0 and 1 after a training on bytes that are pixels."""
        trained = self.record
        if trained is None or trained.high < 128 or len(array) < _FEW_SAMPLES:
            return
        sample = _evenly(array, numbers)
        if sample.max() == 1 and np.count_nonzero(sample) > sample.size // 20:
            self._warn(
                "range",
                f"{name} holds bytes of 0 and 1 alone, but the model was trained on bytes up to "
                f"{trained.high:g}. Give {name} * numpy.uint8(255), if 1 stands for white",
            )

    def _warn(self, rule: str, message: str) -> None:
        if rule not in self._warned:
            self._warned.add(rule)
            warn(message)


def known_from(kind: object, record: object, scaling: Scaling = CENTRED) -> KnownSamples:
    """The knowledge of the samples from a model file; ``ValueError`` for impossible values."""
    if kind not in (None, "uint8", "floats"):
        raise ValueError(f"its bytes or floats are of an unknown kind, {kind!r}")
    if record is None:
        return KnownSamples(kind, scaling=scaling)
    if not isinstance(record, dict):
        raise ValueError(f"its record of samples must be a dict, got {quoted(record)}")
    return KnownSamples(kind, SampleRecord(**record), scaling=scaling)


def _contradicts(some: Array, record: SampleRecord, trained: SampleRecord) -> bool:
    """Whether the numbers probably have another scale than the training's."""
    width = trained.high - trained.low
    if trained.whole and not record.whole and record.largest <= trained.high / 16:
        return True  # fractions after whole numbers, such as x / 255 after x
    if trained.whole and record.whole and trained.low >= 0 and record.low < -trained.high / 16:
        return True  # bytes with a sign after pixels
    unsigned = trained.negative >= _MOSTLY_SIGNED and 0 <= record.low <= width / 16 < record.high
    if unsigned and (len(some) >= _FEW_SAMPLES or record.high > trained.high + width / 20):
        return True
    if trained.low <= record.low and record.high <= trained.high:
        return False
    total = 0.0
    for chunk in _chunks(some):
        beyond = np.maximum(np.maximum(trained.low - chunk, chunk - trained.high), 0) / width
        np.minimum(beyond, 3, out=beyond)  # so that one extreme pixel does not decide
        total += _sum_of_squares(beyond)
    return total / some.size > _EXCESS


def _sum_of_squares(numbers: Array) -> float:
    """The sum of the squares of numbers (n,).

    ``numpy.vdot`` would wake a thread of BLAS, which then looks for work for some 30 ms on the core
    of a worker of the compiled engine.
    """
    return float(np.einsum("i,i->", numbers, numbers))


def _may_be_pixels(array: Samples) -> bool:
    return array.ndim > 2 or prod(array.shape[1:]) >= _PIXELS


def _distance(array: Samples, numbers: int) -> int:
    """The distance between samples, so that they hold about ``numbers`` numbers in all."""
    each = max(1, prod(array.shape[1:]))
    return max(1, -(-len(array) * each // max(numbers, each)))


def _evenly(array: Samples, numbers: int) -> Array:
    """Evenly spaced samples that hold about ``numbers`` numbers, but at least one sample."""
    return array[:: _distance(array, numbers)]


def _parts(array: Samples, distance: int) -> Iterator[Array]:
    """Samples at this distance, some at a time, because each part may be a copy."""
    step = max(1, _CHUNK // max(1, prod(array.shape[1:]))) * distance
    for first in range(0, len(array), step):
        yield array[first : first + step : distance]


def _chunks(array: Array) -> Iterator[Array]:
    """The numbers in float64, in small chunks."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, _CHUNK):
        yield np.asarray(flat[first : first + _CHUNK], np.float64)
