"""The exceptions that Fulmen raises beyond Python's own."""

from __future__ import annotations


class MisconfigurationException(Exception):
    """What was asked for cannot be done; the message says why and what to write instead."""


class SIGTERMException(SystemExit):
    """The process was asked to end (SIGTERM) and did so at a step boundary; exits with the conventional code 143."""

    def __init__(self, code: int = 143) -> None:
        super().__init__(code)


class NonFiniteException(ArithmeticError):
    """A loss or a gradient is NaN or infinite; the weights are those before the step.

    Attributes:
        finding: step, batch, samples and the first bad parameter, as in ``nonfinite.json``.
    """

    def __init__(self, message: str, finding: object = None) -> None:
        super().__init__(message)
        self.finding = finding
