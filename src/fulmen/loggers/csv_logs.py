"""Metrics as a CSV file, hyperparameters as a YAML file."""

from __future__ import annotations

import csv
import io
import math
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fulmen.loggers import files
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, yaml_text
from fulmen.utilities.cloud_io import exists, get_filesystem, is_remote, join_path, make_dirs
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn


class CSVLogger(Logger):
    """Write ``metrics.csv`` and ``hparams.yaml`` into ``<save_dir>/<name>/version_<n>/``.

    If the directory is removed while the run lasts, one warning says what is lost, and the run goes on with a new one.
    A run that writes into the directory of an earlier one goes on below its rows. One that is resumed from a checkpoint
    first takes back the rows that were logged after it.

    Args:
        save_dir: where all experiments are; a path or a URL that fsspec can open.
        name: the folder of this experiment; None or ``""`` for no such folder.
        version: the folder of this run: a number for ``version_<number>``, a text for a folder of that name, None for
            the next free number.
        prefix: stands with ``-`` before every metric's name.
        flush_logs_every_n_steps: rows are kept in memory until this many steps have passed, or until ``save``.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        self._save_dir = os.fspath(save_dir)
        self._name = name or ""
        self._version = version
        self._counts_versions = version is None
        self._prefix = prefix
        self._experiment: ExperimentWriter | None = None
        self._flush_logs_every_n_steps = flush_logs_every_n_steps
        self._flushed_at_step = -1

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
        """``<save_dir>/<name>/version_<n>``."""
        return files.run_dir(self.root_dir, self.version)

    @property
    def newest_version(self) -> int | str | None:
        return files.newest_run(self.root_dir) if self._counts_versions else self.version

    def return_to_newest_run(self) -> None:
        newest = self.newest_version
        if self._counts_versions and newest != self._version:
            self.finalize("success")
            self._experiment, self._version, self._flushed_at_step = None, newest, -1

    @rank_zero_only
    def begin_anew(self) -> None:
        self.load_state_dict({"directory": self.log_dir, "rows": 0, "columns": [], "flushed_at_step": -1})

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the two files; the directory is made when this is first read."""
        if self._experiment is None:
            self._experiment = ExperimentWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace | None = None) -> None:  # type: ignore[override]
        """Add to the hyperparameters; ``save`` writes them."""
        self.experiment.log_hparams(as_dict(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row of numbers (or tensors of one element).

        Args:
            metrics: values by name; dicts among them become columns ``name/key``.
            step: the value of the column ``step``; None for the number of the row.
        """
        if self._prefix:
            metrics = {f"{self._prefix}{self.LOGGER_JOIN_CHAR}{key}": value for key, value in metrics.items()}
        self.experiment.log_metrics(metrics, step)
        if step is not None and step - self._flushed_at_step >= self._flush_logs_every_n_steps:
            self._flushed_at_step = step
            self.experiment.save()

    @rank_zero_only
    def save(self) -> None:
        """Append the rows that are in memory to the file."""
        self.experiment.save()

    def state_dict(self) -> dict[str, Any]:
        """How many rows and which columns are in the file, which is on the disk when this returns."""
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return {}
        rows, columns = self.experiment.position()
        return {
            "directory": files.absolute(self.log_dir),
            "rows": rows,
            "columns": columns,
            "flushed_at_step": self._flushed_at_step,
        }

    @rank_zero_only
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back later rows and columns, if this run writes to the same directory; else do nothing."""
        if files.same_place(state.get("directory", self.log_dir), self.log_dir):
            self.experiment.go_back(state.get("rows", 0), state.get("columns", []))
            self._flushed_at_step = state.get("flushed_at_step", -1)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:  # a run that logged nothing leaves no directory
            self._experiment.save()


class ExperimentWriter:
    """The two files of a :class:`CSVLogger`.

    The header is the sorted union of all names so far. A new name makes the file wider: the whole is written anew
    beside it and takes its place only when complete.

    Args:
        log_dir: the directory of the run, which is made if it is not there.
    """

    NAME_HPARAMS_FILE = "hparams.yaml"
    NAME_METRICS_FILE = "metrics.csv"

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.hparams: dict[str, Any] = {}
        self.metrics: list[dict[str, Any]] = []
        self.metrics_file_path = join_path(log_dir, self.NAME_METRICS_FILE)
        self.hparams_file_path = join_path(log_dir, self.NAME_HPARAMS_FILE)
        self._check_log_dir_exists()
        make_dirs(log_dir)
        self._columns: list[str] = []
        self._rows_in_file = 0
        self._has_looked = False  #: at what an earlier run has left: only when it matters, as it may be taken back
        self._is_on_disk = True
        self._hparams_are_new = not exists(self.hparams_file_path)

    def _check_log_dir_exists(self) -> None:
        """Called before the directory is made: a class that is derived from this one may refuse one that is there."""

    @property
    def _fs(self) -> Any:
        """The file system of the directory."""
        return get_filesystem(self.log_dir)

    def log_hparams(self, params: Mapping[str, Any]) -> None:
        """Add to the hyperparameters."""
        self.hparams.update(params)
        self._hparams_are_new = True

    def log_metrics(self, metrics_dict: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row; ``step`` None counts the rows."""
        row: dict[str, Any] = {}
        for name, value in metrics_dict.items():
            _add_cells(row, name, value)
        if step is None:
            self._look_at_earlier_run()
            step = self._rows_in_file + len(self.metrics)
        row["step"] = step
        self.metrics.append(row)

    def save(self) -> None:
        """Write what is in memory: rows at the end of the file, hyperparameters if they are new."""
        self._begin_anew_if_removed()
        if self._hparams_are_new:
            with files.replacing(self.hparams_file_path) as file:
                file.write(yaml_text(self.hparams))
            self._hparams_are_new = False
        if not self.metrics:
            return
        self._look_at_earlier_run()
        self._is_on_disk = False
        new_columns = {name for row in self.metrics for name in row}.difference(self._columns)
        if new_columns:
            self._columns = self._write_wider(sorted(new_columns.union(self._columns)))
        else:
            files.append_text(self.metrics_file_path, _csv_text(self._columns, self.metrics))
        self._rows_in_file += len(self.metrics)
        self.metrics = []

    def _begin_anew_if_removed(self) -> None:
        """Training does not end because somebody has removed its logs: go on with new ones, and say what is lost."""
        if is_remote(self.log_dir) or exists(self.metrics_file_path):
            return
        had_hparams = not self._hparams_are_new and not exists(self.hparams_file_path)
        if exists(self.log_dir) and not self._rows_in_file and not had_hparams:  # nothing was there yet
            return
        what = f"{self.metrics_file_path} was removed" if exists(self.log_dir) else f"{self.log_dir} was removed"
        lost = f" The {self._rows_in_file} rows that were in {self.NAME_METRICS_FILE} are lost" * bool(
            self._rows_in_file
        )
        rank_zero_warn(f"{what} while the run writes to it.{lost or ' Nothing is lost'}; it is made anew.")
        make_dirs(self.log_dir)
        self._hparams_are_new = not exists(self.hparams_file_path)
        self._columns, self._rows_in_file, self._has_looked, self._is_on_disk = [], 0, True, True

    def _write_wider(self, columns: list[str]) -> list[str]:
        old = files.read_text(self.metrics_file_path) if self._columns else ""
        with files.replacing(self.metrics_file_path) as file:
            csv.writer(file, lineterminator="\n").writerow(columns)
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writerows(csv.DictReader(io.StringIO(old, newline="")))
            writer.writerows(self.metrics)
        return columns

    def position(self) -> tuple[int, list[str]]:
        """The number of rows in the file and its columns; all of it is on the disk when this returns."""
        self.save()
        self._look_at_earlier_run()
        if not self._is_on_disk:
            files.bring_to_disk(self.metrics_file_path)
            self._is_on_disk = True
        return self._rows_in_file, list(self._columns)

    def go_back(self, rows: int, columns: list[str]) -> None:
        """Leave the first ``rows`` rows and those of ``columns`` that are there; rows in memory go, too.

        The file is the old one or the new one at every instant.
        """
        self.metrics = []
        there, ends_well = self._read()
        kept = [row for row in there[: rows + 1] if len(row) == len(there[0])]  # one that is cut short is lost
        if len(kept) < rows + 1 and columns:
            rank_zero_warn(
                f"{self.metrics_file_path} has {max(0, len(kept) - 1)} rows of the {rows} that the checkpoint counts: "
                "the others are lost, and new ones go below."
            )
        places = [place for place, name in enumerate(kept[0]) if name in columns] if kept else []
        kept = [[row[place] for place in places] for row in kept] if places else []
        if len(there) > len(kept):
            rank_zero_info("%s goes back to row %d: later ones are logged again.", self.metrics_file_path, rows)
        if kept and (kept != there or not ends_well):
            with files.replacing(self.metrics_file_path) as file:
                csv.writer(file, lineterminator="\n").writerows(kept)
        elif there and not kept:
            files.remove(self.metrics_file_path)
        self._columns, self._rows_in_file = (kept[0], len(kept) - 1) if kept else ([], 0)
        self._has_looked = True

    def _look_at_earlier_run(self) -> None:
        """Find the header and the number of rows that are already there; a row that is cut short goes."""
        if self._has_looked:
            return
        self._has_looked = True
        rows, ends_well = self._read()
        if not rows:
            return
        if not ends_well:
            if len(rows[-1]) == len(rows[0]):
                files.append_text(self.metrics_file_path, "\n")
            else:
                rank_zero_warn(f"The last row of {self.metrics_file_path} was cut short when it was written: it goes.")
                rows.pop()
                with files.replacing(self.metrics_file_path) as file:
                    csv.writer(file, lineterminator="\n").writerows(rows)
        rank_zero_info("%s has %d rows of an earlier run: new ones go below.", self.metrics_file_path, len(rows) - 1)
        self._columns, self._rows_in_file = (rows[0], len(rows) - 1) if rows else ([], 0)

    def _read(self) -> tuple[list[list[str]], bool]:
        """The header and the rows of the file, none if it is not there, and whether the last line is whole."""
        if not exists(self.metrics_file_path):
            return [], True
        text = files.read_text(self.metrics_file_path)
        return list(csv.reader(io.StringIO(text, newline=""))), text.endswith("\n")


def _add_cells(row: dict[str, Any], name: str, value: Any) -> None:
    """Put ``value`` into ``row`` as something whose text is exact: a float's is its shortest that reads back equal."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _add_cells(row, f"{name}/{key}", inner)
    elif hasattr(value, "item"):
        if math.prod(value.shape) != 1:
            raise ValueError(f"Metric {name!r} has the shape {tuple(value.shape)}: log one number, such as its mean.")
        row[name] = value.item()
    else:
        row[name] = value


def _csv_text(columns: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
