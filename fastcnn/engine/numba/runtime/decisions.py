"""Ordered lists of kernels: the first entry that serves a problem decides, and says why.

A room of the compiled engine keeps such a list for each kind of problem. An entry returns its plan,
or in words why it does not serve. The last entry of a list serves every problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from fastcnn.engine.numba.runtime.instruction_sets import choice_of
from fastcnn.engine.numba.runtime.types import Kernel


class AnyPlan(Protocol):
    """What every plan has: the kernel, and how many items the threads share."""

    @property
    def function(self) -> Kernel: ...

    @property
    def items(self) -> int: ...


P = TypeVar("P")
L = TypeVar("L", bound=AnyPlan)


class Entry(NamedTuple, Generic[P, L]):
    """A way to compute a problem: its name, why it is there, its plan or why it does not serve."""

    name: str
    reason: str
    plan: Callable[[P], L | str]


class Decision(NamedTuple, Generic[L]):
    """The entry that serves a problem, its plan, and why not the entries before."""

    name: str
    reason: str
    plan: L
    passed_over: tuple[tuple[str, str], ...] = ()

    def lines(self, result: str = "") -> Iterator[str]:
        """What :func:`fastcnn.explain` prints, of one of several results by name."""
        items = f"{self.plan.items} item{'s' if self.plan.items != 1 else ''}"
        yield f"kernel{' of ' if result else ''}{result}: {self.name}, because {self.reason}"
        yield f"  compiled as {choice_of(self.plan.function)}; {items}"
        for name, why in self.passed_over:
            yield f"  not {name}: {why}"


def decide(entries: Sequence[Entry[P, L]], problem: P) -> Decision[L]:
    """The first entry that serves."""
    passed_over: list[tuple[str, str]] = []
    for entry in entries:
        plan = entry.plan(problem)
        if not isinstance(plan, str):
            return Decision(entry.name, entry.reason, plan, tuple(passed_over))
        passed_over.append((entry.name, plan))
    raise AssertionError(f"no entry serves {problem}: {passed_over}")
