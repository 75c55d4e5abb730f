"""Names for the types that stand in the signatures of the compiled engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Kernel: TypeAlias = Callable[..., Any]
"""A compiled function as Python calls it."""
