"""Real workers of a Ray on this machine: each run is compared with a loop written by hand."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningModule, Trainer
from fulmen.utilities.exceptions import MisconfigurationException

pytestmark = [
    pytest.mark.xdist_group("ray"),  # one Ray for all of them
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of its own settings
]

BATCH, BATCHES, EPOCHS, RATE = 3, 6, 3, 0.05
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "OMP_NUM_THREADS": "1",
}


class Numbers(Dataset):
    """Points near a line of four dimensions."""

    def __init__(self, count: int = BATCH * BATCHES) -> None:
        noise = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(count, 4, generator=noise, dtype=torch.float64)
        self.targets = self.inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


class Line(LightningModule):
    """Learns the line. ``at_batch`` is called in each training step."""

    def __init__(self, rate: float = RATE, at_batch: Callable[[LightningModule], None] | None = None) -> None:
        super().__init__()
        self.rate, self.at_batch = rate, at_batch
        self.layer = nn.Linear(4, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(self.layer(batch[0])[:, 0], batch[1])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.at_batch is not None:
            self.at_batch(self)
        return self.loss(batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


def by_hand(batches_per_step: int = 1, epochs: int = EPOCHS, rate: float = RATE) -> tuple[Tensor, list[float]]:
    """The weights after training on so many batches per step, and the validation loss of each epoch."""
    data = Numbers()
    weight = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=rate, momentum=0.9)
    size, losses = BATCH * batches_per_step, []
    for _ in range(epochs):
        for start in range(0, len(data), size):
            piece = slice(start, start + size)
            optimizer.zero_grad()
            nn.functional.mse_loss((data.inputs[piece] @ weight.T)[:, 0], data.targets[piece]).backward()
            optimizer.step()
        losses.append(nn.functional.mse_loss((data.inputs @ weight.T)[:, 0], data.targets).item())
    return weight.detach(), losses


# -- what the workers run: it is sent to them ------------------------------------------------------------------------


def loaders() -> dict[str, Any]:
    return {name: DataLoader(Numbers(), BATCH) for name in ("train_dataloaders", "val_dataloaders")}


def quiet(**arguments: Any) -> dict[str, Any]:
    switched_off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return {"accelerator": "cpu", "max_epochs": EPOCHS, "logger": False, **switched_off, **arguments}


def train(config: dict[str, Any]) -> None:
    """A worker of Ray Train."""
    from fulmen.integrations import ray as ours

    torch.set_num_threads(1)
    kind = getattr(ours, config.get("strategy", "RayDDPStrategy"))
    trainer = Trainer(
        strategy=kind(**config.get("options", {})),
        plugins=[ours.RayLightningEnvironment()],
        callbacks=[ours.RayTrainReportCallback(**config.get("report", {}))],
        **quiet(**config.get("trainer", {})),
    )
    trainer = ours.prepare_trainer(trainer)
    with ours.reported_checkpoint() as path:
        trainer.fit(Line(at_batch=config.get("at_batch")), ckpt_path=path, **loaders())


def trial(config: dict[str, Any]) -> None:
    """A trial of Ray Tune."""
    from fulmen.integrations.ray import TuneReportCheckpointCallback, reported_checkpoint

    torch.set_num_threads(1)
    report = TuneReportCheckpointCallback({"loss": "val_loss"}, on=config.get("on", "validation_end"))
    trainer = Trainer(callbacks=[report, *config.get("callbacks", [])], **quiet(**config.get("trainer", {})))
    module = Line(config["rate"], config.get("at_batch"))
    with reported_checkpoint("checkpoint") as path:
        trainer.fit(module, ckpt_path=path, **loaders())


# -- a Ray ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray on this machine, for two workers; nothing is left of it afterwards."""
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SETTINGS.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
        folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of its sockets must be short
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
            _temp_dir=folder,
        )
        for name in ("ray.train", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield ray
        started = set(psutil.Process().children(recursive=True)) - before
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    assert started
    assert not psutil.wait_procs(started, timeout=30)[1], "processes of Ray are still there"


@pytest.fixture(scope="module")
def fit(ray_here: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run :func:`train` (or another function) in two workers."""

    def run(function: Callable[..., None] = train, failures: int = 0, datasets: Any = None, **config: Any) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        return TorchTrainer(
            function,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(
                storage_path=str(tmp_path_factory.mktemp("train")),
                failure_config=FailureConfig(max_failures=failures),
            ),
            datasets=datasets,
        ).fit()

    return run


@pytest.fixture
def search(ray_here: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run :func:`trial` with each configuration of a space."""

    def run(space: dict[str, Any], failures: int = 0, trainable: Any = trial, **config: Any) -> Any:
        from ray import tune
        from ray.tune.logger import JsonLoggerCallback

        run_config = tune.RunConfig(
            storage_path=str(tmp_path),
            failure_config=tune.FailureConfig(max_failures=failures),
            callbacks=[JsonLoggerCallback()],  # what tables of results are read from
            verbose=0,
        )
        settings = tune.TuneConfig(**{"metric": "loss", "mode": "min", "max_concurrent_trials": 2, **config})
        return tune.Tuner(trainable, param_space=space, tune_config=settings, run_config=run_config).fit()

    return run


def weights(result: Any, filename: str = "checkpoint.ckpt") -> Tensor:
    file = torch.load(Path(result.checkpoint.path, filename), weights_only=True)
    return file["state_dict"]["layer.weight"]


@pytest.fixture(scope="module")
def trained(fit: Callable[..., Any]) -> Any:
    """A run of two workers."""
    return fit(report={"metrics": {"loss": "val_loss"}})


# -- Ray Train --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_train_as_one_process_with_batches_twice_as_large(trained: Any) -> None:
    torch.testing.assert_close(weights(trained), by_hand(batches_per_step=2)[0])


@pytest.mark.slow
def test_report_of_workers_names_the_metric_as_it_was_asked_for(trained: Any) -> None:
    assert trained.metrics.keys() == {"loss", "epoch", "step"}
    assert trained.metrics["loss"] == pytest.approx(by_hand(batches_per_step=2)[1][-1], rel=1e-6)


@pytest.mark.slow
def test_each_epoch_leaves_a_checkpoint_in_ray(trained: Any) -> None:
    found = [
        torch.load(Path(checkpoint.path, "checkpoint.ckpt"), weights_only=True)["loops"]["progress"]["epoch"]
        for checkpoint, _ in trained.best_checkpoints
    ]
    assert sorted(found) == [1, 2, 3]


@pytest.mark.slow
def test_checkpoint_that_ray_uploads_later_is_there_until_it_has_done_so(
    fit: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    from ray.train import CheckpointUploadMode

    def upload(checkpoint: Any, name: str) -> Any:
        import ray.train

        time.sleep(1)
        context = ray.train.get_context().get_storage()
        return context.persist_current_checkpoint(checkpoint, name)

    options = {"checkpoint_upload_mode": CheckpointUploadMode.ASYNC, "checkpoint_upload_fn": upload}
    result = fit(report={**options, "folder": str(tmp_path)})

    assert torch.equal(weights(result), weights(trained))
    assert not list(tmp_path.iterdir())


def once(marker: Path, act: Callable[[], None], step: int, rank: int = 0) -> Callable[[LightningModule], None]:
    """What does ``act`` in the process ``rank`` at that step, the first time that it is reached."""

    def at_batch(module: LightningModule) -> None:
        if module.global_step == step and module.global_rank == rank and not marker.exists():
            marker.touch()
            act()

    return at_batch


def fail() -> None:
    raise ValueError("this worker has had enough")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_exception_in_one_worker_ends_the_run_with_its_traceback(fit: Callable[..., Any], tmp_path: Path) -> None:
    from ray.train import WorkerGroupError

    began = time.monotonic()
    with pytest.raises(WorkerGroupError) as raised:
        fit(at_batch=once(tmp_path / "failed", fail, step=4, rank=1))
    assert time.monotonic() - began < 200  # the other worker waits for its gradients, and would for half an hour
    assert "this worker has had enough" in str(raised.value)
    assert list(raised.value.worker_failures) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"state_dict_type": "sharded"}], ids=["ddp", "fsdp in shards"])
def test_run_with_a_killed_worker_goes_on_exactly_from_its_last_report(
    fit: Callable[..., Any], trained: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    strategy = "RayFSDPStrategy" if options else "RayDDPStrategy"
    at_batch = once(tmp_path / "killed", die, step=8, rank=1)
    result = fit(failures=1, at_batch=at_batch, strategy=strategy, options=options)
    assert (tmp_path / "killed").exists()
    assert result.metrics["step"] == EPOCHS * BATCHES // 2
    assert result.metrics["val_loss"] == pytest.approx(trained.metrics["loss"], rel=1e-12)


@pytest.mark.slow
def test_report_after_each_batch_is_where_the_run_goes_on(
    fit: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"

    def note(module: LightningModule) -> None:
        with seen.open("a") as file:
            file.write(f"{module.global_rank}:{module.global_step} ")
        failing(module)

    failing = once(tmp_path / "failed", fail, step=5)
    result = fit(failures=1, at_batch=note, report={"on": "train_batch_end"})
    steps = [int(entry[2:]) for entry in seen.read_text().split() if entry.startswith("0:")]
    assert steps == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert torch.equal(weights(result), weights(trained))


@pytest.mark.slow
def test_shards_of_a_dataset_of_ray_are_trained_on_by_the_worker_that_has_them(
    fit: Callable[..., Any], tmp_path: Path
) -> None:
    import ray.data

    def take_shares(config: dict[str, Any]) -> None:
        import ray.train

        from fulmen.integrations.ray import RayDDPStrategy

        seen = []

        class Noting(Line):
            def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
                seen.extend(batch["id"].tolist())
                return self.layer(batch["id"].double()[:, None].expand(-1, 4)).square().mean()

        batches = ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=4)
        trainer = Trainer(strategy=RayDDPStrategy(), use_distributed_sampler=False, **quiet(max_epochs=2))
        trainer.fit(Noting(rate=1e-6), batches)
        (tmp_path / f"rank{trainer.global_rank}").write_text(" ".join(map(str, seen)))

    fit(take_shares, datasets={"train": ray.data.range(20)})
    shares = [list(map(int, (tmp_path / f"rank{rank}").read_text().split())) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted([*range(20)] * 2)


@pytest.mark.slow
def test_logger_of_workers_writes_once(fit: Callable[..., Any], tmp_path: Path) -> None:
    def log(config: dict[str, Any]) -> None:
        from fulmen.integrations.ray import RayDDPStrategy
        from fulmen.loggers import CSVLogger

        trainer = Trainer(strategy=RayDDPStrategy(), **quiet(logger=CSVLogger(tmp_path)))
        trainer.fit(Line(), **loaders())

    fit(log)
    assert len(list(tmp_path.rglob("metrics.csv"))) == 1


@pytest.mark.slow
def test_trainer_without_a_word_about_ray_trains_with_the_other_workers(
    fit: Callable[..., Any], tmp_path: Path
) -> None:
    def train_plainly(config: dict[str, Any]) -> None:
        module = Line()
        Trainer(**quiet()).fit(module, **loaders())
        torch.save(module.layer.weight.detach(), tmp_path / f"rank{module.global_rank}.pt")

    fit(train_plainly)
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), by_hand(batches_per_step=2)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trainer": {"devices": 3}}, "Ray has started 2 workers"),
        ({"plain": True}, "RayDDPStrategy"),
    ],
    ids=["devices", "strategy"],
)
def test_trainer_that_contradicts_ray_is_refused(fit: Callable[..., Any], config: dict[str, Any], message: str) -> None:
    def refused(config: dict[str, Any]) -> None:
        from fulmen.integrations.ray import prepare_trainer

        prepare_trainer(Trainer(**quiet(strategy="ddp")))

    from ray.train import WorkerGroupError

    with pytest.raises(WorkerGroupError) as raised:
        fit(refused if config.get("plain") else train, **config)
    assert all(message in str(failure) for failure in raised.value.worker_failures.values())


# -- Ray Tune ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_search_finds_the_best_rate_and_stops_bad_trials_early(search: Callable[..., Any]) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    scheduler = ASHAScheduler(max_t=8, grace_period=2, reduction_factor=2)
    space = {"rate": tune.grid_search([0.02, 0.01, 1e-5, 1e-6]), "trainer": {"max_epochs": 8}}
    results = search(space, scheduler=scheduler, max_concurrent_trials=1)
    assert not results.errors
    reports = {result.config["rate"]: len(result.metrics_dataframe) for result in results}
    assert reports[0.02] == 8
    assert reports[1e-5] < 8
    assert reports[1e-6] < 8
    best = results.get_best_result()
    assert best.config["rate"] == 0.02
    assert best.metrics["loss"] == pytest.approx(by_hand(epochs=8, rate=0.02)[1][-1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["validation_end", "train_epoch_end"])
def test_trial_that_fails_goes_on_exactly_from_its_last_report(
    search: Callable[..., Any], tmp_path: Path, moment: str
) -> None:
    at_batch = once(tmp_path / "failed", fail, step=BATCHES + 2)
    results = search({"rate": RATE, "at_batch": at_batch, "on": moment}, failures=1)
    assert (tmp_path / "failed").exists()
    assert not results.errors
    assert list(results[0].metrics_dataframe["step"]) == [BATCHES, 2 * BATCHES, 3 * BATCHES]
    torch.testing.assert_close(weights(results[0], "checkpoint"), by_hand()[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Consider boosting PBT performance:UserWarning")
def test_population_goes_on_from_the_checkpoints_of_its_best(search: Callable[..., Any]) -> None:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        hyperparam_mutations={"rate": [0.05]},
        synch=True,
    )
    space = {"rate": tune.grid_search([0.05, 1e-7]), "trainer": {"max_epochs": 4}}
    results = search(space, failures=2, scheduler=scheduler)
    assert not results.errors
    good, bad = results
    expected = by_hand(epochs=4)[1]
    # the last report of each: Ray writes the tables of trials that were paused anew
    assert good.metrics["training_iteration"] == 4
    assert good.metrics["loss"] == pytest.approx(expected[-1], rel=1e-6)  # paused, and on as it was
    last = bad.metrics
    assert last["loss"] == pytest.approx(expected[int(last["epoch"])], rel=1e-6)


@pytest.mark.slow
def test_trial_that_wants_several_processes_is_told_to_ask_ray(search: Callable[..., Any]) -> None:
    results = search({"rate": RATE, "trainer": {"devices": 2, "strategy": "ddp"}})
    assert "TorchTrainer" in str(results.errors[0])


@pytest.mark.slow
def test_option_of_ray_train_in_a_trial_is_refused(search: Callable[..., Any]) -> None:
    def asks_for_more(config: dict[str, Any]) -> None:
        from fulmen.integrations.ray import RayTrainReportCallback

        Trainer(callbacks=[RayTrainReportCallback(validation=True)], **quiet()).fit(Line(), **loaders())

    results = search({}, trainable=asks_for_more)
    assert "validation=..." in str(results.errors[0])


# -- without a Ray ----------------------------------------------------------------------------------------------------


def test_callback_outside_of_ray_says_where_it_belongs(trainer_of: Callable[..., Trainer]) -> None:
    from fulmen.integrations.ray import RayTrainReportCallback

    with pytest.raises(MisconfigurationException, match="neither a worker of Ray Train nor a trial of Ray Tune"):
        trainer_of(callbacks=[RayTrainReportCallback()], max_epochs=1).fit(Line(), **loaders())


def test_strategy_outside_of_ray_says_where_it_belongs(trainer_of: Callable[..., Trainer]) -> None:
    from fulmen.integrations.ray import RayDDPStrategy

    with pytest.raises(MisconfigurationException, match="no worker of Ray Train"):
        trainer_of(strategy=RayDDPStrategy(), max_epochs=1).fit(Line(), **loaders())


def test_reported_checkpoint_outside_of_ray_is_refused() -> None:
    from fulmen.integrations.ray import reported_checkpoint

    with pytest.raises(MisconfigurationException, match="reported_checkpoint"), reported_checkpoint():
        pass


@pytest.mark.parametrize("on", ["epoch", [], ["train_end", "fit"]])
def test_unknown_moment_of_a_report_is_refused(on: Any) -> None:
    from fulmen.integrations.ray import RayTrainReportCallback

    with pytest.raises(ValueError, match="'train_epoch_end', 'validation_end'"):
        RayTrainReportCallback(on=on)


@pytest.mark.parametrize("metrics", [[], {}, {"loss": 1}, [None]])
def test_metrics_that_are_no_names_are_refused(metrics: Any) -> None:
    from fulmen.integrations.ray import RayTrainReportCallback

    with pytest.raises(ValueError, match="must be a name, a list of names"):
        RayTrainReportCallback(metrics=metrics)


def test_setting_of_the_process_group_is_ignored_with_a_warning() -> None:
    from fulmen.integrations.ray import RayDDPStrategy

    with pytest.warns(UserWarning, match="TorchConfig\\(backend='...'\\)"):
        RayDDPStrategy(process_group_backend="nccl")


def test_import_without_ray_says_what_to_install() -> None:
    program = "import sys; sys.modules['ray'] = None; import fulmen.integrations.ray"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "pip install 'fulmen[ray]'" in ended.stderr.splitlines()[-1]
