"""The ends of commands: exit codes, and errors as one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

DISAGREE = 1
DIVERGED = 1
BAD_ARGUMENT = 2
INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """Within this context, expected errors become one line and an exit code, not a traceback.

    Warnings become lines on the standard error.

    ``fastcnn.__main__`` prints the message for Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader, such as `| head`, has ended; Typer ends quietly
        raise
    except FloatingPointError as error:
        report(error)
        raise typer.Exit(DIVERGED) from None
    except (ValueError, TypeError, ImportError, OSError) as error:
        report(error)
        raise typer.Exit(BAD_ARGUMENT) from None


def _show(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"fastcnn: {message}", err=True)


def report(error: Exception) -> None:
    """Print an error as one line on the standard error."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        typer.echo(f"fastcnn: {error.filename}: {error.strerror}", err=True)
    else:
        typer.echo(f"fastcnn: {error}", err=True)
