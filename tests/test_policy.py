"""The policy: which squares, which algorithm, and what it knows of the machine."""

from __future__ import annotations

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
    assert policy.squares(layer(28, 27, 8, 8, k=5)) == policy.Squares(2, 14, 14, 36)


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
