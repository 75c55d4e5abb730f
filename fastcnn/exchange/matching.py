"""Which module of a file goes into which layer.

Pairs that the caller names are fixed. All other modules are put in order and paired with the layers
in order. Where the file keeps the order of its net and all shapes fit, that order is taken. Else
the order follows from names and shapes: names are paths, and modules of one path stay together;
siblings whose names differ in their last number alone, such as ``conv1`` and ``conv2``, keep the
order of the numbers. Among the orders that fit all shapes, those count that change least often from
one path to another. If there is exactly one, it is taken. Otherwise the caller must name pairs,
because a guess could exchange two layers of equal shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count as counter
from typing import Any, NamedTuple, TypeAlias

from fastcnn.core.quoting import quoted, shortened
from fastcnn.exchange.layouts import COUNTERS, Slot
from fastcnn.nn.layers import Shape

Names: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]
Modules: TypeAlias = Mapping[str, Mapping[str, Shape]]
"""The shapes of the arrays of each module of a file."""
Pairs: TypeAlias = list[tuple[Slot, str]]

_MOST_STEPS = 50_000
_MOST_LINES = 40
_WIDEST = 60  # characters of one side of a table


class _Matches(NamedTuple):
    """The orders that a search came upon: at most two, and whether it looked at all of them."""

    orders: list[list[str]]
    complete: bool


def matched(modules: Modules, slots: Sequence[Slot], names: Names | None, ordered: bool) -> Pairs:
    """The pairs of slots and modules; modules that the caller leaves out are in none.

    Raises ``ValueError`` where names or shapes do not fit, or several orders do.
    """
    named = _named(names, modules)
    by_name = {slot.name: slot for slot in slots}
    fixed: Pairs = []
    for module, name in named.items():
        if name is None:
            continue
        if name not in by_name:
            raise ValueError(
                f"names must give layers of the model with parameters, {_listed(by_name)}, got "
                f"{quoted(name)} for {quoted(module)}"
            )
        slot = by_name.pop(name, None)
        assert slot is not None
        if (reason := slot.misfit(module, modules[module])) is not None:
            raise ValueError(f"{module} does not fit {quoted(slot.layer)} ({slot.name}): {reason}")
        fixed.append((slot, module))
    named_slots = [slot for slot in slots if slot.name in by_name]
    open_modules = {name: shapes for name, shapes in modules.items() if name not in named}
    order = _order(open_modules, named_slots, ordered)
    pairs = dict(zip((slot.name for slot in named_slots), order, strict=True))
    pairs |= {slot.name: module for slot, module in fixed}
    return [(slot, pairs[slot.name]) for slot in slots]


def _named(names: Names | None, modules: Modules) -> dict[str, str | None]:
    """The layer's name for each module that the caller names, None for one that is left out."""
    if names is None:
        return {}
    if callable(names):
        result = {module: names(module) for module in modules}
    elif isinstance(names, Mapping):
        unknown = [name for name in names if name not in modules]
        if unknown:
            raise ValueError(
                f"names must have modules of the file as keys, {_listed(modules)}, got "
                f"{quoted(unknown[0])}"
            )
        result = dict(names)
    else:
        raise TypeError(
            f'names must be a dict such as {{"fc": "dense"}}, or a function, got {quoted(names)}'
        )
    layers = [layer for layer in result.values() if layer is not None]
    for layer in layers:
        if not isinstance(layer, str):
            raise TypeError(f"names must give names of layers or None, got {quoted(layer)}")
    twice = next((layer for layer in layers if layers.count(layer) > 1), None)
    if twice is not None:
        raise ValueError(f"names must give each layer once, got {quoted(twice)} twice")
    return result


def _order(modules: Modules, slots: Sequence[Slot], ordered: bool) -> list[str]:
    """The modules in the order of the slots."""
    if len(modules) == len(slots) and ordered:
        pairs = zip(slots, modules, strict=True)
        if all(slot.misfit(name, modules[name]) is None for slot, name in pairs):
            return [*modules]
    result = _Matches([], True)
    if len(modules) == len(slots):
        result = _together(modules, slots)
        if not result.orders and result.complete:
            result = _in_turns(modules, slots)
    if len(result.orders) == 1 and result.complete:
        return result.orders[0]
    raise ValueError(_unmatched(modules, slots, result))


class _Group:
    """Modules of one path, and the groups below it.

    Attributes:
        entries: modules and groups by the next part of their names.
        before: for each entry those that come before it, because their numbers are smaller.
    """

    def __init__(self) -> None:
        self.entries: dict[str, _Group | str] = {}
        self.before: dict[str, set[str]] = {}

    def settle(self) -> None:
        """Sort the entries by their numbers."""
        stems: dict[str, list[tuple[int, str]]] = {}
        for name in self.entries:
            stem, number = _split(name)
            stems.setdefault(stem, []).append((number, name))
        for alike in stems.values():
            alike.sort()
            for i, (_, name) in enumerate(alike):
                self.before[name] = {other for _, other in alike[:i]}
        self.entries = {name: self.entries[name] for name in sorted(self.entries, key=_split)}
        for entry in self.entries.values():
            if isinstance(entry, _Group):
                entry.settle()


def _split(name: str) -> tuple[str, int]:
    """A name without the number at its end, and that number; −1 without one.

    >>> _split("conv10"), _split("conv2d_1"), _split("conv2d"), _split("7")
    (('conv', 10), ('conv2d', 1), ('conv2d', -1), ('', 7))
    """
    match = re.fullmatch(r"(.*?)_?(\d{1,9})", name)
    return (match[1], int(match[2])) if match else (name, -1)


def _tree(modules: Modules) -> _Group:
    root = _Group()
    for module in modules:
        group, parts = root, module.split(".")
        for part in parts[:-1]:
            below = group.entries.get(part)
            if not isinstance(below, _Group):
                earlier, below = below, _Group()
                if earlier is not None:
                    below.entries[""] = earlier  # a module with modules inside of it
                group.entries[part] = below
            group = below
        last = group.entries.get(parts[-1])
        if isinstance(last, _Group):
            last.entries[""] = module
        else:
            group.entries[parts[-1]] = module
    root.settle()
    return root


class _State(NamedTuple):
    """A beginning of an order.

    Attributes:
        frames: the groups that are not done: a group, the entries of it that are left, and the
            frames around it.
        order: the modules so far.
        left: how many modules of each path are left.
        changes: how often a module has another path than the module before it.
    """

    frames: tuple[_Group, frozenset[str], Any] | None
    order: tuple[str, ...]
    left: tuple[int, ...]
    changes: int


def _together(modules: Modules, slots: Sequence[Slot]) -> _Matches:
    """Orders in which the modules of each path stay together, with the fewest changes of paths.

    It is a search by A*: what a beginning costs is its changes, and at least one more for each path
    that is left and is not that of the last module.
    """
    root = _tree(modules)
    paths = [module.rpartition(".")[0] for module in modules]
    index = {path: i for i, path in enumerate(dict.fromkeys(paths))}
    counts = Counter(paths)
    ranks = counter()  # of equal costs the longest beginning is first, then the first one
    start = _State((root, frozenset(root.entries), None), (), tuple(counts[p] for p in index), 0)
    waiting = [(0, 0, next(ranks), start)]
    orders, lowest_cost, steps = list[list[str]](), len(slots) * 2, 0
    while waiting and len(orders) < 2:
        steps += 1
        cost, _, _, state = heappop(waiting)
        if cost > lowest_cost:
            break
        if steps > _MOST_STEPS:
            return _Matches(orders, False)
        frames = state.frames
        while frames is not None and not frames[1]:
            frames = frames[2]
        if frames is None:
            orders.append([*state.order])
            lowest_cost = cost
            continue
        group, remaining, outer = frames
        for name in group.entries:
            if name not in remaining or group.before[name] & remaining:
                continue
            entry, rest = group.entries[name], (group, remaining - {name}, outer)
            if isinstance(entry, _Group):
                inner = (entry, frozenset(entry.entries), rest)
                heappush(
                    waiting,
                    (cost, -len(state.order), next(ranks), state._replace(frames=inner)),
                )
            elif slots[len(state.order)].misfit(entry, modules[entry]) is None:
                after = _with(state, entry, index)._replace(frames=rest)
                at = index[entry.rpartition(".")[0]]
                others = sum(1 for i, number in enumerate(after.left) if number and i != at)
                heappush(
                    waiting,
                    (after.changes + others, -len(after.order), next(ranks), after),
                )
    return _Matches(orders, True)


def _with(state: _State, module: str, index: Mapping[str, int]) -> _State:
    """The beginning with one more module."""
    path = module.rpartition(".")[0]
    at = index[path]
    changed = not state.order or state.order[-1].rpartition(".")[0] != path
    counts = (*state.left[:at], state.left[at] - 1, *state.left[at + 1 :])
    return _State(state.frames, (*state.order, module), counts, state.changes + changed)


def _in_turns(modules: Modules, slots: Sequence[Slot]) -> _Matches:
    """Orders in which paths take turns, such as a list of convolutions and one of norms."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for module in sorted(modules, key=lambda name: [_split(part) for part in name.split(".")]):
        stems = tuple(_split(part)[0] for part in module.split("."))
        rows.setdefault(stems, []).append(module)
    queues = [*rows.values()]
    waiting: list[tuple[tuple[int, ...], list[str]]] = [((0,) * len(queues), [])]
    orders, steps = list[list[str]](), 0
    while waiting and len(orders) < 2:
        steps += 1
        if steps > _MOST_STEPS:
            return _Matches(orders, False)
        firsts, order = waiting.pop()
        if len(order) == len(slots):
            orders.append(order)
            continue
        for i, queue in enumerate(queues):
            if firsts[i] < len(queue):
                module = queue[firsts[i]]
                if slots[len(order)].misfit(module, modules[module]) is None:
                    after = (*firsts[:i], firsts[i] + 1, *firsts[i + 1 :])
                    waiting.append((after, [*order, module]))
    return _Matches(orders, True)


def _unmatched(modules: Modules, slots: Sequence[Slot], result: _Matches) -> str:
    """The message for modules that are not matched with slots: what there is on both sides."""
    if len(result.orders) > 1:
        pairs = zip(slots, *result.orders, strict=True)
        slot, one, other = next(pair for pair in pairs if pair[1] != pair[2])
        return (
            f"the arrays fit in several orders, because shapes are equal: {slot.name} may be {one} "
            f'or {other}; give names={{"{one}": "{slot.name}"}} or the other'
        )
    reasons = [
        f"the file has {len(modules)} modules with weights, and the model {len(slots)} layers"
        if len(modules) != len(slots)
        else "no order of the modules fits the shapes of the layers"
        if result.complete
        else "no order of the modules was found that fits the shapes of the layers"
    ]
    reasons.append("give names={module: layer}, with None for a module that is left out, and")
    reasons.append('keep=["layer"] for a layer that keeps its values')
    module_texts = [f"{name} {_shapes(shapes)}" for name, shapes in modules.items()]
    right = [
        f"{slot.name} {_shapes({part.source: part.shapes[0] for part in slot.parts})}"
        for slot in slots
    ]
    lines = max(len(module_texts), len(right))
    width = max(map(len, ("modules of the file", *module_texts[:_MOST_LINES])))
    table = [f"{'modules of the file':<{width}}  layers of the model, with the shapes that fit"]
    for i in range(min(lines, _MOST_LINES)):
        both = (side[i] if i < len(side) else "" for side in (module_texts, right))
        one, other = both
        table.append(f"{one:<{width}}  {other}".rstrip())
    if lines > _MOST_LINES:
        table.append(f"… {lines - _MOST_LINES} more")
    return f"{reasons[0]}; {reasons[1]} {reasons[2]}:\n" + "\n".join(table)


def _shapes(shapes: Mapping[str, Shape]) -> str:
    """Shapes of the arrays of a module, in short."""
    listed = (f"{name} {shape}" for name, shape in shapes.items() if name not in COUNTERS)
    return shortened(", ".join(listed), _WIDEST)


def _listed(names: Collection[str]) -> str:
    first_names = [*names][:12]
    return ", ".join(first_names) + (", …" if len(names) > len(first_names) else "")
