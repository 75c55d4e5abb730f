"""Optimizers and schedules against their formulas, written out one number at a time."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.nn.optimizers import optimizer_from_dict, optimizer_named
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.schedules import Constant, Cosine, OneCycle, Schedule, Step, schedule_from_dict

Update = Callable[[float, float, int, dict[str, float]], float]
"""(p, g, t counted from 1, state) -> new p."""


def sgd(p: float, g: float, t: int, s: dict[str, float]) -> float:
    return p - 0.1 * g


def momentum(p: float, g: float, t: int, s: dict[str, float]) -> float:
    s["v"] = 0.9 * s.get("v", 0) - 0.1 * g
    return p + s["v"]


def nesterov(p: float, g: float, t: int, s: dict[str, float]) -> float:
    s["v"] = 0.9 * s.get("v", 0) - 0.1 * g
    return p + 0.9 * s["v"] - 0.1 * g


def adam(p: float, g: float, t: int, s: dict[str, float], decay: float = 0.0) -> float:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g * g
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.99**t)
    return p - 0.1 * decay * p - 0.1 * m / (math.sqrt(v) + 1e-3)


def rmsprop(p: float, g: float, t: int, s: dict[str, float]) -> float:
    s["s"] = 0.8 * s.get("s", 0) + 0.2 * g * g
    return p - 0.1 * g / (math.sqrt(s["s"]) + 1e-3)


def rmsprop_momentum(p: float, g: float, t: int, s: dict[str, float]) -> float:
    s["s"] = 0.8 * s.get("s", 0) + 0.2 * g * g
    s["v"] = 0.5 * s.get("v", 0) - 0.1 * g / (math.sqrt(s["s"]) + 1e-3)
    return p + s["v"]


FORMULAS: dict[str, tuple[Callable[[], Optimizer], Update]] = {
    "sgd": (lambda: SGD(0.1), sgd),
    "momentum": (lambda: SGD(0.1, momentum=0.9), momentum),
    "nesterov": (lambda: SGD(0.1, momentum=0.9, nesterov=True), nesterov),
    "weight-decay": (
        lambda: SGD(0.1, momentum=0.9, weight_decay=0.3),
        lambda p, g, t, s: momentum(p, g + 0.3 * p, t, s),
    ),
    "adam": (lambda: Adam(0.1, beta_2=0.99, epsilon=1e-3), adam),
    "adam-weight-decay": (
        lambda: Adam(0.1, beta_2=0.99, epsilon=1e-3, weight_decay=0.3),
        lambda p, g, t, s: adam(p, g + 0.3 * p, t, s),
    ),
    "adamw": (
        lambda: AdamW(0.1, beta_2=0.99, epsilon=1e-3, weight_decay=0.3),
        lambda p, g, t, s: adam(p, g, t, s, 0.3),
    ),
    "adamw-schedule": (
        lambda: AdamW(Step(0.2, every=3, factor=0.5), beta_2=0.99, epsilon=1e-3, weight_decay=0.3),
        lambda p, g, t, s: p + (0.2, 0.1)[t > 3] / 0.1 * (adam(p, g, t, s, 0.3) - p),
    ),
    "rmsprop": (lambda: RMSprop(0.1, rho=0.8, epsilon=1e-3), rmsprop),
    "rmsprop-momentum": (
        lambda: RMSprop(0.1, rho=0.8, momentum=0.5, epsilon=1e-3),
        rmsprop_momentum,
    ),
    "clip-value": (
        lambda: SGD(0.1, clip_value=0.5),
        lambda p, g, t, s: sgd(p, min(max(g, -0.5), 0.5), t, s),
    ),
    "schedule": (
        lambda: SGD(Step(0.1, every=2, factor=0.5)),
        lambda p, g, t, s: p - 0.1 * 0.5 ** ((t - 1) // 2) * g,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_steps_are_those_of_numpy_to_the_bit(name: str, dtype: type) -> None:
    rng = np.random.default_rng(5)
    reference = rng.standard_normal(100_003).astype(dtype)
    fast = reference.copy()
    plain, compiled = FORMULAS[name][0](), FORMULAS[name][0]()
    for _ in range(3):
        gradient = rng.standard_normal(reference.size).astype(dtype)
        with fastcnn.use_engine("im2col"):
            plain.step(reference, gradient.copy())
        compiled.step(fast, gradient)
    np.testing.assert_array_equal(fast, reference)
    for slot, array in plain.state.items():
        np.testing.assert_array_equal(compiled.state[slot], array)


def gradients(count: int, steps: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield rng.standard_normal(count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_steps_are_those_of_the_formula(name: str, dtype: Any) -> None:
    make, formula = FORMULAS[name]
    optimizer, count = make(), 40_003  # blocks, and a remainder
    start = np.random.default_rng(0).standard_normal(count).astype(dtype)
    p = start.copy()
    looked_at = [0, 1, 16_383, 16_384, 40_002]
    expected = {i: float(start[i]) for i in looked_at}
    state: dict[int, dict[str, float]] = {i: {} for i in looked_at}
    for t, g in enumerate(gradients(count, 5), 1):
        for i in looked_at:
            expected[i] = formula(expected[i], float(g.astype(dtype)[i]), t, state[i])
        optimizer.step(p, g.astype(dtype))
    assert p.dtype == dtype
    assert optimizer.step_count == 5
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    assert np.abs(p - start)[looked_at].max() > 0.05
    for i in looked_at:
        assert p[i] == pytest.approx(expected[i], rel=tolerance, abs=tolerance)


def test_the_norm_of_all_gradients_together_is_clipped() -> None:
    g = np.random.default_rng(0).standard_normal(40_003)
    norm = float(np.sqrt((g * g).sum()))
    for limit, scale in ((norm / 4, 0.25), (norm * 2, 1.0)):
        p = np.zeros(g.size)
        SGD(1.0, clip_norm=limit).step(p, g.copy())
        np.testing.assert_allclose(p, -scale * g, rtol=1e-12)


def test_clipped_steps_are_counted_as_others() -> None:
    # A limit that is never reached changes nothing: not the bias that Adam corrects by the count.
    plain, clipped = Adam(0.1), Adam(0.1, clip_norm=1e9, clip_value=1e9)
    p, q = np.ones(50), np.ones(50)
    for g in gradients(50, 4):
        plain.step(p, g.copy())
        clipped.step(q, g.copy())
    assert plain.step_count == clipped.step_count == 4
    np.testing.assert_allclose(p, q, rtol=1e-14)


def test_values_are_clipped_before_the_norm() -> None:
    p = np.zeros(2)
    SGD(1.0, clip_value=3.0, clip_norm=1.0).step(p, np.array([300.0, 4.0]))
    np.testing.assert_allclose(p, [-(0.5**0.5), -(0.5**0.5)])


@pytest.mark.parametrize("name", FORMULAS)
def test_a_step_allocates_nothing(name: str) -> None:
    optimizer = FORMULAS[name][0]()
    p, g = np.ones(200_000, np.float32), np.ones(200_000, np.float32)
    optimizer.step(p, g)
    tracemalloc.start()
    optimizer.step(p, g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


@pytest.mark.parametrize("checked", [False, True])
def test_a_step_within_spans_touches_nothing_else(
    checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an optimizer of fastcnn's own nor a class without a ``step`` moves frozen numbers.

    A step on all parameters with a copy of the frozen ones would take several times as long.
    """
    moved = list[int]()
    whole = Optimizer._step

    def counted(self: Optimizer, p: Array, g: Array, spans: Any) -> None:
        moved.extend(span.stop - span.start for span in spans)
        whole(self, p, g, spans)

    class Mine(SGD):
        """One with a method of its own, so that a class's checks are put around it."""

        def config(self) -> Any:
            return super().config()

    monkeypatch.setattr(Optimizer, "_step", counted)
    parameters = np.arange(12, dtype=np.float32)
    gradient = np.zeros(12, np.float32)
    gradient[3:7] = 2
    (Mine if checked else SGD)(0.5).step_within(parameters, gradient, [slice(3, 7)])
    assert moved == [4]
    expected = np.arange(12, dtype=np.float32)
    expected[3:7] -= 1
    np.testing.assert_array_equal(parameters, expected)


def test_an_optimizer_serves_one_size_of_parameters() -> None:
    optimizer = Adam()
    optimizer.step(np.zeros(5), np.ones(5))
    for other in (np.zeros(6), np.zeros(5, np.float32)):
        with pytest.raises(ValueError, match="optimizer has taken steps with 5 parameters"):
            optimizer.step(other, np.ones_like(other))


@pytest.mark.parametrize("name", FORMULAS)
def test_config_goes_through_json_and_back(name: str) -> None:
    optimizer = FORMULAS[name][0]()
    description = {"class": type(optimizer).__name__, "config": optimizer.config()}
    again = optimizer_from_dict(json.loads(json.dumps(description)))
    assert repr(again) == repr(optimizer)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(), {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
        # The values that the paper of each recommends.
        (Adam(), {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8,
                  "weight_decay": 0.0}),
        (AdamW(), {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8,
                   "weight_decay": 0.01}),
        (RMSprop(), {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7,
                     "weight_decay": 0.0}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_defaults(optimizer: Optimizer, expected: dict[str, Any]) -> None:
    assert optimizer.config() == {**expected, "clip_norm": None, "clip_value": None}
    named = optimizer_named(type(optimizer).__name__.lower())
    assert named.config() == optimizer.config()


def test_names() -> None:
    assert [type(optimizer_named(name)) for name in ("sgd", "adam", "adamw", "rmsprop")] == [
        SGD, Adam, AdamW, RMSprop
    ]  # fmt: skip
    mine = SGD(0.3)
    assert optimizer_named(mine) is mine
    assert optimizer_named("sgd") is not optimizer_named("sgd")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: SGD(-0.1), ValueError, "learning_rate must be .* got -0.1"),
        (lambda: SGD("fast"), TypeError, "learning_rate must be a number, got 'fast'"),
        (lambda: SGD(float("nan")), ValueError, "learning_rate must be a finite number"),
        (lambda: SGD(momentum=1), ValueError, "momentum must be .* below 1, got 1"),
        (lambda: SGD(nesterov=True), ValueError, "nesterov=True needs a momentum above 0"),
        (lambda: SGD(nesterov=1), TypeError, "nesterov must be True or False"),
        (lambda: SGD(weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGD(clip_norm=0), ValueError, "clip_norm must be above 0, or None, got 0"),
        (lambda: SGD(clip_value=-1), ValueError, "clip_value"),
        (lambda: Adam(beta_1=1.0), ValueError, "beta_1"),
        (lambda: Adam(beta_2=-0.1), ValueError, "beta_2"),
        (lambda: Adam(epsilon=None), TypeError, "epsilon must be a number, got None"),
        (lambda: RMSprop(rho=2), ValueError, "rho"),
        (lambda: optimizer_named("lion"), ValueError, "optimizer must be one of .* got 'lion'"),
        (lambda: optimizer_from_dict({"class": "Lion"}), ValueError, "optimizer must be one of"),
        (lambda: optimizer_from_dict({"class": "SGD"}), ValueError, "optimizer must be one of"),
        (lambda: Step(0.1, every=0), ValueError, "every must be at least 1, got 0"),
        (lambda: Constant(-1), ValueError, "rate"),
        (lambda: Cosine(0.1, steps=0), ValueError, "steps must be at least 1"),
        (lambda: Cosine(0.1, warmup=-1), ValueError, "warmup must be at least 0"),
        (lambda: Cosine(0.1)(3), ValueError, "steps must be set .* got None"),
        (lambda: OneCycle(0.1, rise=1), ValueError, "rise must be above 0 and below 1"),
        (lambda: OneCycle(0.1, start=0), ValueError, "start and end must be above 0"),
        (lambda: schedule_from_dict({"class": "Linear"}), ValueError, "schedule must be one of"),
    ],
)
def test_mistakes_are_named(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


# --- schedules ------------------------------------------------------------------------------------


def test_cosine_warms_up_and_falls() -> None:
    schedule = Cosine(1.0, steps=21, warmup=4, final=0.2)
    rates = [schedule(step) for step in range(21)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[12] == pytest.approx(0.6)
    assert rates[20] == schedule(1000) == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(rates[4:]))


@pytest.mark.parametrize("schedule", [Cosine(0.4, steps=1), OneCycle(0.4, steps=1), Cosine(0.4)])
def test_a_training_of_one_step_has_the_first_rate(schedule: Schedule) -> None:
    schedule.total = 1
    assert schedule(0) == pytest.approx(0.4 / (25 if isinstance(schedule, OneCycle) else 1))


def test_one_cycle_rises_then_falls_below_its_start() -> None:
    schedule = OneCycle(1.0, steps=101, rise=0.25, start=20, end=1000)
    rates = [schedule(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[25] == pytest.approx(1.0)
    assert rates[100] == schedule(500) == pytest.approx(0.001)
    assert all(a < b for a, b in pairwise(rates[:26]))
    assert all(a > b for a, b in pairwise(rates[25:]))


def test_steps_left_open_are_those_of_the_training() -> None:
    optimizer = SGD(Cosine(0.1))
    optimizer.expect(11)
    p = np.zeros(1)
    rates = []
    for _ in range(11):
        rates.append(optimizer.rate)
        optimizer.step(p, np.ones(1))
    assert rates == pytest.approx([Cosine(0.1, steps=11)(step) for step in range(11)])


@pytest.mark.parametrize(
    "schedule", [Constant(0.1), Step(0.1, 3), Cosine(0.1, 7, 2), OneCycle(0.1, 9)], ids=repr
)
def test_schedules_go_through_json_and_back(schedule: Schedule) -> None:
    description = {"class": type(schedule).__name__, "config": schedule.config()}
    again = schedule_from_dict(json.loads(json.dumps(description)))
    assert repr(again) == repr(schedule)
    assert [again(step) for step in range(10)] == [schedule(step) for step in range(10)]


def test_the_rate_may_be_set_between_steps() -> None:
    optimizer, p = SGD(0.1), np.zeros(1)
    optimizer.learning_rate = 0.5
    optimizer.step(p, np.ones(1))
    assert p[0] == -0.5
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.learning_rate = -1
