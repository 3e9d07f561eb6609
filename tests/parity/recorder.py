"""Classes that write down what a run does to them, one line per call.

Nothing here needs one framework or the other: a :class:`Framework` names the classes to derive from, and a :class:`Run`
derives a recording module, callback and datamodule from them.
"""

from __future__ import annotations

import importlib
import signal
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset

HOOKS_FILE = Path(__file__).with_name("hooks.txt")
#: Writing these changes what a run does after evaluation, so only the scenarios about them write them.
NOT_RECORDED = frozenset({"on_validation_model_train", "on_test_model_train"})
#: Hooks around something else get a line before and a line after.
AROUND = frozenset({"optimizer_step"})
#: The module's methods that the recording module writes out itself.
STEPS = frozenset({"training_step", "validation_step", "test_step", "predict_step", "configure_optimizers"})
LOADERS = frozenset({"train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"})


@dataclass(frozen=True, slots=True)
class Framework:
    """The names that a scenario may use of a framework."""

    name: str
    Trainer: Any
    LightningModule: Any
    LightningDataModule: Any
    Callback: Any
    ModelCheckpoint: Any
    EarlyStopping: Any
    Logger: Any


def framework_of(root: str) -> Framework:
    """Import a framework by the root of its public names: ``"fulmen"`` or ``"lightning.pytorch"``."""
    front, callbacks, loggers = (importlib.import_module(root + part) for part in ("", ".callbacks", ".loggers"))
    return Framework(
        name=root,
        Trainer=front.Trainer,
        LightningModule=front.LightningModule,
        LightningDataModule=front.LightningDataModule,
        Callback=front.Callback,
        ModelCheckpoint=callbacks.ModelCheckpoint,
        EarlyStopping=callbacks.EarlyStopping,
        Logger=loggers.Logger,
    )


def hook_owners() -> dict[str, list[str]]:
    """Every hook with those who may write it, as listed in ``hooks.txt``."""
    rows = (line.split(": ") for line in HOOKS_FILE.read_text().splitlines())
    return {name: owners.split() for name, owners in rows}


def shown(args: Iterable[Any]) -> str:
    """What of a call is worth a line: counts, names, exceptions and optimizers, but no tensors and no trainer."""
    words = []
    for value in args:
        if isinstance(value, bool):
            continue
        if isinstance(value, (int, str)):
            words.append(str(getattr(value, "value", value)))
        elif isinstance(value, BaseException):
            words.append(type(value).__name__)
        elif isinstance(value, Optimizer):
            words.append(optimizer_name(value))
        elif isinstance(value, LRScheduler):
            words.append(type(value).__name__)
    return f"({','.join(words)})" if words else ""


def optimizer_name(optimizer: Optimizer) -> str:
    """The name of torch's class, also of an optimizer that the framework has wrapped."""
    return next(
        (kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim")), "none"
    )


def write_hooks(owner: type, letters: str, names: Iterable[str], lines: list[str]) -> None:
    """Give ``owner`` a recording version of each hook in ``names``."""
    for name in names:
        setattr(owner, name, _recording(owner, letters, name, lines))


def _recording(owner: type, letters: str, name: str, lines: list[str]) -> Callable[..., Any]:
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        line = f"{letters}.{name}{shown([*args, *kwargs.values()])}"
        lines.append(f"{line} begin" if name in AROUND else line)
        result = getattr(super(owner, self), name)(*args, **kwargs)
        if name in AROUND:
            lines.append(f"{line} end")
        return result

    hook.__name__ = name
    return hook


def rows(count: int) -> list[torch.Tensor]:
    """``count`` samples of two numbers between -1 and 1, always the same."""
    return [torch.tensor([(3 * i % 7) / 7 - 0.3, (5 * i % 11) / 11 - 0.4]) for i in range(count)]


def loader(batches: int, batch_size: int = 1) -> DataLoader:
    """A loader of ``batches`` batches in a fixed order."""
    return DataLoader(rows(batches * batch_size), batch_size=batch_size)  # type: ignore[arg-type]


class Stream(IterableDataset):
    """Samples without a length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return iter(rows(self.count))


class Listed:
    """The plainest loader there is: it has a length and gives what it was given."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def numbers(values: Any) -> str:
    return " ".join(f"{value:.6g}" for value in values)


class Run:
    """One scenario under one framework: makes the recording parts, calls the verbs, and keeps the lines.

    Args:
        framework: where the classes come from.
        folder: an empty folder for checkpoints.
        light: write only the methods that a run cannot do without, so that the module leaves every choice to the
            framework (the optimizer is stepped by the framework itself); the callback still records everything.
    """

    def __init__(self, framework: Framework, folder: Path, light: bool) -> None:
        self.framework = framework
        self.folder = folder
        self.light = light
        self.lines: list[str] = []
        self.trainer: Any = None
        self.StepLR = self._recording_schedule(StepLR)
        self.ReduceLROnPlateau = self._recording_schedule(ReduceLROnPlateau)
        self.Recorder: Any = self._recorder()
        self.Module: Any = self._module()
        self.DataModule: Any = self._datamodule()

    def make_trainer(self, *, callbacks: Iterable[Any] | None = None, **arguments: Any) -> Any:
        """A quiet trainer on the CPU for one epoch, with one recording callback first."""
        chosen = [self.Recorder(), *(callbacks or ())]
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(item, self.framework.ModelCheckpoint) for item in chosen),
            "default_root_dir": str(self.folder),
            "max_epochs": 1,
        }
        self.trainer = self.framework.Trainer(**{**quiet, **arguments}, callbacks=chosen)
        return self.trainer

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Call a verb of the trainer; its exception, if any, and what is left afterwards are recorded, too."""
        trainer = self.trainer
        self.lines.append(f"== {verb}")
        result = None
        try:
            result = getattr(trainer, verb)(*args, **kwargs)
            self.lines.append("== normal exit")
        except BaseException as error:
            code = shown(error.args) if isinstance(error, SystemExit) else ""
            self.lines.append(f"== exit by {type(error).__name__}{code}")
        self.lines.append(f"global_step {trainer.global_step}")
        self.lines.append(f"current_epoch {trainer.current_epoch}")
        for optimizer in trainer.optimizers:
            self.lines.append(f"lr {numbers(group['lr'] for group in optimizer.param_groups)}")
        if trainer.lightning_module is not None:
            self.lines.append(f"weight {numbers(trainer.lightning_module.layer.weight.flatten().tolist())}")
        self.lines.extend(f"file {name}" for name in self.files())
        return result

    def fit(self, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``call("fit", ...)``, with a new recording module unless one is given."""
        return self.call("fit", self.Module() if module is None else module, *args, **kwargs)

    def files(self) -> list[str]:
        """The checkpoints in the folder."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.ckpt"))

    def checkpoint(self, **arguments: Any) -> Any:
        """A checkpoint callback that writes into the run's folder."""
        return self.framework.ModelCheckpoint(dirpath=str(self.folder), **arguments)

    def watch(self, optimizer: Any) -> Any:
        """Record an optimizer's steps by torch's own hooks, so that its class stays torch's."""
        name, lines, light = type(optimizer).__name__, self.lines, self.light
        if not light:
            optimizer.register_step_pre_hook(lambda *_: lines.append(f"torch.{name}.step begin"))
        optimizer.register_step_post_hook(lambda *_: lines.append(f"torch.{name}.step{'' if light else ' end'}"))
        return optimizer

    @contextmanager
    def recorded_zero_grad(self) -> Generator[None]:
        """Record ``zero_grad`` of every optimizer, wrapped or not; torch has no hook for it."""
        zero_grad, lines = Optimizer.zero_grad, self.lines

        def recorded(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            lines.append(f"torch.{optimizer_name(optimizer)}.zero_grad")
            zero_grad(optimizer, *args, **kwargs)

        with mock.patch.object(Optimizer, "zero_grad", recorded):
            yield

    def _recording_schedule(self, kind: Any) -> Any:
        lines = self.lines

        class Recording(kind):
            def step(self, *args: Any, **kwargs: Any) -> None:
                lines.append(f"torch.{kind.__name__}.step")
                super().step(*args, **kwargs)

        Recording.__name__ = Recording.__qualname__ = kind.__name__
        return Recording

    def _recorder(self) -> Any:
        class Stateful(self.framework.Callback):
            def state_dict(self) -> dict[str, Any]:
                return {"kept": 1}

        class Recorder(Stateful):
            pass

        write_hooks(Recorder, "CB", [n for n, owners in hook_owners().items() if "callback" in owners], self.lines)
        return Recorder

    def _module(self) -> Any:
        run, lines = self, self.lines

        class Module(self.framework.LightningModule):
            train_batches = 2
            val_batches = 1
            test_batches = 2
            predict_batches = 2

            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(2, 1, bias=False)
                with torch.no_grad():
                    self.layer.weight.copy_(torch.tensor([[0.5, -0.25]]))
                self.layer.weight.register_hook(lambda _: lines.append("torch.backward"))

            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                if not run.light:
                    lines.append("M.forward")
                return self.layer(batch)

            def loss(self, batch: torch.Tensor) -> torch.Tensor:
                return (self(batch) - 1).pow(2).mean()

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                lines.append(f"M.training_step({batch_idx})")
                return self.loss(batch)

            def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
                lines.append(f"M.validation_step{place(batch_idx, dataloader_idx)}")
                return self.loss(batch)

            def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
                lines.append(f"M.test_step{place(batch_idx, dataloader_idx)}")
                return self.loss(batch)

            def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> Any:
                lines.append(f"M.predict_step{place(batch_idx, dataloader_idx)}")
                return self(batch)

            def make_optimizers(self) -> Any:
                return run.watch(torch.optim.SGD(self.parameters(), lr=0.1))

            def configure_optimizers(self) -> Any:
                lines.append("M.configure_optimizers")
                return self.make_optimizers()

        write_loaders(Module, "M", lines)
        if not self.light:
            owned = (name for name, owners in hook_owners().items() if "module" in owners)
            write_hooks(Module, "M", [n for n in owned if n not in NOT_RECORDED | STEPS | LOADERS], lines)
        return Module

    def _datamodule(self) -> Any:
        class DataModule(self.framework.LightningDataModule):
            train_batches = 2
            val_batches = 1
            test_batches = 2
            predict_batches = 2

        write_loaders(DataModule, "DM", self.lines)
        if not self.light:
            names = [n for n, owners in hook_owners().items() if "datamodule" in owners and n not in LOADERS]
            write_hooks(DataModule, "DM", names, self.lines)
        return DataModule


def place(batch_idx: int, dataloader_idx: int | None) -> str:
    return f"({batch_idx})" if dataloader_idx is None else f"({batch_idx},{dataloader_idx})"


def write_loaders(owner: type, letters: str, lines: list[str]) -> None:
    """Give ``owner`` the four loader methods, each with as many batches as its attribute ``<stage>_batches`` says."""

    def write(stage: str) -> None:
        def make(self: Any) -> DataLoader:
            lines.append(f"{letters}.{stage}_dataloader")
            return loader(getattr(self, f"{stage}_batches"))

        make.__name__ = f"{stage}_dataloader"
        setattr(owner, make.__name__, make)

    for stage in ("train", "val", "test", "predict"):
        write(stage)


def record(scenario: Callable[[Run], None], framework: Framework, light: bool = False) -> str:
    """Run ``scenario`` in an empty folder and return its lines as one text."""
    interrupt = signal.getsignal(signal.SIGINT)
    torch.manual_seed(0)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Run(framework, Path(folder), light)
            with run.recorded_zero_grad():
                scenario(run)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    return "\n".join(run.lines) + "\n"
