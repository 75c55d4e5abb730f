"""Checks that a picture file holds as much data as its header promises.

Decoders fill missing data with grey (JPEG) or black (PNG) without an error. A file that claims
7000×7000 pixels and holds the data of 64×64 would look like a whole picture.

**JPEG.** If a scan's data end too early, the decoder meets the marker of the file's end (EOI). If
zeros replace this marker, the decoder reads on and runs out of data, which Pillow reports. The
decoder of a whole picture never reads so far. Progressive files are read to their end before a
pixel is decoded, so the zeros do not help. There each block of 8×8 pixels needs at least one bit in
the first scan.

**PNG.** The data are decompressed once to count them.

Source: ITU-T T.81 (JPEG), annexes B (markers) and F (Huffman coding); W3C, "Portable Network
Graphics", sections 7 and 8 (scanlines, interlacing).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

_EOI, _SOS = 0xD9, 0xDA
_RESTARTS = range(0xD0, 0xD8)
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_AHEAD = 16  # bytes; a decoder reads at most eight ahead


@dataclass(frozen=True)
class _Scan:
    """The data of a file's first scan, and the marker after them."""

    first: int
    end: int
    marker: int


def whole_jpeg(contents: bytes, width: int, height: int) -> bytes:
    """The file, changed so that a decoder fails if data are missing.

    Raises ``ValueError`` for a file with less than one bit for each block of pixels. A file with
    invalid markers is returned as it is, because the decoder refuses it.
    """
    scan = _first_scan(contents)
    if scan is None:
        return contents
    blocks = -(-width // 8) * -(-height // 8)
    if 8 * (scan.end - scan.first) < blocks:
        raise ValueError(
            f"its header promises {width:,}×{height:,} pixels, and its data are far fewer"
        )
    if scan.marker != _EOI:
        return contents  # several scans
    return contents[: scan.end] + bytes(_AHEAD)


def _first_scan(contents: bytes) -> _Scan | None:
    at = 2
    while at + 4 <= len(contents):
        if contents[at] != 0xFF:
            return None
        marker = contents[at + 1]
        if marker == 0xFF:  # any number of these bytes may precede a marker
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        at += 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
        if marker == _SOS:
            end = _end(contents, at)
            return None if end is None else _Scan(at, end, contents[end + 1])
    return None


def _end(contents: bytes, at: int) -> int | None:
    """The position of the marker that ends a scan's data. In the data, a 0 follows each 0xFF."""
    while 0 <= (at := contents.find(0xFF, at)) < len(contents) - 1:
        after = contents[at + 1]
        if after == 0xFF:
            at += 1
        elif after == 0 or after in _RESTARTS:
            at += 2
        else:
            return at
    return None


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: the first row and column of each pass, and the steps between rows and columns.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
           (1, 0, 2, 1))  # fmt: skip
_PIECE = 1 << 20


def check_png(contents: bytes) -> None:
    """Raise ``ValueError`` for a PNG file that has less data than its header promises.

    A file with invalid chunks is not checked, because the decoder refuses it.
    """
    header = contents[16:29]
    if len(header) < 13 or header[9] not in _PNG_CHANNELS:
        return
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (0, 4))
    bits = header[8] * _PNG_CHANNELS[header[9]]
    promised = _png_bytes(width, height, bits, interlaced=header[12] == 1)
    stream, counted, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(contents) and counted < promised and not stream.eof:
        length, kind = int.from_bytes(contents[at : at + 4], "big"), contents[at + 4 : at + 8]
        if kind == b"IDAT":
            data = contents[at + 8 : at + 8 + length]
            while data and counted < promised:
                counted += len(stream.decompress(data, _PIECE))
                data = stream.unconsumed_tail
        at += 12 + length
    while counted < promised and not stream.eof and (rest := stream.flush()):
        counted += len(rest)
    if counted < promised:
        raise ValueError(f"its header promises {promised:,} bytes, and it has {counted:,}")


def _png_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Bytes of all scanlines; each begins with a byte that names its filter."""
    if not interlaced:
        return height * (1 + -(-width * bits // 8))
    total = 0
    for row, column, rows, columns in _PASSES:
        lines, pixels = -(-(height - row) // rows), -(-(width - column) // columns)
        if lines > 0 and pixels > 0:
            total += lines * (1 + -(-pixels * bits // 8))
    return total
