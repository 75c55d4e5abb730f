"""Learning-rate schedules: functions from the number of a step, counted from 0, to a rate.

Steps count from the beginning of each training. ``steps=None`` means all steps of the training. The
optimizer supplies their number with each call, so several trainings may share a schedule.

Sources: I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983 (cosine); L. N. Smith, N. Topin,
"Super-Convergence", arXiv:1708.07120 (one-cycle).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from math import cos, pi
from typing import Any, ClassVar

from fastcnn.core.attributes import Checked, FixedAttributes
from fastcnn.core.class_registry import Registry, module_of
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, number
from fastcnn.core.user_code import Contract, check_methods


def _checked_rate(schedule: Schedule, call: Callable[[int], Any], step: int) -> float:
    return number(f"the rate of {quoted(schedule)} for step {step}", call(step))


_CONTRACT: Contract = {"__call__": _checked_rate}

_training_steps: ContextVar[int | None] = ContextVar(
    "steps of the training that asks", default=None
)


def rate_at(schedule: Schedule, step: int, total: int | None) -> float:
    """The rate of a training's step. ``total`` is the training's number of steps, None if unknown.

    >>> rate_at(Cosine(0.1), 5, total=11), rate_at(Cosine(0.1), 5, total=6)
    (0.05, 0.0)
    """
    token = _training_steps.set(total)
    try:
        return schedule(step)
    finally:
        _training_steps.reset(token)


def _steps(name: str, value: object) -> int | None:
    return None if value is None else count(name, value)


def _warmup(name: str, value: object) -> int:
    return count(name, value, least=0)


def _rise(name: str, value: object) -> float:
    rise = number(name, value)
    if not 0 < rise < 1:
        raise ValueError(f"{name} must be above 0 and below 1, got {quoted(value)}")
    return rise


def _divisor(name: str, value: object) -> float:
    divisor = number(name, value)
    if not divisor:
        raise ValueError(f"start and end must be above 0, got {name}={quoted(value)}")
    return divisor


def _then(name: str, value: Any) -> Any:
    if isinstance(value, Schedule):
        return value
    return schedule_from_dict(value) if isinstance(value, dict) else Constant(number(name, value))


class Schedule(FixedAttributes):
    """Base class: ``schedule(step)`` is the rate of that step, a finite number of at least 0.

    A subclass keeps its constructor's arguments as attributes of the same names. They may be set,
    and take effect with the next step. If ``steps`` is None, ``total`` is the number of steps of
    the current training; outside of a training it keeps the value that it was set to.
    """

    registry: ClassVar[Registry[Schedule]] = Registry("schedule")
    attributes_beside_arguments = ("total", "steps")
    steps: int | None = None
    _total: int | None = None

    @property
    def total(self) -> int | None:
        """Number of steps of the current training."""
        asking = _training_steps.get()
        return self._total if asking is None else asking

    @total.setter
    def total(self, value: int | None) -> None:
        self._total = _steps("total", value)

    def __init_subclass__(cls) -> None:
        Schedule.registry.add(cls.__name__, cls)
        check_methods(cls, _CONTRACT)

    def __call__(self, step: int) -> float:
        raise NotImplementedError(
            f"{type(self).__name__} must define __call__(self, step), which returns the rate of a "
            f"step"
        )

    def config(self) -> JsonObject:
        """The constructor's arguments."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self"}

    def progress(self, step: int) -> float:
        """The position of ``step`` among all steps, from 0 at the first to 1 at the last."""
        steps = self.steps if self.steps is not None else self.total
        if steps is None:
            raise ValueError(
                f"steps must be set for a schedule outside of fit, got None in {quoted(self)}"
            )
        return min(step / max(steps - 1, 1), 1.0)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


class Constant(Schedule):
    """The same rate at every step.

    >>> Constant(0.1)(1000)
    0.1
    """

    rate = Checked(number)

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate


class Step(Schedule):
    """A rate that is multiplied by ``factor`` after every ``every`` steps.

    >>> schedule = Step(0.1, every=10, factor=0.5)
    >>> schedule(9), schedule(10), schedule(20)
    (0.1, 0.05, 0.025)
    """

    rate, every, factor = Checked(number), Checked(count), Checked(number)

    def __init__(self, rate: float, every: int, factor: float = 0.1) -> None:
        self.rate, self.every, self.factor = rate, every, factor

    def __call__(self, step: int) -> float:
        return self.rate * self.factor ** (step // self.every)


class Cosine(Schedule):
    """``warmup`` steps up to ``rate``, then down to ``final`` along half a cosine.

    >>> schedule = Cosine(0.1, steps=11)
    >>> [round(schedule(step), 4) for step in (0, 5, 10, 20)]
    [0.1, 0.05, 0.0, 0.0]
    """

    rate, final = Checked(number), Checked(number)
    steps, warmup = Checked(_steps), Checked(_warmup)

    def __init__(
        self, rate: float, steps: int | None = None, warmup: int = 0, final: float = 0.0
    ) -> None:
        self.rate, self.steps, self.warmup, self.final = rate, steps, warmup, final

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.rate * (step + 1) / (self.warmup + 1)
        start = self.progress(self.warmup)
        share = (self.progress(step) - start) / (1 - start) if start < 1 else 1.0
        return _half_cosine(self.rate, self.final, share)


class OneCycle(Schedule):
    """Up from ``rate / start`` to ``rate``, then down to ``rate / end``, along half cosines.

    ``rise`` is the share of the steps in which the rate goes up.

    >>> schedule = OneCycle(0.1, steps=11, rise=0.3, start=10)
    >>> [round(schedule(step), 4) for step in (0, 3, 10)]
    [0.01, 0.1, 0.0]
    """

    rate, steps, rise = Checked(number), Checked(_steps), Checked(_rise)
    start, end = Checked(_divisor), Checked(_divisor)

    def __init__(
        self,
        rate: float,
        steps: int | None = None,
        rise: float = 0.3,
        start: float = 25.0,
        end: float = 1e4,
    ) -> None:
        self.rate, self.steps, self.rise = rate, steps, rise
        self.start, self.end = start, end

    def __call__(self, step: int) -> float:
        share = self.progress(step)
        if share < self.rise:
            return _half_cosine(self.rate / self.start, self.rate, share / self.rise)
        return _half_cosine(self.rate, self.rate / self.end, (share - self.rise) / (1 - self.rise))


class Warmup(Schedule):
    """A rise from nearly 0 to the first rate of another schedule, in ``warmup`` equal parts.

    The other schedule begins after the last of these steps, and has the rest of the steps. ``then``
    may be a number for a rate that stays.

    >>> schedule = Warmup(Step(0.1, every=10), warmup=3)
    >>> [round(schedule(step), 4) for step in (0, 1, 2, 3, 12, 13)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.01]
    """

    then, warmup = Checked(_then), Checked(_warmup)

    def __init__(self, then: float | Schedule | JsonObject, warmup: int) -> None:
        self.then, self.warmup = then, warmup

    def __call__(self, step: int) -> float:
        steps_after = None if self.total is None else max(self.total - self.warmup, 1)
        if step < self.warmup:
            return rate_at(self.then, 0, steps_after) * (step + 1) / (self.warmup + 1)
        return rate_at(self.then, step - self.warmup, steps_after)

    def config(self) -> JsonObject:
        return {"then": schedule_to_dict(self.then), "warmup": self.warmup}

    def __repr__(self) -> str:
        return f"Warmup({self.then!r}, warmup={self.warmup})"


def schedule_to_dict(schedule: Schedule) -> JsonObject:
    """A schedule as JSON values, for :func:`schedule_from_dict`."""
    kind = type(schedule)
    return {"class": kind.__name__, **module_of(kind), "config": schedule.config()}


def schedule_from_dict(record: Any) -> Schedule:
    """The schedule for a ``{"class": …, "config": …}``; ``ValueError`` for an unknown class."""
    if not isinstance(record, dict) or "class" not in record:
        raise ValueError(
            f"schedule must be one of {', '.join(Schedule.registry)}, got {quoted(record)}"
        )
    kind = Schedule.registry.find(record["class"], record.get("module"))
    return kind(**record["config"])


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + cos(pi * share)) / 2
