"""The smallest numbers by which 1 grows in half, single and double precision: they keep divisors from being zero."""

from __future__ import annotations

FLOAT16_EPSILON = 2.0**-10
FLOAT32_EPSILON = 2.0**-23
FLOAT64_EPSILON = 2.0**-52
