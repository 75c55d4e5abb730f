"""Docstrings that share descriptions of arguments, and the errors.

A docstring in the source describes what is its own. :func:`completed` adds the rest, so that
``help()`` shows all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from inspect import cleandoc

_AFTER_ARGUMENTS = ("Returns:", "Raises:", "Example", "Parameter", "State:", "Source")


def completed(doc: str, names: Sequence[str], shared: Mapping[str, str], raises: str) -> str:
    """The docstring, with descriptions of the arguments in the order of ``names``, and errors.

    ``shared`` has descriptions by name, see :func:`entries`. A docstring's own description of an
    argument, and its own section of errors, come before what is shared.

    >>> print(completed("Double.\\n\\nArgs:\\n    x: a number.\\n\\nReturns:\\n    y.", ("x", "z"),
    ...     entries("z: unused."), "Raises:\\n    ValueError: x is none."))
    Double.
    <BLANKLINE>
    Args:
        x: a number.
        z: unused.
    <BLANKLINE>
    Returns:
        y.
    <BLANKLINE>
    Raises:
        ValueError: x is none.
    <BLANKLINE>
    """
    sections = cleandoc(doc).split("\n\n")  # Python 3.13 and newer remove the indentation too
    places = (i for i, one in enumerate(sections) if one.startswith(_AFTER_ARGUMENTS))
    place = next(places, len(sections))
    descriptions = dict(shared)
    summary, rest = sections[:place], sections[place:]
    if summary[-1].startswith("Args:\n"):
        descriptions |= entries(summary.pop().removeprefix("Args:").replace("\n    ", "\n"))
    # One description may be that of several arguments.
    own_entries = dict.fromkeys(descriptions[name] for name in names if name in descriptions)
    arguments = ["\n".join(["Args:", *own_entries]).replace("\n", "\n    ")] if own_entries else []
    returns = [rest.pop(0)] if rest and rest[0].startswith("Returns:") else []
    errors = [] if any(one.startswith("Raises:") for one in rest) else [raises.strip()]
    return "\n\n".join([*summary, *arguments, *returns, *errors, *rest]) + "\n"


@cache
def entries(block: str) -> dict[str, str]:
    """Descriptions by the name of the argument, from a block of them.

    >>> entries("x, w: arrays\\n    of numbers.\\nb: the bias.")["w"]
    'x, w: arrays\\n    of numbers.'
    """
    result: dict[str, str] = {}
    for entry in block.replace("\n ", "\r").strip().split("\n"):
        text = entry.replace("\r", "\n ")
        for name in entry.partition(":")[0].split(", "):
            result[name] = text
    return result
