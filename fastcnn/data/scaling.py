"""What the samples of a training were like, and which later samples contradict them.

A model scales bytes and nothing else, so pixels in another dtype, or scaled in another way, would
give wrong results without an error. A model therefore keeps a record of its training samples: bytes
or other numbers (:class:`KnownSamples`), and of what size (:class:`SampleRecord`). Later samples
are compared with it.

**Errors** are for what cannot be meant: bytes after floats; integers or booleans that are no bytes
after bytes; images whose numbers are, in their root mean square, more than 16 times the largest one
of the training. **Warnings** (:class:`InputWarning`, each once for a model) are for what is likely
a mistake: numbers far outside of the range of the training; numbers without a sign after numbers of
which many were negative; fractions up to one sixteenth of the range after whole numbers; at a
training, images that nobody has scaled. Images that are black, dark, or of one colour lie within
the range of any training, so they are never remarkable. Vectors of fewer than 64 numbers are no
pixels, and their values are not compared.
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
from fastcnn.core.quoting import quoted
from fastcnn.data.on_demand import Samples

Kind = Literal["uint8", "floats"]

SCALING = "x / 255 - 0.5"
"""What is done to bytes; written to model files."""

_LOOKED_AT = 1 << 19  # numbers of a training that are summarised, of evenly spaced samples
_COMPARED = 1 << 20  # numbers of an evaluation that are compared with the summary
_GLANCED_AT = 1 << 14  # numbers of one prediction that are compared
_CHUNK = 1 << 18
# Predictions of few numbers are compared at first, and then one in so many: a comparison takes
# some microseconds, and a prediction of one small image takes ten.
_FIRST_CALLS, _EVERY, _MANY = 16, 512, 1 << 17
_PIXELS = 64  # numbers in the shortest vector that may be an image
_FEW_SAMPLES = 16
# A record of fewer samples is compared with nothing, and an error needs one of many samples,
# because the first batches of a training may all be dark.
_FEW_TRAINED, _MANY_TRAINED = 8, 256
FEW_STEPS_TRAINED = 64
"""A training step compares its samples with a record of at least so many."""
_UNSCALED = 16.0  # a root mean square above it is not that of scaled numbers
_BEYOND = 16.0  # times the largest number of the training, as a root mean square
_EXCESS = 0.02  # mean square of what lies outside of the range, in squares of its width
_MOSTLY_SIGNED = 0.3

_HERE = str(Path(__file__).parents[1])


class InputWarning(UserWarning):
    """Samples are probably not scaled, or not laid out, as a model needs them."""


def warn(message: str) -> None:
    """Warn at the line that called fastcnn, as :class:`InputWarning`."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, InputWarning, stacklevel=level)


@dataclass(frozen=True)
class SampleRecord:
    """What samples were like, as they were given.

    Attributes:
        low, high: the smallest and the largest number.
        rms: the root of the mean square.
        whole: whether all numbers are whole.
        negative: the share of numbers below 0, or of bytes that scaling makes negative.
        samples: how many samples were looked at.
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
        """The record of these samples and others."""
        return SampleRecord(
            min(self.low, other.low),
            max(self.high, other.high),
            max(self.rms, other.rms),
            self.whole and other.whole,
            min(self.negative, other.negative),
            self.samples + other.samples,
        )


def record_of(
    array: Samples, numbers: int = _LOOKED_AT, scales_bytes: bool = True
) -> SampleRecord | None:
    """The record of samples (N, …), from about so many numbers of evenly spaced samples.

    A byte below 128 counts as negative where bytes are scaled. None where there is no number, or
    one that is not finite.

    >>> record_of(np.array([[0, 255], [0, 255]], np.float32) / 255 - 0.5)
    SampleRecord(low=-0.5, high=0.5, rms=0.5, whole=False, negative=0.5, samples=2)
    """
    low, high, signs, squares, whole, count, size = inf, -inf, 0, 0.0, True, 0, 0
    middle = 128 if array.dtype == np.uint8 and scales_bytes else 0
    for part in _parts(array, _distance(array, numbers)):
        if not part.size:
            return None
        least, most = float(part.min()), float(part.max())
        if not (isfinite(least) and isfinite(most)):
            return None
        low, high = min(low, least), max(high, most)
        count, size = count + len(part), size + part.size
        signs += int(np.count_nonzero(part < middle))
        for chunk in _chunks(part):
            squares += float(np.vdot(chunk, chunk))
            if whole and part.dtype.kind == "f":
                whole = bool((chunk == np.rint(chunk)).all())
    if not size:
        return None
    rms = sqrt(squares / size) if isfinite(squares) else max(abs(low), abs(high))
    return SampleRecord(low, high, rms, whole, signs / size, count)


@dataclass
class KnownSamples:
    """What a model knows of the samples that it was trained on; it speaks where others differ.

    Attributes:
        kind: "uint8", "floats" (all numbers that are no bytes), or None before a training.
        record: what they were like; None where that is not known, as in files of earlier versions.
        scales_bytes: whether bytes are scaled and other numbers not, as in ``Sequential``. Without
            it bytes are numbers like all others.
    """

    kind: Kind | None = None
    record: SampleRecord | None = None
    scales_bytes: bool = True
    # The dtype, as a character, that was in order in the last call.
    _accepted: str = field(default="", repr=False, compare=False)
    _calls: int = field(default=0, repr=False, compare=False)
    _steps: int = field(default=0, repr=False, compare=False)
    _step_dtype: object = field(default=None, repr=False, compare=False)
    _warned: set[str] = field(default_factory=set, repr=False, compare=False)

    def glance(
        self, name: str, array: Samples, least: int = _FEW_TRAINED, *, closer: bool = False
    ) -> None:
        """:meth:`check` for calls that are short: dtypes in each call, numbers in some.

        The numbers of the first calls are compared, then those of one call in 512, and of all that
        are large; where the training had at least so many samples. With ``closer`` they are
        compared in any case.
        """
        code = array.dtype.char
        kind = self.kind
        if kind is None or (code == "B" and kind == "uint8"):
            return
        if code != self._accepted:
            if self.scales_bytes:
                self._check_dtype(name, array)
            self._accepted = code
        self._calls = calls = self._calls + 1
        if calls % _EVERY and calls > _FIRST_CALLS and array.size < _MANY and not closer:
            return  # nearly always
        self._check_numbers(name, array, _GLANCED_AT, least)

    def check(self, name: str, array: Samples) -> None:
        """Raise ``ValueError`` or warn where samples contradict those of the training.

        Args:
            name: of the argument, for the message.
            array: samples (N, …) of numbers.
        """
        if self.kind is None:
            return
        if self.scales_bytes:
            self._check_dtype(name, array)
        self._check_numbers(name, array, _COMPARED, _FEW_TRAINED)

    def check_training(self, name: str, array: Samples, normalised: bool = False) -> None:
        """Warn where samples of a first training are not scaled.

        ``normalised`` is for a model that begins with a normalisation, to which scale is nothing.
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
                    f"from 0 to 255, and scaled by {SCALING}, which makes them nearly alike. Give "
                    f"floats, such as {name} / {record.high:g}"
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
        """Add samples of a training to what is known."""
        kind: Kind = "uint8" if array.dtype == np.uint8 else "floats"
        if self.kind is None:
            self.kind = kind
        if self.kind != kind and self.scales_bytes:
            return
        record = record_of(array, scales_bytes=self.scales_bytes)
        if record is not None:
            self.record = record if self.record is None else self.record.with_more(record)

    def is_routine(self, array: Array) -> bool:
        """Whether a training step needs neither :meth:`glance` nor :meth:`learn_batch`.

        So it is in most steps: not in the first ones, not in one of 512, and not where the dtype
        differs from that of the last step that was looked at, or the batch is large.
        """
        steps = self._steps + 1
        if steps <= _FIRST_CALLS or steps % _EVERY == 0:
            return False
        if array.dtype is not self._step_dtype or array.size >= _MANY:
            return False
        self._steps = steps
        return True

    def learn_batch(self, array: Samples, normalises: Callable[[], bool]) -> None:
        """:meth:`learn` for single steps: of the first ones, and then of one in 512.

        ``normalises`` says whether the model begins with a normalisation.
        """
        self._steps, self._step_dtype = self._steps + 1, array.dtype
        if self._steps <= _FIRST_CALLS or self._steps % _EVERY == 0:
            if array.dtype != np.uint8:  # a batch of bytes may be dark
                self.check_training("x", array, normalises())
            self.learn(array)

    def warn_once(self, rule: str, message: str) -> None:
        """Warn, unless there was a warning by this rule."""
        self._warn(rule, message)

    def is_known(self, rule: str) -> None:
        """Leave out the warning by this rule."""
        self._warned.add(rule)

    def as_dict(self) -> dict[str, Any] | None:
        """The record as JSON holds it."""
        return None if self.record is None else asdict(self.record)

    def __getstate__(self) -> dict[str, Any]:
        # A copy warns anew.
        return {name: getattr(self, name) for name in ("kind", "record", "scales_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _check_dtype(self, name: str, array: Samples) -> None:
        if self.kind == "floats" and array.dtype == np.uint8:
            raise ValueError(
                f"{name} must hold floats, scaled as those that the model was trained on, got uint8"
            )
        if self.kind == "uint8" and array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ValueError(
                f"{name} must hold bytes (uint8), as those that the model was trained on, or "
                f"floats that are scaled as bytes are, by {SCALING}, got {array.dtype}. Pixels "
                f"from 0 to 255 become bytes by {name}.astype(numpy.uint8)"
            )

    def _check_numbers(self, name: str, array: Samples, numbers: int, least: int) -> None:
        trained, of_bytes = self.record, False
        if self.kind == "uint8" and self.scales_bytes:
            if array.dtype == np.uint8:
                self._check_bytes(name, array, numbers)
                return
            share = 0.0 if trained is None else trained.negative
            trained, of_bytes = SampleRecord(-0.5, 0.5, 0.5, False, share, _MANY_TRAINED), True
        if trained is None or trained.low == trained.high or trained.samples < least:
            return
        if not of_bytes and not _may_be_pixels(array):
            return
        some = _evenly(array, numbers)
        if not some.size:
            return
        low, high = float(some.min()), float(some.max())
        inside = trained.low <= low and high <= trained.high
        if inside and not trained.whole and not (low >= 0 and trained.negative >= _MOSTLY_SIGNED):
            return  # nearly always
        record = record_of(some, numbers, scales_bytes=False)
        if record is None:
            return
        if of_bytes:
            trained_on = f"bytes, which it scales by {SCALING}"
            remedy = f"Give the bytes, or floats scaled by {SCALING}"
        else:
            trained_on = f"numbers from {trained.low:g} to {trained.high:g}"
            remedy = "Scale them as those of the training"
        text = (
            f"numbers from {low:g} to {high:g}, but the model was trained on {trained_on}. {remedy}"
        )
        surely = record.rms > _BEYOND * trained.largest and trained.samples >= _MANY_TRAINED
        if surely and _may_be_pixels(array):
            raise ValueError(f"{name} must be scaled as in the training, but holds {text}")
        if _contradicts(some, record, trained):
            self._warn("range", f"{name} holds {text}")

    def _check_bytes(self, name: str, array: Samples, numbers: int) -> None:
        """Warn of bytes of 0 and 1 alone after bytes that are pixels."""
        trained = self.record
        if trained is None or trained.high < 128 or len(array) < _FEW_SAMPLES:
            return
        some = _evenly(array, numbers)
        if some.max() == 1 and np.count_nonzero(some) > some.size // 20:
            self._warn(
                "range",
                f"{name} holds bytes of 0 and 1 alone, but the model was trained on bytes up to "
                f"{trained.high:g}. Give {name} * numpy.uint8(255), if 1 stands for white",
            )

    def _warn(self, rule: str, message: str) -> None:
        if rule not in self._warned:
            self._warned.add(rule)
            warn(message)


def known_from(kind: Any, record: Any) -> KnownSamples:
    """What a model file says of the training's samples; ``ValueError`` for what it cannot say."""
    if kind not in (None, "uint8", "floats"):
        raise ValueError(f"its bytes or floats are of an unknown kind, {kind!r}")
    if record is None:
        return KnownSamples(kind)
    if not isinstance(record, dict):
        raise ValueError(f"its record of samples must be a dict, got {quoted(record)}")
    return KnownSamples(kind, SampleRecord(**record))


def _contradicts(some: Array, record: SampleRecord, trained: SampleRecord) -> bool:
    """Whether the numbers are probably scaled in another way than those of the training."""
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
        np.minimum(beyond, 3, out=beyond)  # so that one hot pixel is no matter
        total += float(np.vdot(beyond, beyond))
    return total / some.size > _EXCESS


def _may_be_pixels(array: Samples) -> bool:
    return array.ndim > 2 or prod(array.shape[1:]) >= _PIXELS


def _distance(array: Samples, numbers: int) -> int:
    """How far apart samples lie that hold about so many numbers, or one."""
    each = max(1, prod(array.shape[1:]))
    return max(1, -(-len(array) * each // max(numbers, each)))


def _evenly(array: Samples, numbers: int) -> Array:
    """Samples at even distances that hold about so many numbers, or one."""
    return array[:: _distance(array, numbers)]


def _parts(array: Samples, distance: int) -> Iterator[Array]:
    """Samples at this distance, some at a time, because each may be a copy."""
    some = max(1, _CHUNK // max(1, prod(array.shape[1:]))) * distance
    for first in range(0, len(array), some):
        yield array[first : first + some : distance]


def _chunks(array: Array) -> Iterator[Array]:
    """The numbers in float64, in pieces that are small."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, _CHUNK):
        yield np.asarray(flat[first : first + _CHUNK], np.float64)
