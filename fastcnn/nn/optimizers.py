"""Optimizers: they move a model's parameters against the gradient, in place.

A model keeps all its parameters in one flat array, so a step takes the same few calls for any
number of layers. The calls go block by block. A block is so small that it stays in the cache from
one call to the next. The gradient serves as scratch, so a step allocates nothing.

Sources: Y. Nesterov, 1983, in the form of I. Sutskever et al., "On the importance of initialization
and momentum in deep learning", 2013; D. P. Kingma, J. Ba, "Adam", arXiv:1412.6980; I. Loshchilov,
F. Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101; G. Hinton, lecture 6e, 2012
(RMSprop).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import ref

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import Checked, FixedAttributes
from fastcnn.core.class_registry import Registry, module_of
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import above_zero, below_one, count, number, truth
from fastcnn.core.user_code import (
    Call,
    Contract,
    Source,
    check_methods,
    finite,
    refuse,
    refuse_methods,
)
from fastcnn.engine.registry import engines, imported, whole_nets_refused
from fastcnn.nn.schedules import Schedule, rate_at, schedule_from_dict

if TYPE_CHECKING:
    from fastcnn.engine.numba.runtime.types import Kernel

_BLOCK = 16_384
"""Numbers in a block. Four float32 arrays of this size fit into the second-level cache."""


class _Use:
    """The use of an optimizer: its model and its steps.

    Attributes:
        steps: number of steps so far.
        began: number of steps before the current training; its schedule counts from there.
        total: steps of the current training. None if batches come one by one and their number is
            unknown.
        of_fit: whether the current or last training is a ``fit``.
        owner: the model's :class:`fastcnn.nn.layers.Ownership`. None if no model has used the
            optimizer.
        holder: a weak reference to the object whose attribute ``optimizer`` is this optimizer.
    """

    __slots__ = ("began", "holder", "of_fit", "owner", "steps", "total")

    def __init__(self) -> None:
        self.steps, self.began = 0, 0
        self.total: int | None = None
        self.of_fit = False
        self.owner: object = None
        self.holder: Callable[[], Any] = _nobody


def _nobody() -> None:
    return None


# --- checks of the methods of users' optimizers ---------------------------------------------------


def _checked_step(
    optimizer: Optimizer,
    call: Call,
    parameters: Array,
    gradient: Array,
    *spans: Sequence[slice],
) -> None:
    """Take a step and count it. After an error the parameters have their earlier values."""
    before, steps = parameters.copy(), optimizer.step_count
    diverged = not np.isfinite(gradient).all()
    try:
        call(parameters[...], gradient[...], *spans)  # a method may set the shape of views
        if not diverged:
            finite(Source(optimizer, "step"), "parameters", parameters, before)
    except BaseException:
        parameters[...] = before
        raise
    optimizer.step_count = steps + 1


def _not_ahead(optimizer: Optimizer, call: Call, parameters: Array) -> None:
    """None, because only fastcnn's own optimizers have compiled loops."""


def _checked_slots(optimizer: Optimizer, call: Callable[[], Any]) -> tuple[str, ...]:
    names = call()
    if not isinstance(names, tuple | list) or not all(isinstance(one, str) for one in names):
        refuse(Source(optimizer, "slots_needed"), "a tuple of names", names, TypeError)
    return tuple(names)


def _checked_next_rate(optimizer: Optimizer, call: Callable[[], Any]) -> float:
    return number(str(Source(optimizer, "rate")), call())


_CONTRACT: Contract = {
    "step": _checked_step,
    "step_within": _checked_step,
    "ahead": _not_ahead,
    "slots_needed": _checked_slots,
    "rate": _checked_next_rate,
}


class CompiledStep(NamedTuple):
    """A step of an optimizer as compiled code.

    Attributes:
        loop: the kernel, of :mod:`fastcnn.engine.numba.elementwise.descent`.
        state: the optimizer's arrays, each as long as the parameters; at most two.
        numbers: the kernel's numbers (rate, decay …), which change from step to step.
    """

    loop: Kernel
    state: list[Array]
    numbers: Array


class Optimizer(FixedAttributes):
    """Base class of all optimizers.

    After a step of a subclass the parameters must be finite. After an error they have their earlier
    values.

    **One object for several trainings.** An optimizer serves one model at a time. Its steps and
    ``state`` belong to this model:

    - ``fit`` of another model begins without steps and state. So one optimizer can serve a loop
      over folds: in each fold it acts like a new one, and no fold learns from another. The earlier
      model keeps its steps and state in an optimizer of its own, ``model.optimizer``.
    - A second ``fit`` of the same model continues with the state. Call :meth:`reset` to begin anew.
    - ``train_on_batch`` with another model raises a ``ValueError``, because in a loop over two
      models each call would discard the other model's state.
    - While a ``fit`` runs, no other model can use its optimizer, in any thread.

    A schedule counts from the beginning of each training, and several optimizers may share one.
    Copies and pickles of an optimizer keep its steps and state, and the first model that uses a
    copy continues with them. A copy of a model has a copy of its optimizer.

    All arguments may be set as attributes between two steps. They are checked, and take effect with
    the next step.

    Args:
        learning_rate: a number, or a schedule such as ``Cosine(0.1)``.
        weight_decay: the share of each parameter that is added to its gradient. AdamW subtracts it
            from the parameter instead, times the rate.
        clip_norm: a larger norm of the gradient of all parameters together is scaled down to this.
        clip_value: elements of the gradient are clipped to ± this value, before ``clip_norm``.

    Attributes:
        step_count: number of steps so far.
        state: arrays by name, each of the parameters' size, such as the momentum.
    """

    registry: ClassVar[Registry[Optimizer]] = Registry("optimizer")
    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays in ``state``."""
    attributes_beside_arguments = ("state", "step_count")
    weight_decay = Checked(number)
    clip_norm, clip_value = Checked(above_zero), Checked(above_zero)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.state: dict[str, Array] = {}
        self._use = _Use()
        # The running fit that uses this optimizer, under "fit": its process, and a unique object.
        self._claims: dict[str, tuple[int, object]] = {}
        self._constants: dict[str, float] = {}  # of the current step, from _prepare
        self._scratch: Array | None = None
        # Arguments of the compiled loop in the last step, as numbers and as an array.
        self._arguments: tuple[tuple[float, ...], Array] = (), np.zeros(0)

    def __init_subclass__(cls) -> None:
        Optimizer.registry.add(cls.__name__, cls)
        check_methods(cls, _CONTRACT, every=("step", "step_within", "ahead"))

    @property
    def learning_rate(self) -> float | Schedule:
        """The rate, or its schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        is_schedule = isinstance(value, Schedule)
        self._learning_rate: float | Schedule = (
            value if is_schedule else number("learning_rate", value)
        )

    @property
    def rate(self) -> float:
        """The rate of the next step."""
        rate, use = self._learning_rate, self._use
        if isinstance(rate, Schedule):
            return rate_at(rate, use.steps - use.began, use.total)
        return rate

    @property
    def step_count(self) -> int:
        """Number of steps so far."""
        return self._use.steps

    @step_count.setter
    def step_count(self, value: int) -> None:
        self._use.steps = count("step_count", value, least=0)

    @property
    def began(self) -> int:
        """Number of steps before the current training."""
        return self._use.began

    def reset(self) -> None:
        """Forget all steps and the state, as if the optimizer were new.

        Raises ``ValueError`` while a ``fit`` runs.

        >>> descent, p = SGD(0.1, momentum=0.9), np.zeros(1)
        >>> descent.step(p, np.ones(1))
        >>> descent.reset()
        >>> descent.step_count, descent.state
        (0, {})
        """
        self.check_free()
        self.state, self._use = {}, _Use()

    def expect(self, steps: int) -> None:
        """Begin a training of ``steps`` steps, for a schedule that has no ``steps`` of its own.

        ``fit`` calls this itself. Call it in a training loop of your own.
        """
        use = self._use
        use.total, use.of_fit = count("steps", steps), self._is_running()
        if not use.of_fit:
            use.began = use.steps

    def resume(self, steps: int, began: int) -> None:
        """Continue a saved training, with its number of steps and its beginning."""
        if began > steps:
            raise ValueError(f"began must be at most {steps}, got {began}")
        self._use.steps, self._use.began = steps, began

    def _is_running(self) -> bool:
        claim = self._claims.get("fit")
        return claim is not None and claim[0] == os.getpid()

    def check_free(self) -> None:
        """Raise ``ValueError`` while a ``fit`` uses this optimizer."""
        if self._is_running():
            raise ValueError(
                f"optimizer must be one that no running fit uses, got {quoted(self)}; make one for "
                f"each model, such as {type(self).__name__}(…)"
            )

    def belong(self, owner: object, holder: object) -> None:
        """Belong to the model of ``owner``; ``holder.optimizer`` is this optimizer."""
        self._use.owner, self._use.holder = owner, ref(holder)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within this context a ``fit`` uses the optimizer, and no other ``fit`` can."""
        claim = os.getpid(), object()
        # Only one of two threads gets its claim in.
        earlier_claim = self._claims.setdefault("fit", claim)
        if earlier_claim is not claim:
            self.check_free()
            self._claims["fit"] = claim  # the other claim was made in a parent process
        try:
            yield
        finally:
            self._claims.pop("fit", None)

    def begin(self, owner: object, holder: object) -> None:
        """Begin a training of the model of ``owner``.

        The state of the model's own earlier trainings is kept. If the optimizer belongs to another
        model, the other model gets a new optimizer with the state, and this one begins without.
        """
        use = self._use
        if use.owner is not None and use.owner is not owner:
            other = use.holder()
            if other is not None and other.optimizer is self:
                successor = object.__new__(type(self))
                vars(successor).update(vars(self))
                vars(successor).update(_claims={}, _scratch=None, _constants={})
                vars(successor).update(_arguments=((), np.zeros(0)))
                other.optimizer = successor
            self.state, self._use = {}, _Use()
        self._use.began, self._use.total, self._use.of_fit = self._use.steps, None, True
        self.belong(owner, holder)

    def serve(self, owner: object) -> None:
        """Prepare for steps on single batches of the model of ``owner``.

        Raises ``ValueError`` if the optimizer has taken steps for another model.
        """
        use = self._use
        if use.owner is not owner:
            self.check_free()
            if use.owner is not None:
                raise ValueError(
                    f"optimizer must be one that serves this model alone, got {quoted(self)} that "
                    f"has taken {use.steps} steps for another model; make one for each model, or "
                    f"call its reset() to begin anew"
                )
            use.owner = owner
        if use.of_fit and not self._is_running():
            use.began, use.total, use.of_fit = use.steps, None, False  # the fit is over

    def serves(self, owner: object) -> bool:
        """Whether :meth:`serve` would do nothing."""
        return self._use.owner is owner and not self._use.of_fit

    def __copy__(self) -> Optimizer:
        return deepcopy(self)  # so that no two optimizers share arrays

    def __getstate__(self) -> dict[str, Any]:
        use = _Use()
        use.steps, use.began, use.total = self._use.steps, self._use.began, self._use.total
        use.of_fit = self._use.of_fit
        return vars(self) | {"_use": use, "_claims": {}, "_scratch": None}

    def slots_needed(self) -> tuple[str, ...]:
        """Names of the arrays that the optimizer needs with its current arguments."""
        return self.slots

    @unreported
    def step(self, parameters: Array, gradient: Array) -> None:
        """Move ``parameters`` in place, and overwrite ``gradient``; both are flat, of one dtype.

        Raises ``ValueError`` if the optimizer has taken steps on parameters of another size, or
        the gradient has another shape or dtype than the parameters.

        >>> p = np.array([1.0, 2.0])
        >>> SGD(0.5).step(p, np.array([1.0, -1.0]))
        >>> p
        array([0.5, 2.5])
        """
        self._step(parameters, gradient, (slice(0, parameters.size),))

    @unreported
    def step_within(self, parameters: Array, gradient: Array, spans: Sequence[slice]) -> None:
        """:meth:`step` on the parameters in ``spans`` only, for a model with frozen layers.

        All other parameters, and their numbers in ``state``, do not change. Their ``gradient`` must
        be 0.

        >>> p = np.array([1.0, 2.0])
        >>> SGD(0.5, weight_decay=1.0).step_within(p, np.array([0.0, 1.0]), [slice(1, 2)])
        >>> p
        array([1. , 0.5])
        """
        step, own = type(self).step, Optimizer.step
        if own in (step, getattr(step, "__wrapped__", None)):  # perhaps under a class's checks
            self._step(parameters, gradient, spans)
            return
        # A user's step moves all parameters, so the frozen ones get their numbers back.
        still = np.ones(parameters.shape, np.bool_)
        for span in spans:
            still[span] = False
        before = {name: array[still] for name, array in self.state.items()}
        frozen = parameters[still]
        self.step(parameters, gradient)
        parameters[still] = frozen
        for name, array in self.state.items():
            if array.shape == still.shape:
                array[still] = before.get(name, 0)

    def _step(self, parameters: Array, gradient: Array, spans: Sequence[slice]) -> None:
        if gradient.shape != parameters.shape or gradient.dtype != parameters.dtype:
            raise ValueError(
                f"gradient must have the parameters' shape and dtype, {parameters.shape} and "
                f"{parameters.dtype}, got {gradient.shape} and {gradient.dtype}"
            )
        arrays = self._arrays(parameters)
        parts = [gradient[span] for span in spans]
        if self.clip_value is not None:
            for part in parts:
                np.clip(part, -self.clip_value, self.clip_value, out=part)
        if self.clip_norm is not None:
            self._clip_norm(parts, self.clip_norm)
        self._prepare(self.rate, self._use.steps + 1)
        self._use.steps += 1
        compiled = self._compiled()
        for span, g in zip(spans, parts, strict=True):
            p, state = parameters[span], [array[span] for array in arrays]
            if compiled is not None:
                move, loop = compiled
                move(loop, p, g, state, self._all_numbers())
            else:
                self._in_blocks(p, g, state)

    def _in_blocks(self, parameters: Array, gradient: Array, state: list[Array]) -> None:
        scratch = self._scratch_for(parameters)
        for first in range(0, parameters.size, _BLOCK):
            block = slice(first, first + _BLOCK)
            p, g = parameters[block], gradient[block]
            t = scratch[: p.size]
            if self._decay():
                np.multiply(p, self._decay(), out=t)
                g += t
            self._move(p, g, t, *(array[block] for array in state))

    def ahead(self, parameters: Array) -> CompiledStep | None:
        """The next step as compiled code.

        A caller runs the loop together with other work, and then calls :meth:`count_step`. The
        result is None if the step clips gradients, or no compiled loop exists. Raises the
        ``ValueError`` of :meth:`step`.
        """
        if self.clip_value is not None or self.clip_norm is not None:
            return None
        name = _COMPILED.get(type(self))
        if name is None or (compiled := _loop(name)) is None:
            return None
        arrays = self._arrays(parameters)
        rate = self._learning_rate
        self._prepare(rate if type(rate) is float else self.rate, self._use.steps + 1)
        return CompiledStep(compiled[1], arrays, self._all_numbers())

    def count_step(self) -> None:
        """Count a step that the caller ran with the result of :meth:`ahead`."""
        self._use.steps += 1

    def _arrays(self, parameters: Array) -> list[Array]:
        """The arrays of the state; missing ones are made."""
        arrays: list[Array] = []
        names = self.slots_needed()
        if not names:
            return arrays
        shape, dtype, state = parameters.shape, parameters.dtype, self.state
        for name in names:
            array = state.get(name)
            if array is None:
                array = state[name] = np.zeros_like(parameters)
            # A quick check, because every step of a training runs it.
            elif not (
                type(array) is np.ndarray
                and array.shape == shape
                and array.dtype == dtype
                and array.flags.carray
            ):
                array = self.check_state(name, parameters)
            arrays.append(array)
        return arrays

    def check_state(self, name: str, parameters: Array) -> Array:
        """An array of the state; ``ValueError`` if it cannot be used with these parameters."""
        array = self.state[name]
        if not isinstance(array, np.ndarray):
            raise ValueError(f"state[{name!r}] must be an array, got {array!r}")
        if array.shape != parameters.shape or array.dtype != parameters.dtype:
            raise ValueError(
                f"optimizer has taken steps with {array.size} parameters of {array.dtype} and "
                f"cannot go on with {parameters.size} of {parameters.dtype}; make a new one"
            )
        if not array.flags.carray:
            raise ValueError(
                f"state[{name!r}] must be an array that is contiguous and can be written to"
            )
        return array

    def _compiled(self) -> tuple[Callable[..., None], Kernel] | None:
        name = _COMPILED.get(type(self))
        return None if name is None or whole_nets_refused(None) is not None else _loop(name)

    def _all_numbers(self) -> Array:
        """Arguments of the compiled loop, in one array whose address a caller may keep."""
        numbers = self._decay(), *self._numbers()
        earlier, array = self._arguments
        if numbers != earlier:  # usually the numbers are the same in each step
            if len(numbers) != len(array):
                array = np.empty(len(numbers))
            array[:] = numbers
            self._arguments = numbers, array
        return array

    def _decay(self) -> float:
        """The share of the parameters that is added to their gradient."""
        return self.weight_decay

    def _numbers(self) -> tuple[float, ...]:
        """Arguments of the compiled loop after the decay; empty if there is no such loop."""
        return ()

    def _scratch_for(self, like: Array) -> Array:
        if self._scratch is None or self._scratch.dtype != like.dtype:
            self._scratch = np.empty(_BLOCK, like.dtype)
        return self._scratch

    def _clip_norm(self, gradients: list[Array], largest: float) -> None:
        total = 0.0
        for gradient in gradients:
            scratch = self._scratch_for(gradient)
            for first in range(0, gradient.size, _BLOCK):
                g = gradient[first : first + _BLOCK]
                squares = np.multiply(g, g, out=scratch[: g.size])
                total += float(squares.sum(dtype=np.float64))
        if total > largest * largest:
            for gradient in gradients:
                gradient *= largest / sqrt(total)

    def _prepare(self, rate: float, t: int) -> None:
        """Compute the constants of step ``t``, counted from 1, which all blocks use."""
        raise NotImplementedError(
            f"{type(self).__name__} must define step(self, parameters, gradient), which moves the "
            f"parameters in place"
        )

    def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
        """Take the step on one block."""
        raise NotImplementedError

    def config(self) -> JsonObject:
        """The constructor's arguments as JSON values."""
        names = inspect.signature(type(self).__init__).parameters
        arguments = {name: getattr(self, name) for name in names if name != "self"}
        rate = arguments["learning_rate"]
        if isinstance(rate, Schedule):
            arguments["learning_rate"] = {
                "class": type(rate).__name__,
                **module_of(type(rate)),
                "config": rate.config(),
            }
        return arguments

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        arguments = [f"{name}={getattr(self, name)!r}" for name in names if name != "self"]
        return f"{type(self).__name__}({', '.join(arguments)})"


class SGD(Optimizer):
    """Gradient descent: ``v = momentum·v − rate·g``, ``p += v``.

    Args:
        learning_rate, weight_decay, clip_norm, clip_value: as for :class:`Optimizer`.
        momentum: at least 0 and below 1; 0 keeps no state.
        nesterov: move by ``momentum·v − rate·g`` instead of ``v``, with the new ``v``.

    Example:
        >>> p, descent = np.zeros(1), SGD(1.0, momentum=0.5)
        >>> for _ in range(2):
        ...     descent.step(p, np.ones(1))
        >>> p
        array([-2.5])
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm, clip_value)
        self.momentum, self.nesterov = momentum, nesterov
        self._changed("momentum")

    momentum, nesterov = Checked(below_one), Checked(truth)

    def _changed(self, name: str) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum above 0, got momentum=0.0")
        _drop_unneeded(self)

    def slots_needed(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _prepare(self, rate: float, t: int) -> None:
        self._constants["rate"] = -rate

    def _numbers(self) -> tuple[float, ...]:
        return self._constants["rate"], self.momentum, float(self.nesterov)

    def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
        g *= self._constants["rate"]
        if not state:
            p += g
            return
        (v,) = state
        v *= self.momentum
        v += g
        if self.nesterov:
            p += g
            np.multiply(v, self.momentum, out=g)
            p += g
        else:
            p += v


class Adam(Optimizer):
    """Adam: steps of ``rate · m / (√v + epsilon)``, with m and v free of their bias to zero.

    Args:
        learning_rate, weight_decay, clip_norm, clip_value: as for :class:`Optimizer`.
        beta_1, beta_2: the shares of the mean gradient m and the mean square v that a step keeps.
        epsilon: keeps the quotient finite.

    Example:
        >>> p = np.zeros(2)
        >>> Adam(0.1).step(p, np.array([3.0, -500.0]))
        >>> p.round(6)
        array([-0.1,  0.1])
    """

    slots = ("mean", "square")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm, clip_value)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    beta_1, beta_2, epsilon = Checked(below_one), Checked(below_one), Checked(number)

    def _prepare(self, rate: float, t: int) -> None:
        # rate·(m/c1) / (√(v/c2) + ε), with the corrections c1 and c2 moved into the constants.
        root, constants = sqrt(1 - self.beta_2**t), self._constants
        constants["rate"] = -rate * root / (1 - self.beta_1**t)
        constants["epsilon"] = self.epsilon * root
        constants["shrinkage"] = 1.0

    def _numbers(self) -> tuple[float, ...]:
        c, one, two = self._constants, self.beta_1, self.beta_2
        return c["rate"], one, 1 - one, two, 1 - two, c["epsilon"], c["shrinkage"]

    def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
        m, v = state
        m *= self.beta_1
        m += np.multiply(g, 1 - self.beta_1, out=scratch)
        v *= self.beta_2
        g *= g
        g *= 1 - self.beta_2
        v += g
        np.sqrt(v, out=g)
        g += self._constants["epsilon"]
        np.divide(m, g, out=g)
        g *= self._constants["rate"]
        p += g


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters themselves, ``p *= 1 − rate·weight_decay``.

    The arguments are those of :class:`Adam`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, weight_decay, clip_norm, clip_value
        )

    def _decay(self) -> float:
        return 0.0

    def _prepare(self, rate: float, t: int) -> None:
        super()._prepare(rate, t)
        self._constants["shrinkage"] = 1 - rate * self.weight_decay

    def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
        p *= self._constants["shrinkage"]
        super()._move(p, g, scratch, *state)


class RMSprop(Optimizer):
    """Steps of ``rate · g / (√s + epsilon)``, with s the running mean of g².

    Args:
        learning_rate, weight_decay, clip_norm, clip_value: as for :class:`Optimizer`.
        rho: the share of the mean square s that a step keeps.
        momentum: as for :class:`SGD`, on these steps.
        epsilon: keeps the quotient finite.

    Example:
        >>> p = np.zeros(1)
        >>> RMSprop(0.1, rho=0.0).step(p, np.array([20.0]))
        >>> p.round(6)
        array([-0.1])
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm, clip_value)
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon

    rho, momentum, epsilon = Checked(below_one), Checked(below_one), Checked(number)

    def _changed(self, name: str) -> None:
        _drop_unneeded(self)

    def slots_needed(self) -> tuple[str, ...]:
        return ("square", "velocity") if self.momentum else ("square",)

    def _prepare(self, rate: float, t: int) -> None:
        self._constants["rate"] = -rate

    def _numbers(self) -> tuple[float, ...]:
        return self._constants["rate"], self.rho, 1 - self.rho, self.epsilon, self.momentum

    def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
        s = state[0]
        np.multiply(g, g, out=scratch)
        scratch *= 1 - self.rho
        s *= self.rho
        s += scratch
        np.sqrt(s, out=scratch)
        scratch += self.epsilon
        g /= scratch
        g *= self._constants["rate"]
        if self.momentum:
            v = state[1]
            v *= self.momentum
            v += g
            p += v
        else:
            p += g


def _drop_unneeded(optimizer: Optimizer) -> None:
    """Forget arrays that the optimizer no longer moves, because they would be out of date."""
    names = optimizer.slots_needed()
    for name in [name for name in optimizer.state if name not in names]:
        del optimizer.state[name]


# The loop in `fastcnn.engine.numba.elementwise.descent` of each optimizer.
_COMPILED: dict[type[Optimizer], str] = {
    SGD: "sgd", Adam: "adam", AdamW: "adam", RMSprop: "rmsprop"
}  # fmt: skip


@cache
def _loop(name: str) -> tuple[Callable[..., None], Kernel] | None:
    """The function that runs a compiled loop, and the loop; None if nothing is compiled."""
    if "numba" not in engines():
        return None
    imported("fastcnn.engine.numba.elementwise.descent")
    from fastcnn.engine.numba.elementwise import descent
    from fastcnn.engine.numba.runtime.program import compiles

    return (descent.move, getattr(descent, name)) if compiles() else None


_BY_NAME: dict[str, type[Optimizer]] = {
    "sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop
}  # fmt: skip


def optimizer_named(value: object) -> Optimizer:
    """``value`` if it is an optimizer, or a new one: "sgd", "adam", "adamw" or "rmsprop".

    >>> optimizer_named("adam").rate
    0.001
    """
    if isinstance(value, Optimizer):
        refuse_methods(value, _CONTRACT)
        return value
    if not isinstance(value, str) or value not in _BY_NAME:
        raise ValueError(
            f"optimizer must be one of {', '.join(_BY_NAME)}, or an optimizer such as SGD(0.01), "
            f"got {quoted(value)}"
        )
    return _BY_NAME[value]()


def optimizer_to_dict(optimizer: Optimizer) -> JsonObject:
    """An optimizer as a JSON object, without its state.

    >>> optimizer_to_dict(SGD(0.5))["class"]
    'SGD'
    """
    kind = type(optimizer)
    return {"class": kind.__name__, **module_of(kind), "config": optimizer.config()}


def optimizer_from_dict(record: object) -> Optimizer:
    """The optimizer from the result of :func:`optimizer_to_dict`, without state."""
    settings = record.get("config") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(settings, dict) or "class" not in record:
        raise ValueError(
            f"optimizer must be one of {', '.join(Optimizer.registry)}, got {quoted(record)}"
        )
    kind = Optimizer.registry.find(record["class"], record.get("module"))
    config = dict(settings)
    if isinstance(config.get("learning_rate"), dict):
        config["learning_rate"] = schedule_from_dict(config["learning_rate"])
    return kind(**config)
