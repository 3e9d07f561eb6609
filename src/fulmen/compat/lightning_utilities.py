"""The few names of ``lightning_utilities`` that Fulmen has no use for itself, for programs without that package."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fulmen.utilities.imports import package_available, unmet
from fulmen.utilities.rank_zero import rank_zero_deprecation, rank_zero_info, rank_zero_warn

__all__ = [
    "ModuleAvailableCache",
    "RequirementCache",
    "WarningCache",
    "compare_version",
    "module_available",
    "no_warning_call",
    "package_available",
    "rank_prefixed_message",
]


def module_available(module_path: str) -> bool:
    """Whether ``module_path`` can be imported; it is imported to find out."""
    try:
        import_module(module_path)
    except ImportError:
        return False
    return True


@contextmanager
def no_warning_call(expected_warning: type[Warning] = Warning, match: str | None = None) -> Generator[None, None, None]:
    """For tests: no warning comes of what is run in this context.

    Args:
        expected_warning: of this class; others may come.
        match: whose text has this regular expression in it. None: any text.

    Raises:
        AssertionError: one came.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if issubclass(one.category, expected_warning) and re.search(match or "", str(one.message)):
            raise AssertionError(f"a {one.category.__name__} came: {one.message}")


def compare_version(package: str, op: Callable[[Any, Any], bool], version: str, use_base_version: bool = False) -> bool:
    """Whether the installed version of ``package`` stands in the relation ``op``, such as ``operator.ge``, to
    ``version``; False if it is not installed.

    Args:
        use_base_version: a pre-release counts as its release.
    """
    from packaging.version import Version

    installed = _version_of(package)
    if installed is None:
        return False
    found = Version(installed)
    return op(Version(found.base_version) if use_base_version else found, Version(version))


def _version_of(package: str) -> str | None:
    try:
        found = getattr(import_module(package), "__version__", None)
        return str(found) if found is not None else version(package)
    except (ImportError, PackageNotFoundError):
        return None


class RequirementCache:
    """True if ``requirement``, such as ``"torch>=2.0"``, is met, and ``module`` can be imported; looked up once.

    Args:
        requirement: the name of a distribution, with or without versions; None asks for the module only.
        module: None asks for the requirement only.

    Raises:
        ValueError: neither is given.
    """

    def __init__(self, requirement: str | None = None, module: str | None = None) -> None:
        if not (requirement or module):
            raise ValueError("RequirementCache needs `requirement` or `module`, and got neither.")
        self.requirement, self.module = requirement, module
        self._reason: str | None = None

    def __bool__(self) -> bool:
        return not self._why_not()

    def __str__(self) -> str:
        wanted = repr(self.requirement or self.module)
        return self._why_not() or f"Requirement {wanted} met"

    __repr__ = __str__

    def _why_not(self) -> str:
        if self._reason is None:
            self._reason = unmet(self.requirement) if self.requirement else ""
            if not self._reason and self.module and not module_available(self.module):
                self._reason = f"The module {self.module!r} cannot be imported."
        return self._reason


class ModuleAvailableCache(RequirementCache):
    """True if ``module`` can be imported; looked up once."""

    def __init__(self, module: str) -> None:
        super().__init__(module=module)


class WarningCache(set[str]):
    """Says each message once. Keywords are those of :func:`~fulmen.utilities.rank_zero.rank_zero_warn`."""

    def warn(self, message: str, **kwargs: Any) -> None:
        self._once(rank_zero_warn, message, kwargs)

    def deprecation(self, message: str, **kwargs: Any) -> None:
        self._once(rank_zero_deprecation, message, kwargs)

    def info(self, message: str, **kwargs: Any) -> None:
        self._once(rank_zero_info, message, kwargs)

    def _once(self, say: Callable[..., Any], message: str, kwargs: dict[str, Any]) -> None:
        if message not in self:
            self.add(message)
            say(message, **kwargs)


def rank_prefixed_message(message: str, rank: int | None) -> str:
    """``message`` with the rank of the process before it; as it is if ``rank`` is None."""
    return message if rank is None else f"[rank: {rank}] {message}"
