"""The upper tail of the normal distribution as a polynomial: what NumPy and compilers do not have.

Φ(x) is the probability that a standard normal number is at most x. The tail is Q(a) = 1 − Φ(a) for
a ≥ 0, which is half of erfc(a / √2). It falls to 0 like exp(−a²/2), so no polynomial comes close to
it. What is left without the exponential is smooth (Mills' ratio), and so is

    P(t) = (a + k) · exp(a²/2) · Q(a),    t = (a − k) / (a + k),    k = 4,

a function of t from −1 to 1 for all a ≥ 0. The coefficients of two polynomials in t, from the
constant term on, stand here. They interpolate P at Chebyshev's points for a from 0 to where Q
vanishes in the dtype, and were computed with 60 digits. Their own relative errors are 1.4e-8 for
float32 and 4e-17 for float64. Evaluated in their dtype, by Horner's rule, they give P(t) / (a + k)
with an error of at most 5 units in the last place.

Source of the form: M. M. Shepherd, J. G. Laframboise, "Chebyshev Approximation of
(1 + 2x)exp(x²)erfc x in 0 ≤ x < ∞", Mathematics of Computation 36, 1981.
"""

from __future__ import annotations

CENTRE = 4.0
"""The number k, at which t is 0."""

FLOAT32 = (
    0.7552851385895798,
    -0.6078965826180359,
    0.387136692811776,
    -0.18652358668442365,
    0.060405851215473254,
    -0.007523799908260941,
    -0.003518413312040606,
    0.0015649267655791286,
    0.00018376808846635905,
    -0.00012793170210632292,
)
"""Coefficients for a up to 15.5."""

FLOAT64 = (
    0.7552851304157515,
    -0.6078966419718917,
    0.3871374007422191,
    -0.1865218579596938,
    0.06039657489068796,
    -0.007540188965608264,
    -0.0034796923620208924,
    0.0016308184421763136,
    0.0001333442518716509,
    -0.00023109482118101652,
    -1.9078547665539693e-06,
    3.514419791394192e-05,
    7.149674034716206e-07,
    -5.918952885516133e-06,
    -6.250594640608763e-07,
    1.019938768118178e-06,
    2.6361014617832634e-07,
    -1.5444329754008877e-07,
    -7.636221205575767e-08,
    1.4712485024685244e-08,
    1.395008368052857e-08,
    3.0469175279772776e-11,
    -9.824453179690978e-10,
)
"""Coefficients for a up to 39.5."""
