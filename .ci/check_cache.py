"""Is the cache of compiled kernels sound, which the tests' many processes filled together?

No symbol may stand for two different codes, and this process, which must find all kernels there,
must agree with the specification.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fastcnn
from fastcnn.engine.numba.runtime.kernel_cache import cache_folder, shared_symbols


def main() -> int:
    """1 if it is not."""
    folder = cache_folder()
    if folder is None:
        print("There is no cache: no folder for it can be written to.")
        return 1
    files = times(folder)
    shared = shared_symbols(folder)
    operations, nets = fastcnn.compare(quick=True), fastcnn.compare(models=True)
    compiled = times(folder).items() - files.items()
    print(operations, nets, f"Symbols that stand for several codes: {shared}", sep="\n")
    print(
        f"{len(files)} kernels in the cache, {len(shared)} symbols with several codes; "
        f"{operations.summary} {nets.summary} {len(compiled)} kernels were compiled anew."
    )
    return 0 if files and not shared and not compiled and operations.ok and nets.ok else 1


def times(folder: Path) -> dict[Path, int]:
    """The files of the cache, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.nbc")}


if __name__ == "__main__":
    sys.exit(main())
