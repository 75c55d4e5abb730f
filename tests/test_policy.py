"""The policy: which squares, which algorithm, and what it knows of the machine."""

from __future__ import annotations

import io
from typing import Any

import pytest

from fastcnn.core.geometry import ConvGeometry, conv_geometry
from fastcnn.engine import policy


def layer(h: int, w: int, ic: int, oc: int, k: int = 3, n: int = 1) -> ConvGeometry:
    return conv_geometry((n, h, w, ic), (k, k, ic, oc), padding="same")


def test_squares_cover_the_output_with_the_fewest_products() -> None:
    for h in range(1, 14):
        for w in range(1, 14):
            cut = policy.squares(layer(h, w, 8, 8))
            products = {}
            for side in (2, 4):
                places = {(i // side, j // side) for i in range(h) for j in range(w)}
                products[side] = len(places) * (side + 2) ** 2
                if side == cut.side:
                    assert cut.number == len(places)
            assert products[cut.side] == min(products.values())
            assert cut.side == 2 or products[4] < products[2], "of equals the more accurate"
            assert cut.points == (cut.side + 2) ** 2
    assert policy.squares(layer(28, 27, 8, 8, k=5)) == policy.Squares(2, 14 * 14, 36)


def test_costs_fall_with_channels_and_pixels() -> None:
    for more, less in (
        (layer(28, 30, 64, 64), layer(28, 30, 8, 8)),
        (layer(28, 30, 64, 64), layer(6, 7, 64, 64)),
        (layer(28, 30, 64, 64), layer(28, 30, 64, 8)),
    ):
        assert policy.winograd_costs(more) < policy.winograd_costs(less)
        assert policy.winograd_gradient_costs(more) < policy.winograd_gradient_costs(less)
    many, one = layer(14, 15, 256, 256, n=16), layer(14, 15, 256, 256)
    assert policy.winograd_costs(many) == policy.winograd_costs(one), "the same bits in any batch"
    assert policy.winograd_gradient_costs(many) < policy.winograd_gradient_costs(one)


def cache_told(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    def opened(path: str) -> Any:
        name = path.removeprefix("/sys/devices/system/cpu/cpu0/cache/")
        if name not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[name])

    monkeypatch.setattr(policy, "open", opened, raising=False)
    return policy.second_level_cache.__wrapped__()


def test_second_level_cache_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"index0/level": "1\n", "index0/size": "32K\n"}
    second = {"index1/level": "2\n", "index1/size": "512K\n"}
    third = {"index2/level": "3\n", "index2/size": "32768K\n"}
    assert cache_told(first | second | third, monkeypatch) == 512 * 1024
    assert cache_told(first, monkeypatch) == 1024 * 1024
    assert cache_told({}, monkeypatch) == 1024 * 1024
    strange = {"index1/level": "2\n", "index1/size": "a lot\n"}
    assert cache_told(first | strange, monkeypatch) == 1024 * 1024
