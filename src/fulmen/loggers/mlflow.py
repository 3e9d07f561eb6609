"""Metrics, hyperparameters and checkpoints for MLflow."""

from __future__ import annotations

import os
import re
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from fulmen.loggers.library import library, require_library
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, flat, plain, prefixed, yaml_text
from fulmen.loggers.written_checkpoints import aliases, check_log_model, description, newly_written, sends_each
from fulmen.utilities.cloud_io import is_remote, local_path
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.callbacks.checkpoint import Checkpoint

_FILE = "file:"
_CHECKPOINTS = "fulmen.checkpoints"  #: the tag that says where a run's checkpoints are
_MOST_PARAMS = 100  #: in one request, as MLflow's servers take them
_MOST_METRICS = 1000
_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class MLFlowLogger(Logger):
    """Send everything to a run of an MLflow server or store.

    A run that is resumed from a checkpoint and goes on in the same MLflow run (``run_id`` is given, or
    ``fit(ckpt_path="auto")`` found it) does not log again the values that the store has already, as MLflow takes
    nothing back.

    Args:
        experiment_name: the experiment; it is made if it is not there.
        run_name: the name of the run that is shown; None lets MLflow choose one.
        tracking_uri: the server or store, such as ``http://...``, ``sqlite:///mlflow.db`` or ``file:./mlruns``. None
            for ``$MLFLOW_TRACKING_URI``, and without that for a store in ``save_dir``: files where MLflow still writes
            these, else ``<save_dir>/mlflow.db``.
        tags: of the run, texts by name.
        save_dir: the folder of the store if ``tracking_uri`` is None and the environment names none; otherwise unused.
        log_model: store the kept checkpoints as artifacts when the run ends (True), each as soon as it is written
            (``"all"``; also True, if ``save_top_k=-1`` keeps all of them), or none (False).
        prefix: stands with ``-`` before every metric's name.
        artifact_location: where a new experiment keeps artifacts, a path or URL; None for the store's own place.
        run_id: the run to go on with, whose experiment is then used; None for a new one.
        synchronous: wait for each request (True), or let MLflow send them meanwhile (False). None: as MLflow is set.
        checkpoint_path_prefix: the folder of the checkpoints among the artifacts.

    Raises:
        ModuleNotFoundError: neither ``mlflow`` nor ``mlflow-skinny`` is installed.
        ValueError: ``log_model`` has another value.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | None = "./mlruns",
        log_model: Literal[True, False, "all"] = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
        checkpoint_path_prefix: str = "",
    ) -> None:
        require_library("mlflow", "mlflow", "MLFlowLogger")
        check_log_model(log_model, "MLFlowLogger")
        self._tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._store_dir = os.fspath(save_dir or "./mlruns") if self._tracking_uri is None else None
        self._experiment_name = experiment_name
        self._experiment_id: str | None = None
        self._run_name = run_name
        self._version = run_id
        self.tags = tags
        self._log_model = log_model
        self._prefix = prefix
        self._artifact_location = artifact_location
        self._checkpoint_path_prefix = checkpoint_path_prefix
        self._options = {} if synchronous is None else {"synchronous": synchronous}
        self._logged_model_time: dict[str, float] = {}
        self._to_store: list[Checkpoint] = []
        self._tells_checkpoints: str | None = None
        self._client: Any = None
        self._initialized = False
        self._sent: list[Any] = []  #: requests that may be on their way
        self._values: Counter[str] = Counter()  #: how many the run has of each metric
        self._values_before: Counter[str] = Counter()  #: the same, when this training began
        self._behind: Counter[str] = Counter()  #: how many it has beyond the checkpoint, which come again

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``MlflowClient``, for what this logger does not offer; the run is begun when this is first read.

        Example::

            self.logger.experiment.log_text(self.logger.run_id, "hello", "note.txt")
        """
        if not self._initialized:
            self._begin()
        return self._client

    def _begin(self) -> None:
        client = self._connect()
        library("mlflow").set_tracking_uri(self._tracking_uri)  # so that the user's own calls go there, too
        if self._version is not None:
            run = client.get_run(self._version)
            self._experiment_id = run.info.experiment_id
            if run.info.status != "RUNNING":
                client.update_run(self._version, status="RUNNING")
            for name in run.data.metrics:
                self._values[name] = len(client.get_metric_history(self._version, name))
        else:
            self._experiment_id = self._find_experiment() or self._make_experiment()
            tags = dict(self.tags or {})
            if self._run_name is not None:
                if tags.get("mlflow.runName", self._run_name) != self._run_name:
                    rank_zero_warn(
                        f"MLFlowLogger(run_name={self._run_name!r}) goes before the tag mlflow.runName, which is "
                        f"{tags['mlflow.runName']!r}."
                    )
                tags["mlflow.runName"] = self._run_name
            resolve_tags = library("mlflow.tracking.context.registry").resolve_tags
            self._version = client.create_run(self._experiment_id, tags=resolve_tags(tags)).info.run_id
        self._values_before = self._values.copy()
        self._initialized = True

    def _connect(self) -> Any:
        """The client, which is made; without a store to write to, where one in ``save_dir`` begins."""
        if self._client is None:
            make = library("mlflow.tracking").MlflowClient
            if self._tracking_uri is not None:
                self._client = make(self._tracking_uri)
            else:
                self._client = self._in_folder(make)
        return self._client

    def _in_folder(self, make: Any) -> Any:
        folder = local_path(self._store_dir or "")
        uri = f"{_FILE}{folder}"
        try:
            client = make(uri)
        except library("mlflow.exceptions").MlflowException:  # newer ones write no files any more unless they are told
            os.makedirs(folder, exist_ok=True)
            uri = f"sqlite:///{os.path.join(os.path.abspath(folder), 'mlflow.db')}"
            try:
                client = make(uri)
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"MLFlowLogger(save_dir={self._store_dir!r}) writes an SQLite database, for which {error.name} is "
                    "not installed. Run `pip install 'fulmen[mlflow]'`, or give the `tracking_uri` of a server.",
                    name=error.name,
                ) from error
            rank_zero_info("this version of MLflow does not write its store as files: it is %s", uri)
        self._tracking_uri = uri
        return client

    def _find_experiment(self) -> str | None:
        found = self._connect().get_experiment_by_name(self._experiment_name)
        return None if found is None or found.lifecycle_stage == "deleted" else found.experiment_id

    def _make_experiment(self) -> str:
        rank_zero_info("the MLflow experiment %r is made.", self._experiment_name)
        place = self._artifact_location
        if place is None and self._store_dir is not None and not str(self._tracking_uri).startswith(_FILE):
            place = Path(local_path(self._store_dir), self._experiment_name).absolute().as_uri()
        return self._client.create_experiment(self._experiment_name, artifact_location=place)

    @property
    def run_id(self) -> str | None:
        """The id of the run, which is begun; None on ranks other than 0."""
        _ = self.experiment
        return self._version

    @property
    def experiment_id(self) -> str | None:
        """The id of the experiment, which is made if it is not there; None on ranks other than 0."""
        _ = self.experiment
        return self._experiment_id

    @property
    def name(self) -> str | None:
        """The id of the experiment."""
        return self.experiment_id

    @property
    def version(self) -> str | None:
        """The id of the run."""
        return self.run_id

    @property
    def save_dir(self) -> str | None:
        """The folder of the store, or None if it is not one of this logger's own or of files."""
        if self._store_dir is not None:
            return self._store_dir
        uri = str(self._tracking_uri)
        return uri.removeprefix(_FILE) if uri.startswith(_FILE) else None

    @property
    def newest_version(self) -> str | None:
        """The newest run of the experiment (and of ``run_name``, if that is given) whose checkpoints are on this disk,
        where this training would write its own; the run itself if it was named or has begun.
        """
        if self._version is not None or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return self._version
        experiment = self._find_experiment()
        if experiment is None:
            return None
        with_tag = f"tags.`{_CHECKPOINTS}` != ''"
        for run in self._connect().search_runs([experiment], with_tag, order_by=["attributes.start_time DESC"]):
            if self._run_name in (None, run.info.run_name) and self._is_place(run.data.tags[_CHECKPOINTS]):
                return run.info.run_id
        return None

    def _is_place(self, folder: str) -> bool:
        """Whether a run of this training may have its checkpoints in ``folder``, which is there: in
        ``<root>/<name>/<version>/checkpoints``, or in a folder that was named.
        """
        root, *named = (os.path.realpath(place) for place in self._places or (self.save_dir or ".",))
        folder = os.path.realpath(folder)
        is_below = folder.startswith(os.path.join(root, "")) and len(Path(folder).relative_to(root).parts) <= 3
        return os.path.isdir(folder) and (is_below or folder in named)

    @rank_zero_only
    def return_to_newest_run(self) -> None:
        if self._version is None:
            self._version = self.newest_version

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Log the parameters of the run; nested ones as ``outer/inner``.

        MLflow keeps the first value of a parameter for ever, and a limited number of characters of it: another value,
        or the rest, is left out with a warning.
        """
        client, run_id = self.experiment, self.run_id
        texts = {name: str(value) for name, value in flat(as_dict(params)).items()}
        most = getattr(library("mlflow.utils.validation"), "MAX_PARAM_VAL_LENGTH", 250)
        long = sorted(name for name, text in texts.items() if len(text) > most)
        if long:
            rank_zero_warn(f"MLflow takes {most} characters of a parameter: {', '.join(long)} are cut.")
        texts = {name: text[:most] for name, text in texts.items()}
        there = client.get_run(run_id).data.params
        changed = [f"{name} ({shown(there[name])})" for name in texts if there.get(name, texts[name]) != texts[name]]
        if changed:
            rank_zero_warn(
                f"The MLflow run {run_id} keeps the values that it has of {', '.join(changed)}: MLflow lets no "
                "parameter change. Begin a new run if they matter."
            )
        param = library("mlflow.entities").Param
        new = [param(name, text) for name, text in texts.items() if name not in there]
        for begin in range(0, len(new), _MOST_PARAMS):
            self._send(params=new[begin : begin + _MOST_PARAMS])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers (or tensors of one element) in one request.

        Args:
            metrics: values by name. Characters that MLflow does not take go, with a warning; so do texts.
            step: the place on the x axis; None for 0.
        """
        _ = self.experiment
        metric, now = library("mlflow.entities").Metric, int(time.time() * 1000)
        new = []
        for name, value in prefixed(metrics, self._prefix, self.LOGGER_JOIN_CHAR).items():
            if isinstance(value, str):
                rank_zero_warn(f"MLflow takes numbers: the metric {name!r} with the value {value!r} is left out.")
                continue
            clean = re.sub(r"[^a-zA-Z0-9_/. -]+", "", name)
            if clean != name:
                rank_zero_warn(
                    f"MLflow takes letters, digits, '_', '-', '/', '.' and ' ' in a name: {name!r} is logged as "
                    f"{clean!r}."
                )
            if self._behind[clean]:
                self._behind[clean] -= 1
                continue
            self._values[clean] += 1
            new.append(metric(key=clean, value=float(value), timestamp=now, step=step or 0))
        for begin in range(0, len(new), _MOST_METRICS):
            self._send(metrics=new[begin : begin + _MOST_METRICS])

    def _send(self, **what: list[Any]) -> None:
        operation = self._client.log_batch(run_id=self._version, **what, **self._options)
        if operation is not None and not self._options.get("synchronous", False):
            self._sent.append(operation)
            if len(self._sent) > _MOST_METRICS:
                self._wait()

    def _wait(self) -> None:
        """Until the store has what was sent."""
        while self._sent:
            self._sent.pop(0).wait()

    def state_dict(self) -> dict[str, Any]:
        """The run, and how many values of each metric belong to what the checkpoint holds; the store has them."""
        if not self._initialized or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return {}
        self._wait()
        return {"run_id": self._version, "values": dict(self._values - self._behind)}

    @rank_zero_only
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the values that come again and that the run has, if it is the same run; else do nothing."""
        if state.get("run_id") != self.run_id:
            return
        self._behind = self._values_before - Counter(state.get("values", {}))
        if self._behind:
            rank_zero_info(
                "the MLflow run %s has %d values that were logged after the checkpoint; they are not logged again.",
                self._version,
                self._behind.total(),
            )

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        folder = getattr(checkpoint_callback, "dirpath", None)
        if folder is not None and folder != self._tells_checkpoints:  # where `ckpt_path="auto"` looks
            place = os.fspath(folder)
            place = place if is_remote(place) else os.path.abspath(local_path(place))
            self.experiment.set_tag(self.run_id, _CHECKPOINTS, place)
            self._tells_checkpoints = folder
        if sends_each(self._log_model, checkpoint_callback):
            self._store(checkpoint_callback)
        elif self._log_model and checkpoint_callback not in self._to_store:
            self._to_store.append(checkpoint_callback)

    def _store(self, checkpoint_callback: Checkpoint) -> None:
        client, run_id = self.experiment, self.run_id
        for written, path, score, _ in newly_written(checkpoint_callback, self._logged_model_time):
            place = (Path(self._checkpoint_path_prefix) / Path(path).stem).as_posix()
            if os.path.isdir(path):
                client.log_artifacts(run_id, path, f"{place}/{Path(path).name}")
            else:
                client.log_artifact(run_id, path, place)
            with TemporaryDirectory(prefix="fulmen-") as folder:
                told = description(checkpoint_callback, path, score)
                Path(folder, "metadata.yaml").write_text(yaml_text(told), encoding="utf-8")
                names = plain(aliases(checkpoint_callback, path))
                Path(folder, "aliases.txt").write_text(str(names), encoding="utf-8")
                client.log_artifacts(run_id, folder, place)
            self._logged_model_time[path] = written

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Store the kept checkpoints, and note how the run has ended: FAILED for ``"failed"``, else FINISHED."""
        if not self._initialized:
            return
        self._wait()
        while self._to_store:
            self._store(self._to_store.pop(0))
        self._client.set_terminated(self._version, _STATUS.get(status, "FINISHED"))
        self._values_before, self._behind = self._values.copy(), Counter()

    def __getstate__(self) -> dict[str, Any]:
        """Without the client: the copy goes on in the run, or begins one, when it is first asked for it."""
        return {**self.__dict__, "_client": None, "_initialized": False, "_sent": [], "_values": Counter()}
