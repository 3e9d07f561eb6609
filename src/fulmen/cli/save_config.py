"""The callback that keeps the whole configuration of a run beside its logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import Namespace

from fulmen.callbacks.callback import Callback
from fulmen.utilities.cloud_io import get_filesystem, join_path
from fulmen.utilities.model_helpers import is_overridden

if TYPE_CHECKING:
    from fulmen.cli.parser import LightningArgumentParser
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class SaveConfigCallback(Callback):
    """Writes the configuration of a run into its log directory, once, when the run begins.

    Args:
        parser: the parser that made ``config``.
        config: every argument with its value.
        config_filename: the file's name.
        overwrite: whether to write over a file of that name that has other content.
        multifile: whether parts that came from files of their own are written into files of their own.
        save_to_log_dir: False: write nothing there; only :meth:`save_config` is called.

    Raises:
        ValueError: ``save_to_log_dir`` is False, and ``save_config`` is not overridden, so that nothing would be saved.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        multifile: bool = False,
        save_to_log_dir: bool = True,
    ) -> None:
        self.parser = parser
        self.config = config
        self.config_filename = config_filename
        self.overwrite = overwrite
        self.multifile = multifile
        self.save_to_log_dir = save_to_log_dir
        self.already_saved = False
        if not save_to_log_dir and not is_overridden("save_config", self, SaveConfigCallback):
            raise ValueError(
                f"`{type(self).__name__}(save_to_log_dir=False)` saves nothing, as it has no `save_config` of its own."
                " Override `save_config`, or write `LightningCLI(save_config_callback=None)`."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file on rank 0.

        Raises:
            RuntimeError: there is such a file with other content, and ``overwrite`` is False.
        """
        if self.already_saved:
            return
        self.already_saved = True
        if self.save_to_log_dir:
            self._save(trainer)
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, stage)

    def _save(self, trainer: Trainer) -> None:
        folder = trainer.log_dir
        if folder is None:
            return
        refused = trainer.is_global_zero and not self._write(trainer, folder)
        if trainer.strategy.broadcast(refused):
            raise RuntimeError(
                f"{join_path(folder, self.config_filename)} is there already, with the configuration of another run,"
                " which is not overwritten. Choose another log directory or remove the file;"
                " `LightningCLI(save_config_kwargs={'overwrite': True})` writes over it, and"
                " `LightningCLI(save_config_callback=None)` writes none."
            )

    def _write(self, trainer: Trainer, folder: str) -> bool:
        """Write the file unless it is there with this content; False if it is there with another."""
        files = get_filesystem(folder)
        path = join_path(folder, self.config_filename)
        text = self.parser.dump(self.config, skip_unset=False)
        number = 0
        while not self.overwrite and files.isfile(path):
            with files.open(path, "r") as file:
                if file.read() == text:
                    return True
            if not self._goes_on(trainer):
                return False
            number += 1  # beside those of the starts before
            name, dot, suffix = self.config_filename.rpartition(".")
            path = join_path(folder, f"{name or suffix}-{number}{dot}{suffix if name else ''}")
        files.makedirs(folder, exist_ok=True)
        if self.multifile:
            config = _with_plain_values(self.config, yaml.safe_load(text))
            self.parser.save(config, path, skip_unset=False, overwrite=self.overwrite, multifile=True)
        else:
            with files.open(path, "w") as file:
                file.write(text)
        return True

    def _goes_on(self, trainer: Trainer) -> bool:
        """Whether this is another start of the run that the directory belongs to."""
        path, requeue = self.config.get("ckpt_path"), trainer.signals.requeue
        return path == "auto" or (path is None and requeue is not None and requeue.is_restart)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration in another place, too: with a logger, say. Called on rank 0 alone.

        ``self.parser.dump(self.config, skip_unset=False)`` is the text that the file has.
        """


def _with_plain_values(config: Namespace, plain: dict[str, Any]) -> Namespace:
    """``config`` with enums and the like as ``plain`` has them, for parts that are written to files of their own."""
    copy = config.clone()
    for key, value in vars(config).items():
        if isinstance(value, Namespace) and isinstance(plain.get(key), dict):
            copy[key] = _with_plain_values(value, plain[key])
        elif key in plain and not isinstance(value, (Namespace, dict, list)):
            copy[key] = plain[key]
    return copy
