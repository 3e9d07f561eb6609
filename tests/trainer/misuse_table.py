"""What a misuse is, and the sound parts that misuses are built of."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from fulmen import LightningDataModule, LightningModule, Trainer

_QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}


@dataclass(frozen=True, slots=True)
class Misuse:
    """One row of the table.

    Attributes:
        subject: the chapter it belongs to.
        name: what the user does wrong, in a few words or as the line that is written.
        commit: does it.
        raises: the exception that must come of it, or the warning that must be given.
        says: phrases that the message must have: what was asked and its value, why it cannot be, what to write instead.
        spoils_trainer: the Trainer itself has a setting that cannot work; it cannot run a right model either.
    """

    subject: str
    name: str
    commit: Callable[[Scene], Any]
    raises: type[BaseException]
    says: tuple[str, ...]
    spoils_trainer: bool = False

    @property
    def warns(self) -> bool:
        return issubclass(self.raises, Warning)


#: All misuses, by name.
MISUSES: dict[str, Misuse] = {}


def enter(row: Misuse) -> None:
    assert row.name not in MISUSES, f"{row.name!r} is there twice"
    MISUSES[row.name] = row


def misuse(
    subject: str, name: str, raises: type[BaseException], *says: str, spoils_trainer: bool = False
) -> Callable[[Callable[[Scene], Any]], None]:
    """Enter the decorated function into the table."""
    return lambda commit: enter(Misuse(subject, name, commit, raises, says, spoils_trainer))


# -- sound parts ------------------------------------------------------------------------------------------------------


def loader(batches: int = 4, shuffle: bool = False) -> DataLoader[Any]:
    """Batches of two rows of two numbers."""
    return DataLoader(torch.ones(batches * 2, 2), batch_size=2, shuffle=shuffle)  # type: ignore[arg-type]


class Sound(LightningModule):
    """A module that nothing is wrong with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _step(module: Any, batch: Any, batch_idx: int) -> Any:
    return module.layer(batch).square().mean()


_METHODS: dict[str, Any] = {
    "validation_step": _step,
    "test_step": _step,
    "predict_step": _step,
    **{f"{stage}_dataloader": lambda module: loader() for stage in ("train", "val", "test", "predict")},
}


class Scene:
    """Where one misuse takes place: a folder with files that must survive it, and the trainers and modules it used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainers: list[Trainer] = []
        self.modules: list[LightningModule] = []
        self.datamodules: list[LightningDataModule] = []
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "epoch=0-step=4.ckpt").write_bytes(b"weights of another day")
        (folder / "notes.txt").write_text("notes")
        self.files = self._files()

    def _files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def lost_files(self) -> list[Path]:
        """Files that were there before the misuse and are gone or changed."""
        now = self._files()
        return [path for path, content in self.files.items() if now.get(path) != content]

    def trainer(self, **arguments: Any) -> Trainer:
        """A Trainer for one epoch that shows and writes nothing, unless told otherwise."""
        made = Trainer(**{**_QUIET, "default_root_dir": self.folder, **arguments})
        self.trainers.append(made)
        return made

    def module(self, without: tuple[str, ...] = (), **written: Any) -> Any:
        """A sound module called ``Net``, with methods left out or written otherwise."""
        methods = {**{name: vars(Sound)[name] for name in ("training_step", "configure_optimizers")}, **_METHODS}
        methods = {name: method for name, method in {**methods, **written}.items() if name not in without}

        class Layered(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(2, 1)

        made = type("Net", (Layered,), methods)()
        self.modules.append(made)
        return made

    def datamodule(self, **written: Any) -> Any:
        """A sound datamodule called ``Data``."""
        methods = {name: method for name, method in _METHODS.items() if name.endswith("dataloader")}
        made = type("Data", (LightningDataModule,), {**methods, **written})()
        self.datamodules.append(made)
        return made

    def fit(self, module: Any = None, **arguments: Any) -> None:
        """Fit a module (a sound one if none is given) by a Trainer with these arguments."""
        self.trainer(**arguments).fit(self.module() if module is None else module)

    def checkpoint(self, name: str = "run.ckpt", module: Any = None, weights_only: bool = False) -> Path:
        """The checkpoint of a whole run."""
        path = self.folder / name
        trainer = self.trainer(enable_checkpointing=False)
        trainer.fit(self.module() if module is None else module)
        trainer.save_checkpoint(path, weights_only=weights_only)
        self.files[path] = path.read_bytes()
        return path

    def raw(self, content: Any, name: str = "raw.ckpt") -> Path:
        """A file of ``torch.save``, or of these bytes."""
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        self.files[path] = path.read_bytes()
        return path


# -- what comes of it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the user sees.

    Attributes:
        kind: the type of the exception, or of the warnings; None if nothing was said.
        text: the message as the terminal shows it, folders written as ``<folder>``.
    """

    kind: type[BaseException] | None
    text: str


def outcome(row: Misuse, scene: Scene) -> Outcome:
    """Commit a misuse and see what comes of it."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        log = logging.getLogger("fulmen")
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            row.commit(scene)
        except BaseException as error:
            text = "".join(traceback.format_exception_only(error)).strip()
            kind = type(error)
            own = f"{kind.__module__}.{kind.__qualname__}: ", f"{kind.__qualname__}: "
            text = text.removeprefix(own[0]).removeprefix(own[1])
            return Outcome(kind, text.replace(str(scene.folder), "<folder>"))
        finally:
            log.setLevel(before)
    if not given:
        return Outcome(None, "")
    told = [warning for warning in given if warning.category is row.raises] or given
    text = " / ".join(dict.fromkeys(str(warning.message) for warning in told))
    return Outcome(told[0].category, text.replace(str(scene.folder), "<folder>"))
