"""The import aliases: a finder that comes before all others, and modules that hold nothing of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from fulmen.compat.old.enabling import disable, enable
from fulmen.compat.table import ROOTS, VERSION, home_of, missing_module, missing_name, public_names, target_of

#: what is put into ``PYTHONPATH`` so that Python itself installs the aliases when it starts
STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
#: "0": neither the startup folder nor the switch of an environment does anything; "child": the aliases are installed in
#: the process that started this one, which has said so
SWITCH = "FULMEN_COMPAT"

#: who takes one of these will run something: from then on what went with Lightning 1 is translated
_RUNS = ("Callback", "LightningCLI", "LightningDataModule", "LightningModule", "Trainer")
_UTILITIES = "lightning_utilities"  # another package, which much has that has no Lightning
_ROOTS = [root for root in ROOTS if "." not in root and root != _UTILITIES]


def install(*, children: bool = True) -> None:
    """Make ``import lightning``, ``lightning.pytorch``, ``pytorch_lightning``, ``lightning.fabric`` and
    ``lightning_fabric`` give Fulmen's own modules, under all of their spellings. Call it before the first of them is
    imported. To call it again does nothing.

    ``lightning_utilities`` is left alone where it is installed. Where Lightning itself is installed, a line on stderr
    says that it is not used.

    Args:
        children: the Python processes that this one starts have the aliases too: workers of loaders, of Ray and of
            ``strategy="ddp"``. It is done by ``PYTHONPATH`` in ``os.environ``.

    Raises:
        ImportError: Lightning has been imported already.
    """
    if _finder in sys.meta_path:
        return
    for root in _ROOTS:
        if root in sys.modules:
            raise ImportError(
                f"{root!r} has been imported already, from {getattr(sys.modules[root], '__file__', 'no file')}: two "
                "classes would go by each name. Call `fulmen.compat.install()` before the first import of Lightning "
                "and of what needs it, or start the program by `python -m fulmen.compat`.",
                name=root,
            )
    installed = [place for root in _ROOTS if (place := _installed(root)) is not None]
    _finder.roots = {*_ROOTS} if _installed(_UTILITIES) is not None else {*_ROOTS, _UTILITIES}
    sys.meta_path.insert(0, _finder)
    if installed and os.environ.get(SWITCH) != "child":
        print(f"fulmen.compat: Fulmen is imported instead of {', '.join(installed)}", file=sys.stderr)
    if children:
        _before.update({name: os.environ.get(name) for name in (SWITCH, "PYTHONPATH")})
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [STARTUP, *(path for path in paths if path != STARTUP)])
        )
        os.environ[SWITCH] = "child"


def uninstall() -> None:
    """Take the aliases back: the next ``import lightning`` finds Lightning itself, or nothing. What was taken from them
    before stays Fulmen's."""
    if _finder not in sys.meta_path:
        return
    sys.meta_path.remove(_finder)
    disable()
    for name, module in list(sys.modules.items()):
        if isinstance(module, AliasModule):
            del sys.modules[name]
    for name, value in _before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    _before.clear()


class AliasModule(ModuleType):
    """A module of Lightning: each of its names is looked up, when it is asked for, where Fulmen has it."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return VERSION
        if name == "__all__":
            return public_names(self.__name__)
        if name.startswith("__"):  # what Python asks of a module is no name of Lightning, and must import nothing
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        submodule = f"{self.__name__}.{name}"
        if target_of(submodule) is not None:
            return import_module(submodule)
        home = home_of(self.__name__, name)
        if home is not None:
            module = import_module(home[0])
            if hasattr(module, home[1]):
                if name in _RUNS and sys.meta_path.count(_finder):
                    enable()
                return getattr(module, home[1])
        error = missing_name(self.__name__, name)
        # `from module import name` asks in this way first, and forgets what an AttributeError has to say
        if sys._getframe(1).f_code.co_name == "_handle_fromlist":
            raise error
        raise AttributeError(str(error), name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *public_names(self.__name__)})

    def __reduce__(self) -> tuple[Any, ...]:
        return imported, (self.__name__,)


def imported(name: str) -> ModuleType:
    """The alias ``name``, in a process that has got it by pickle."""
    install()
    return import_module(name)


class AliasFinder:
    """Finds and makes the modules of Lightning, and says of its distributions that they are installed."""

    roots: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.roots:
            return None
        if target_of(name) is not None:
            return ModuleSpec(name, self, origin="fulmen.compat", is_package=True)  # type: ignore[arg-type]
        # an import is answered with what to do; `importlib.util.find_spec` only asks, and gets None
        if sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            raise missing_module(name)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        target = target_of(spec.name)
        return AliasModule(spec.name, f"Lightning's name for {target}." if target else None)

    def exec_module(self, module: ModuleType) -> None:
        target = target_of(module.__name__)
        if target:
            import_module(target)

    def find_distributions(self, context: Any = None) -> Iterable[Any]:
        """The distributions of Lightning for whoever asks by name. A listing of all that is installed has none of them:
        it is what requirements are written from."""
        from fulmen.compat.distributions import ALIASED, AliasDistribution, normalized

        name = getattr(context, "name", None)
        return [AliasDistribution(normalized(name))] if name is not None and normalized(name) in ALIASED else []


_finder = AliasFinder()
_before: dict[str, str | None] = {}  # of `os.environ`


def _installed(root: str) -> str | None:
    """Where the package ``root`` is, if it is installed."""
    spec = PathFinder.find_spec(root)
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or []), root)
