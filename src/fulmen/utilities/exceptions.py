"""The exceptions that Fulmen raises beyond Python's own."""

from __future__ import annotations


class MisconfigurationException(Exception):
    """What was asked for cannot be done; the message says why and what to write instead."""


class SIGTERMException(SystemExit):
    """The process was asked to end (SIGTERM) and did so at a step boundary; exits with the conventional code 143."""

    def __init__(self, code: int = 143) -> None:
        super().__init__(code)
