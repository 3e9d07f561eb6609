"""MLFlowLogger, with real stores on the disk: SQLite, and files where MLflow is told to write them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, MLFlowLogger

pytest.importorskip("mlflow")
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",  # MLflow's own
    "ignore:The filesystem tracking backend:FutureWarning",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    import mlflow

    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """A new database takes MLflow seconds: one is made, and copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "file"])
def uri(request, tmp_path, monkeypatch, empty_database) -> str:
    if request.param == "file":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return f"file:{tmp_path}/runs"
    return sqlite(tmp_path, empty_database)


@pytest.fixture
def database(tmp_path, empty_database) -> str:
    return sqlite(tmp_path, empty_database)


def sqlite(folder: Path, empty: Path) -> str:
    (folder / "mlflow.db").write_bytes(empty.read_bytes())
    return f"sqlite:///{folder}/mlflow.db"


def made(uri: str, **options: Any) -> MLFlowLogger:
    return MLFlowLogger(tracking_uri=uri, artifact_location="artifacts", **options)


def history(logger: MLFlowLogger, name: str) -> list[tuple[int, float]]:
    found = logger.experiment.get_metric_history(logger.run_id, name)
    return [(each.step, each.value) for each in found]


def status(logger: MLFlowLogger) -> str:
    return logger.experiment.get_run(logger.run_id).info.status


class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("loss", loss)
        return loss


def trainer(logger: Any, folder: Path, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    limits = {"max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 0, "log_every_n_steps": 1}
    return Trainer(accelerator="cpu", default_root_dir=folder, logger=logger, **{**quiet, **limits, **options})


def test_a_run_has_the_same_values_as_the_file_beside_it(tmp_path, uri):
    logger = made(uri, experiment_name="here", run_name="first", tags={"who": "me"})
    csv = CSVLogger(tmp_path / "csv", name="", version="run")
    trainer([logger, csv], tmp_path).fit(Model())

    lines = (tmp_path / "csv/run/metrics.csv").read_text().splitlines()
    assert history(logger, "loss") == [(step, float(line.split(",")[1])) for step, line in enumerate(lines[1:])]
    run = MlflowClient(uri).get_run(logger.run_id)
    assert (run.info.run_name, run.data.tags["who"], run.info.status) == ("first", "me", "FINISHED")
    assert (logger.name, logger.version) == (run.info.experiment_id, run.info.run_id)
    assert MlflowClient(uri).get_experiment(run.info.experiment_id).name == "here"


def test_folder_of_a_file_store_is_where_checkpoints_go(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(save_dir=str(tmp_path / "runs"))
    checkpoints = ModelCheckpoint()
    trainer(logger, tmp_path, callbacks=[checkpoints], enable_checkpointing=True).fit(Model())
    assert Path(checkpoints.best_model_path).parent == tmp_path / "runs" / logger.name / logger.version / "checkpoints"
    assert (tmp_path / "runs" / logger.name / logger.version / "metrics" / "loss").exists()


def test_without_a_uri_the_store_is_a_database_in_the_folder(tmp_path, empty_database):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns/mlflow.db").write_bytes(empty_database.read_bytes())
    logger = MLFlowLogger(experiment_name="here")
    logger.log_metrics({"a": 1.0}, 1)
    assert MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db").get_run(logger.run_id).data.metrics == {"a": 1.0}
    assert logger.save_dir == "./mlruns"
    logger.experiment.log_text(logger.run_id, "hello", "note.txt")
    assert (tmp_path / "mlruns/here" / logger.run_id / "artifacts/note.txt").read_text() == "hello"


def test_uri_of_the_environment_is_used(monkeypatch, database):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    logger = MLFlowLogger()
    assert MlflowClient(database).get_run(logger.run_id).info.experiment_id == logger.experiment_id
    assert logger.save_dir is None


def test_second_logger_of_an_experiment_begins_a_second_run_in_it(database):
    first, second = made(database, experiment_name="both"), made(database, experiment_name="both")
    assert first.experiment_id == second.experiment_id
    assert first.run_id != second.run_id


def test_hyperparameters_are_flat_and_more_than_a_request_takes(database):
    logger = made(database)
    logger.log_hyperparams({"outer": {"lr": 0.1, "sizes": [1, 2]}, **{f"p{index}": index for index in range(150)}})
    params = logger.experiment.get_run(logger.run_id).data.params
    assert params["outer/lr"] == "0.1"
    assert params["outer/sizes"] == "[1, 2]"
    assert len(params) == 152


def test_a_long_hyperparameter_is_cut_with_a_warning(database):
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    logger = made(database)
    with pytest.warns(UserWarning, match=f"takes {MAX_PARAM_VAL_LENGTH} characters of a parameter: text are cut"):
        logger.log_hyperparams({"text": "x" * (MAX_PARAM_VAL_LENGTH + 1)})
    assert logger.experiment.get_run(logger.run_id).data.params == {"text": "x" * MAX_PARAM_VAL_LENGTH}


def test_a_hyperparameter_that_changes_keeps_its_value_with_a_warning(database):
    logger = made(database)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_hyperparams({"lr": 0.1, "more": 1})
    with pytest.warns(UserWarning, match=r"keeps the values that it has of lr \('0.1'\)"):
        logger.log_hyperparams({"lr": 0.2})
    assert logger.experiment.get_run(logger.run_id).data.params == {"lr": "0.1", "more": "1"}


def test_metrics_have_the_prefix_and_only_characters_that_are_taken(database):
    logger = made(database, prefix="own")
    logger.log_metrics({"a/b_c.d e": torch.tensor(0.5)}, step=3)
    with pytest.warns(UserWarning, match="'own-a@b' is logged as 'own-ab'"):
        logger.log_metrics({"a@b": 1})
    with pytest.warns(UserWarning, match="takes numbers: the metric 'own-text' with the value 'x' is left out"):
        logger.log_metrics({"text": "x"})
    assert history(logger, "own-a/b_c.d e") == [(3, 0.5)]
    assert history(logger, "own-ab") == [(0, 1.0)]


@pytest.mark.parametrize(("told", "noted"), [("success", "FINISHED"), ("finished", "FINISHED"), ("failed", "FAILED")])
def test_status_at_the_end(database, told, noted):
    logger = made(database)
    assert status(logger) == "RUNNING"
    logger.finalize(told)
    assert status(logger) == noted


def test_values_that_were_sent_meanwhile_are_there_when_a_checkpoint_counts_them(database):
    logger = made(database, synchronous=False)
    for step in range(20):
        logger.log_metrics({"a": step}, step)
    assert logger.state_dict()["values"] == {"a": 20}
    assert len(history(logger, "a")) == 20


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_model", "keeps", "steps"), [(False, 1, []), (True, 1, [4]), ("all", 1, [2, 4])])
def test_checkpoints_become_artifacts_as_log_model_says(tmp_path, uri, log_model, keeps, steps):
    class Falling(Model):
        def training_step(self, batch, batch_idx):
            self.log("falls", -float(batch_idx))
            return super().training_step(batch, batch_idx)

    logger = made(uri, log_model=log_model, checkpoint_path_prefix="kept")
    saves = ModelCheckpoint(monitor="falls", every_n_train_steps=2, save_top_k=keeps)
    trainer(logger, tmp_path, callbacks=[saves], enable_checkpointing=True).fit(Falling())

    folders = [artifact.path for artifact in logger.experiment.list_artifacts(logger.run_id, "kept")]
    assert folders == [f"kept/epoch=0-step={step}" for step in steps]
    for folder in folders:
        files = {Path(each.path).name for each in logger.experiment.list_artifacts(logger.run_id, folder)}
        assert files == {f"{Path(folder).name}.ckpt", "metadata.yaml", "aliases.txt"}
    if folders:
        place = Path(logger.experiment.download_artifacts(logger.run_id, folders[-1]))
        assert yaml.safe_load((place / "metadata.yaml").read_text())["score"] == -3.0
        assert (place / "aliases.txt").read_text() == "['latest', 'best']"


# -- going on ----------------------------------------------------------------------------------------------------------


class Died(BaseException):
    pass


class Dies(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 6:
            raise Died


def start(folder: Path, uri: str, *callbacks: Any, **options: Any) -> MLFlowLogger:
    logger = made(uri, **options)
    saves = ModelCheckpoint(every_n_train_steps=3, save_top_k=-1)
    run = trainer(logger, folder, limit_train_batches=8, callbacks=[saves, *callbacks], enable_checkpointing=True)
    torch.manual_seed(1)
    run.fit(Model(), ckpt_path="auto")
    return logger


def test_auto_goes_on_in_the_same_run_without_a_value_twice(tmp_path, uri):
    whole = start(tmp_path / "whole", uri, experiment_name="whole")
    with pytest.raises(Died):
        start(tmp_path, uri, Dies())
    logger = start(tmp_path, uri)

    assert history(logger, "loss") == history(whole, "loss")
    assert len(history(logger, "loss")) == 8
    assert status(logger) == "FINISHED"
    client = MlflowClient(uri)
    assert len(client.search_runs([logger.experiment_id])) == 1


def test_auto_takes_no_run_of_another_directory_that_has_the_same_store(tmp_path, database):
    first, second = (start(tmp_path / folder, database) for folder in ("first", "second"))
    assert first.run_id != second.run_id
    assert len(history(first, "loss")) == len(history(second, "loss")) == 8
    assert start(tmp_path / "first", database).run_id == first.run_id


def test_run_id_goes_on_with_a_run_that_was_killed_and_killed_again(tmp_path, database):
    def log(logger: MLFlowLogger, steps: range) -> None:
        for step in steps:
            logger.log_metrics({"loss": step / 4, **({"val": step} if step % 2 else {})}, step)

    killed = made(database)
    log(killed, range(4))
    state = killed.state_dict()
    log(killed, range(4, 8))
    killed.finalize("failed")

    second = made(database, run_id=killed.run_id)
    _ = second.experiment
    second.load_state_dict(state)
    log(second, range(4, 6))
    state = second.state_dict()
    log(second, range(6, 7))

    third = made(database, run_id=killed.run_id)
    _ = third.experiment
    third.load_state_dict(state)
    assert status(third) == "RUNNING"
    log(third, range(6, 10))
    assert history(third, "loss") == [(step, step / 4) for step in range(10)]
    assert history(third, "val") == [(step, step) for step in (1, 3, 5, 7, 9)]


def test_a_checkpoint_of_another_run_leaves_nothing_out(database):
    logger = made(database)
    logger.log_metrics({"a": 1.0}, 0)
    logger.load_state_dict({"run_id": "other", "values": {}})
    logger.log_metrics({"a": 2.0}, 1)
    assert history(logger, "a") == [(0, 1.0), (1, 2.0)]


def test_a_copy_goes_on_in_the_same_run(database):
    logger = made(database)
    logger.log_metrics({"a": 1.0}, 0)
    again = pickle.loads(pickle.dumps(logger))
    assert again.run_id == logger.run_id
    assert again.state_dict()["values"] == {"a": 1}


def test_without_mlflow_the_error_names_the_extra():
    program = "import sys; sys.modules['mlflow'] = None\nfrom fulmen.loggers import MLFlowLogger\nMLFlowLogger()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'fulmen[mlflow]'" in done.stderr.splitlines()[-1]
