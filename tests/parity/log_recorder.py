"""What is logged in a run, and where and when it can be read, as lines of text."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from .recorder import Framework, rows

#: The hooks in which the recording callback reads the trainer's metrics.
READ_IN = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_sanity_check_end",
    "on_test_batch_end",
    "on_test_epoch_end",
    "on_test_end",
    "on_train_end",
)


def as_text(metrics: dict[str, Any]) -> str:
    """Metrics sorted by name; values that are neither a float nor a tensor carry their type."""
    words = []
    for name, value in sorted(metrics.items()):
        plain = isinstance(value, (float, torch.Tensor))
        words.append(f"{name}={float(value):.6g}{'' if plain else f' ({type(value).__name__})'}")
    return ", ".join(words) if words else "nothing"


class LogRun:
    """One logging scenario under one framework."""

    def __init__(self, framework: Framework, folder: Path) -> None:
        self.framework = framework
        self.folder = folder
        self.lines: list[str] = []
        self.trainer: Any = None
        self.shown: dict[str, dict[str, str]] = {}

    def logger(self, name: str = "logger", calls: bool = False) -> Any:
        """A logger that writes down each ``log_metrics``, and with ``calls`` all other calls, too."""
        lines = self.lines

        class Recording(self.framework.Logger):
            @property
            def name(self) -> str:
                return name

            @property
            def version(self) -> int:
                return 0

            def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
                lines.append(f"{name} step {step}: {as_text(metrics)}")

            def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
                if calls:
                    lines.append(f"{name}.log_hyperparams {dict(params)}")

            def save(self) -> None:
                if calls:
                    lines.append(f"{name}.save")

            def finalize(self, status: str) -> None:
                if calls:
                    lines.append(f"{name}.finalize({status})")

            def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
                if calls:
                    lines.append(f"{name}.after_save_checkpoint")

            def log_graph(self, model: Any, input_array: Any = None) -> None:
                if calls:
                    lines.append(f"{name}.log_graph")

        return Recording()

    def reader(self) -> Any:
        """A callback that reads the trainer's metrics in the hooks of :data:`READ_IN`."""

        def read(hook: str) -> Callable[..., None]:
            def listen(callback: Any, trainer: Any, module: Any, *args: Any) -> None:
                place = [str(value) for value in args if isinstance(value, int)]
                self.tell(f"{hook}({','.join(place)})" if place else hook)

            return listen

        return type("Reader", (self.framework.Callback,), {hook: read(hook) for hook in READ_IN})()

    def tell(self, when: str, whole: bool = False) -> None:
        """Write down what the trainer shows now: what is new or changed since the last time, or all of it."""
        self.lines.append(f"in {when}")
        for window in ("callback_metrics", "logged_metrics", "progress_bar_metrics"):
            now = {name: as_text({name: value}) for name, value in sorted(getattr(self.trainer, window).items())}
            before = {} if whole else self.shown.get(window, {})
            words = [text for name, text in now.items() if before.get(name) != text]
            words += [f"{name} is gone" for name in before if name not in now]
            self.shown[window] = now
            if words:
                self.lines.append(f"  {window}: {', '.join(words)}")

    def make_trainer(self, *, callbacks: Any = (), quiet: bool = False, **arguments: Any) -> Any:
        """A trainer on the CPU for one epoch that logs every step; with ``quiet`` only the logger's lines are kept."""
        chosen = [*callbacks, *([] if quiet else [self.reader()])]
        standing = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": self.logger(),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(item, self.framework.ModelCheckpoint) for item in chosen),
            "default_root_dir": str(self.folder),
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
        }
        self.shown = {}
        self.trainer = self.framework.Trainer(**{**standing, **arguments}, callbacks=chosen)
        return self.trainer

    def module(
        self,
        training: Callable[..., Any] | None = None,
        validation: Callable[..., Any] | None = None,
        test: Callable[..., Any] | None = None,
        *,
        samples: int = 3,
        batch_size: int = 1,
        loaders: int = 1,
        **written: Any,
    ) -> Any:
        """A module that calls ``training(module, batch_idx)`` in its training step, and so on for the others.

        Args:
            training, validation, test: what to do in the steps; evaluating steps also give the loader's index when
                there are several loaders.
            samples: samples in every loader.
            batch_size: samples per batch.
            loaders: how many loaders are evaluated.
            **written: further methods and attributes of the module, by name.
        """
        data = DataLoader(rows(samples), batch_size=batch_size)  # type: ignore[arg-type]
        several = loaders > 1

        class Module(self.framework.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                if training is not None:
                    training(self, batch_idx)
                return self.layer(batch).sum()

            def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
                if validation is not None:
                    validation(self, batch_idx, *([dataloader_idx] if several else []))

            def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
                if test is not None:
                    test(self, batch_idx, *([dataloader_idx] if several else []))

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

            def train_dataloader(self) -> Any:
                return data

            def val_dataloader(self) -> Any:
                return [data] * loaders if several else data

            def test_dataloader(self) -> Any:
                return self.val_dataloader()

        return type("Module", (Module,), written)()

    def callback(self, **written: Any) -> Any:
        """A callback with these hooks."""
        return type("Logging", (self.framework.Callback,), written)()

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Call a verb and write down how it ended, what can be read afterwards and what it returned."""
        self.lines.append(f"== {verb}")
        result = None
        if verb in ("validate", "test"):
            kwargs.setdefault("verbose", False)
        try:
            result = getattr(self.trainer, verb)(*args, **kwargs)
        except Exception as error:
            self.lines.append(f"== exit by {type(error).__name__}")
        self.tell(f"the end of {verb}", whole=True)
        if result is not None:
            self.lines.extend(f"returned {as_text(part)}" for part in result)
        return result

    def fit(self, *args: Any, **kwargs: Any) -> None:
        self.call("fit", self.module(*args, **kwargs))


def record_log(scenario: Callable[[LogRun], None], framework: Framework) -> str:
    """Run a logging scenario in an empty folder and return its lines as one text."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = LogRun(framework, Path(folder))
        scenario(run)
    return "\n".join(run.lines) + "\n"
