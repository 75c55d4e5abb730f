"""The stored records of a zip file, checked before they are read.

Libraries of neural networks use zip files without compression. Compressed and encrypted records
are refused, so a record never has more bytes than the file.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from fastcnn.core.quoting import quoted
from fastcnn.exchange.file_arrays import refusal

_MOST_RECORDS = 1 << 20


class Records(Mapping[str, bytes]):
    """The records of a zip file by name; each is read when it is asked for."""

    def __init__(self, name: str, file: zipfile.ZipFile) -> None:
        self._name, self._file = name, file
        self._infos = {info.filename: info for info in file.infolist()}

    def size(self, key: str) -> int:
        """The length of a record in bytes."""
        return self._infos[key].file_size

    def __getitem__(self, key: str) -> bytes:
        info = self._infos[key]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise refusal(
                self._name, f"its record {quoted(key)} is compressed, which PyTorch never does"
            )
        try:
            return self._file.read(info)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
            raise refusal(self._name, f"its record {quoted(key)}: {error}") from None
        except RuntimeError as error:  # of encrypted records
            raise refusal(self._name, f"its record {quoted(key)}: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


def records_of(name: str, file: BinaryIO) -> Records:
    """The records of an open zip file.

    Raises ``ModelFileError`` for a damaged file, for two records of one name, and for records that
    overlap or exceed the file.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
        raise refusal(name, f"it is no whole zip file: {error}") from None
    except Exception as error:  # struct.error, UnicodeDecodeError and others of damaged entries
        raise refusal(name, f"it is no whole zip file: {error!r}") from None
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if len(infos) > _MOST_RECORDS:
        raise refusal(name, f"it has {len(infos)} records, of at most {_MOST_RECORDS}")
    if len({info.filename for info in infos}) < len(infos):
        raise refusal(name, "it has two records of one name")
    size, end, last = os.fstat(file.fileno()).st_size, 0, ""
    for info in infos:
        if info.header_offset < end:
            raise refusal(name, f"its records {quoted(last)} and {quoted(info.filename)} overlap")
        end, last = info.header_offset + info.compress_size, info.filename
        if end > size:
            raise refusal(
                name, f"its record {quoted(info.filename)} exceeds the file; it may be truncated"
            )
    return Records(name, archive)
