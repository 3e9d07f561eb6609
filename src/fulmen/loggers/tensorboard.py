"""Metrics, hyperparameters and graphs for TensorBoard."""

from __future__ import annotations

import importlib.util
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fulmen.loggers import files
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, flat, yaml_text
from fulmen.utilities.cloud_io import exists, is_remote, join_path, local_path
from fulmen.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLogger(Logger):
    """Write event files for TensorBoard, and ``hparams.yaml``, into ``<save_dir>/<name>/version_<n>/``.

    A run that is resumed from a checkpoint and writes into the same folder first takes back the events that were
    written after it. TensorBoard's files hold scalars with 32 bits; use
    :class:`~fulmen.loggers.csv_logs.CSVLogger` where all 64 matter.

    Args:
        save_dir: where all experiments are; a path or a URL that TensorBoard can write.
        name: the folder of this experiment; None or ``""`` for no such folder.
        version: the folder of this run: a number for ``version_<number>``, a text for a folder of that name, None for
            the next free number.
        log_graph: whether to write the model's graph; the module needs an ``example_input_array``.
        default_hp_metric: whether hyperparameters without metrics are shown with the metric ``hp_metric``;
            TensorBoard shows hyperparameters only beside a metric. It is -1 until ``self.log("hp_metric", ...)``, and
            a later ``test()`` or start leaves it as it is.
        prefix: stands with ``-`` before every metric's name.
        sub_dir: a folder within the run's for the event files; None for none.
        **kwargs: go to the ``SummaryWriter``, such as ``max_queue``, ``flush_secs`` or ``purge_step``.

    Raises:
        ModuleNotFoundError: neither ``tensorboard`` nor ``tensorboardX`` is installed.
    """

    NAME_HPARAMS_FILE = "hparams.yaml"
    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = True,
        prefix: str = "",
        sub_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not tensorboard_is_installed():
            raise ModuleNotFoundError(
                "TensorBoardLogger needs the package tensorboard (or tensorboardX), which is not installed. "
                "Run `pip install 'fulmen[tensorboard]'`, or use CSVLogger."
            )
        self._save_dir = os.fspath(save_dir)
        self._name = name or ""
        self._version = version
        self._counts_versions = version is None
        self._log_graph = log_graph
        self._default_hp_metric = default_hp_metric
        self._prefix = prefix
        self._sub_dir = None if sub_dir is None else os.fspath(sub_dir)
        self._writer_arguments = kwargs
        self._experiment: SummaryWriter | None = None
        self._hparams_are_new = True
        self._folders: set[str] = set()  #: with event files of this run: its own, and one for each line of a chart
        self._has_gone_back = False
        self._has_hp_metric = False
        self.hparams: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int | str:
        if self._version is None:
            self._version = files.next_version(self.root_dir)
        return self._version

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """``<save_dir>/<name>``."""
        return files.experiment_dir(self._save_dir, self._name)

    @property
    def log_dir(self) -> str:
        """``<save_dir>/<name>/version_<n>[/<sub_dir>]``."""
        run = files.run_dir(self.root_dir, self.version)
        return run if self._sub_dir is None else join_path(run, local_path(self._sub_dir))

    @property
    def sub_dir(self) -> str | None:
        return self._sub_dir

    @property
    def newest_version(self) -> int | str | None:
        return files.newest_run(self.root_dir) if self._counts_versions else self.version

    def return_to_newest_run(self) -> None:
        newest = self.newest_version
        if self._counts_versions and newest != self._version:
            self.finalize("success")
            self._experiment, self._version, self._folders, self._hparams_are_new = None, newest, set(), True

    @rank_zero_only
    def begin_anew(self) -> None:
        self.load_state_dict({"directory": self.log_dir, "files": {}})

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The ``SummaryWriter``, for images, histograms, texts; the directory is made when this is first read."""
        if self._experiment is None:
            self._has_hp_metric = bool(files.files_below(self.log_dir, "events.out.tfevents."))  # by a run before
            self._experiment = _tensorboard("SummaryWriter")(log_dir=self.log_dir, **self._writer_arguments)
        return self._experiment  # type: ignore[return-value]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write numbers (or tensors of one element); a dict of numbers becomes one chart with several lines.

        Raises:
            ValueError: a value is none of these.
        """
        self._begin_anew_if_removed()
        self._has_hp_metric = self._has_hp_metric or "hp_metric" in metrics
        for name, value in metrics.items():
            name = self._prefixed(name)
            try:
                if isinstance(value, Mapping):
                    self._begin_lines(name, value)
                    self.experiment.add_scalars(name, value, step)
                else:
                    self.experiment.add_scalar(name, _number(value), step)
            except (TypeError, ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
                raise ValueError(
                    f"TensorBoard cannot show the metric {name!r} with the value {value!r}: "
                    "log a number, a tensor of one element, or a dict of numbers."
                ) from error

    @rank_zero_only
    def log_hyperparams(  # type: ignore[override]
        self,
        params: Mapping[str, Any] | Namespace | None,
        metrics: Mapping[str, Any] | float | None = None,
        step: int | None = None,
    ) -> None:
        """Keep the hyperparameters for ``hparams.yaml`` and show them in TensorBoard's tab HPARAMS.

        Args:
            params: hyperparameters; nested ones are shown as ``outer/inner``.
            metrics: the metrics to compare runs by, with their first values; a number is named ``hp_metric``.
                TensorBoard reads the first such table of a run only: make the logger with
                ``default_hp_metric=False`` to send it yourself.
            step: the place of the metrics on the x axis; None for 0.
        """
        params = as_dict(params)
        self.hparams.update(params)
        self._hparams_are_new = True
        is_default = metrics is None
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        elif not isinstance(metrics, Mapping):
            metrics = {"hp_metric": metrics}
        if not metrics:
            return
        writer = self.experiment._get_file_writer()
        if not is_default or not self._has_hp_metric:  # TensorBoard shows the value that was written last
            self.log_metrics(metrics, 0 if step is None else step)
        shown = {name: value for name, value in flat(params).items() if value is not None}
        # SummaryWriter.add_hparams would open a second run in a folder of its own
        to_summaries = _tensorboard("summary.hparams")
        for summary in to_summaries(shown, {self._prefixed(name): value for name, value in metrics.items()}):
            writer.add_summary(summary)

    @rank_zero_only
    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Write the graph of ``model`` if the logger was made with ``log_graph=True``.

        The model is traced in evaluation mode without gradients; its modes and the random state are as before.

        Args:
            model: the model.
            input_array: an input of ``forward``, a tuple for several arguments; None takes
                ``model.example_input_array``.
        """
        if not self._log_graph:
            return
        if input_array is None:
            input_array = getattr(model, "example_input_array", None)
        if input_array is None:
            rank_zero_warn(
                "log_graph=True needs an input: set `self.example_input_array` in the module. No graph is shown."
            )
            return
        from fulmen.loggers.graph import traced_quietly

        with traced_quietly(model, input_array) as inputs:
            self.experiment.add_graph(model, inputs)

    @rank_zero_only
    def save(self) -> None:
        """Bring all events to their file, and the hyperparameters to ``hparams.yaml``."""
        self.experiment.flush()
        if self._hparams_are_new:
            path = join_path(self.log_dir, self.NAME_HPARAMS_FILE)
            if self.hparams or not exists(path):
                with files.replacing(path) as file:
                    file.write(yaml_text(self.hparams))
            self._hparams_are_new = False

    def state_dict(self) -> dict[str, Any]:
        """The event files and how much is in each, which is on the disk when this returns."""
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return {}
        self.experiment.flush()
        sizes = self._event_files()
        for name in sizes:
            folder, path = self._placed(name)
            if folder in self._open_folders():
                files.bring_to_disk(path)
        return {"directory": files.absolute(self.log_dir), "files": sizes}

    @rank_zero_only
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back later events, if this run writes to the same directory; else do nothing.

        Event files of this run that were begun later are removed, longer ones are cut. New events go to a file of their
        own.
        """
        if not files.same_place(state.get("directory", self.log_dir), self.log_dir):
            return
        self.experiment.close()  # it opens a new file when something is written
        self._has_gone_back = True
        saved = state.get("files", {})
        self._has_hp_metric = bool(saved)
        self._folders |= {self._placed(name)[0] for name in saved}
        there = self._event_files()
        for name, size in there.items():
            path = self._placed(name)[1]
            if name not in saved:
                files.remove(path)
            elif size > saved[name]:
                files.cut(path, saved[name])
        short = sorted(name for name, size in saved.items() if there.get(name, 0) < size)
        if short:
            rank_zero_warn(
                f"In {self.log_dir} there is less than the checkpoint counts, of {', '.join(short)}: these events are "
                "lost, and new ones go below."
            )

    def _begin_anew_if_removed(self) -> None:
        """Training does not end because somebody has removed its logs: go on with new ones, and say what is lost.

        The file that is open would take what is written to it, and be gone when it is closed.
        """
        is_open = getattr(self._experiment, "file_writer", None) is not None
        if not is_open or is_remote(self.log_dir) or files.files_below(self.log_dir, "events.out.tfevents."):
            return
        rank_zero_warn(
            f"The event files in {self.log_dir} were removed while the run writes to them: what was in them is lost; "
            "new ones are begun."
        )
        self.experiment.close()  # it opens a new file when something is written
        self._has_hp_metric = False
        self._hparams_are_new = not exists(join_path(self.log_dir, self.NAME_HPARAMS_FILE))

    def _open_folders(self) -> set[str]:
        """The folders to which events are written now."""
        writers = getattr(self._experiment, "all_writers", None) or {}
        return set(writers)

    def _event_files(self) -> dict[str, int]:
        """The size of each event file, by its path in the directory of this run."""
        self._folders |= self._open_folders() | {self.log_dir}
        suffix = self._writer_arguments.get("filename_suffix", "")
        sizes: dict[str, int] = {}
        for folder in sorted(self._folders):
            within = folder.removeprefix(self.log_dir).strip("/")
            for name, size in files.files_below(folder, "events.out.tfevents.").items():
                if name.endswith(suffix):
                    sizes[f"{within}/{name}" if within else name] = size
        return sizes

    def _placed(self, name: str) -> tuple[str, str]:
        """The folder and the path of an event file."""
        within, _, file = name.rpartition("/")
        folder = f"{self.log_dir}/{within}" if within else self.log_dir
        return folder, join_path(folder, file)

    def _begin_lines(self, name: str, values: Mapping[str, Any]) -> None:
        """A chart with several lines has a folder for each. Those that began after the checkpoint begin anew."""
        if not self._has_gone_back:
            return
        for line in values:
            folder = f"{self.log_dir}/{name.replace('/', '_')}_{line}"
            if folder not in self._folders:
                self._folders.add(folder)
                for file in files.files_below(folder, "events.out.tfevents."):
                    files.remove(join_path(folder, file))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is None:  # a run that logged nothing leaves no directory
            return
        self.save()
        self._experiment.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None}  # it has a thread; the copy opens a file of its own

    def _prefixed(self, name: str) -> str:
        return f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}" if self._prefix else name


def tensorboard_is_installed() -> bool:
    """Whether event files can be written: by ``tensorboard`` or by ``tensorboardX``."""
    return any(importlib.util.find_spec(package) is not None for package in ("tensorboard", "tensorboardX"))


def _tensorboard(name: str) -> Any:
    """A function or class of torch's writer, or of tensorboardX's, which mirrors it."""
    package = "torch.utils.tensorboard" if importlib.util.find_spec("tensorboard") is not None else "tensorboardX"
    module, _, attribute = f"{package}.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError("a text")  # float() would read digits in it
    return float(value)
