"""Tables that fit a terminal: numbers stay whole, texts and unimportant columns give way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from textwrap import wrap
from typing import NamedTuple


class Fitted(NamedTuple):
    """The columns of a table that have room, by their numbers, and the cells of these."""

    columns: list[int]
    rows: list[list[str]]


def fitted_table(
    rows: Sequence[Sequence[str]],
    width: int | None,
    texts: Collection[int],
    spare: Sequence[int] = (),
    gap: int = 2,
    least: int = 10,
) -> Fitted:
    """The part of a table that fits a width.

    First columns of ``spare`` are left out, then the longest texts are shortened, with "…" at their
    end. All other cells stay as they are.

    Args:
        rows: all cells, row by row, with the headings first.
        width: in characters; None has room for everything.
        texts: the columns that may be shortened.
        spare: the columns that may be left out, the least important first.
        gap: characters between two columns.
        least: characters that a shortened text keeps at least, before a column is left out.

    >>> rows = [("layer", "bytes"), ("Conv2D(8, 3)", "1,234")]
    >>> fitted_table(rows, 17, texts=[0]).rows
    [['layer', 'bytes'], ['Conv2D(8,…', '1,234']]
    >>> fitted_table(rows, 12, texts=[0], spare=[1]).columns
    [0]
    """
    columns = list(range(len(rows[0])))
    if width is None:
        return Fitted(columns, [list(row) for row in rows])
    widths = [max(len(row[column]) for row in rows) for column in columns]

    def total(longest: int) -> int:
        sizes = [min(widths[c], longest) if c in texts else widths[c] for c in columns]
        return sum(sizes) + gap * (len(sizes) - 1)

    for column in spare:
        if total(least) > width:
            columns.remove(column)
    longest = max((widths[column] for column in columns if column in texts), default=least)
    while longest > least and total(longest) > width:
        longest -= 1
    return Fitted(
        columns,
        [[cut(row[c], longest) if c in texts else row[c] for c in columns] for row in rows],
    )


def cut(text: str, most: int) -> str:
    """The beginning of a text of more than ``most`` characters, with "…" as the last one.

    >>> cut("Conv2D(8, 3)", 8), cut("Dense(3)", 8)
    ('Conv2D(…', 'Dense(3)')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def lines_of(text: str, width: int | None, indent: int = 0) -> list[str]:
    """A line in several ones of at most ``width`` characters, broken at spaces.

    The others begin where the line's own text begins, and ``indent`` characters later.

    >>> lines_of("  reads 49.0 KiB; writes 49.0 KiB", 22, 2)
    ['  reads 49.0 KiB;', '    writes 49.0 KiB']
    """
    if width is None or len(text) <= width:
        return [text]
    start = " " * (len(text) - len(text.lstrip()))
    return wrap(
        text.lstrip(), width, initial_indent=start, subsequent_indent=start + " " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
