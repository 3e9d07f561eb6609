"""Configurations: files, their order, the environment, what is printed and what is saved."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import fsspec
import pytest
import yaml
from jsonargparse import ArgumentError

from fulmen import Trainer
from fulmen.callbacks import EarlyStopping, LearningRateMonitor
from fulmen.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from fulmen.demos.boring_classes import BoringDataModule, BoringModel

from .modules import Kind, SizedData, WideModel

QUICK = [
    "--trainer.max_steps=1",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.enable_checkpointing=false",
]
CSV = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]


def write(name: str, content: str) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(content)
    return name


# -- the order --------------------------------------------------------------------------------------------------------


def test_each_source_of_a_value_wins_over_those_before_it(monkeypatch) -> None:
    """default < PL_TRAINER_... < default_config_files < PL_... < --config and options, from left to right."""

    def steps(*args: str) -> int:
        kwargs = {"default_env": True, "default_config_files": ["defaults.yaml"]}
        cli = LightningCLI(
            WideModel, trainer_defaults={"max_steps": 1}, parser_kwargs=kwargs, args=list(args), run=False
        )
        return cli.trainer.max_steps

    write("a.yaml", "trainer: {max_steps: 5}")
    write("b.yaml", "trainer: {max_steps: 6}")
    assert steps() == 1
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "2")
    assert steps() == 2
    write("defaults.yaml", "trainer: {max_steps: 3}")
    assert steps() == 3
    monkeypatch.setenv("PL_TRAINER__MAX_STEPS", "4")
    assert steps() == 4
    assert steps("--config=a.yaml") == 5
    assert steps("--config=a.yaml", "--config=b.yaml") == 6
    assert steps("--config=a.yaml", "--trainer.max_steps=7") == 7
    assert steps("--trainer.max_steps=7", "--config=a.yaml") == 5


def test_several_files_are_merged_key_by_key() -> None:
    write("model.yaml", "model: {width: 4, kind: LARGE}\ntrainer: {max_steps: 3}")
    write("more.yaml", "model: {width: 5}\ndata: {batch_size: 2}")

    cli = LightningCLI(WideModel, SizedData, args=["-c", "model.yaml", "-c", "more.yaml"], run=False)

    assert (cli.model.width, cli.model.kind, cli.datamodule.batch_size) == (5, Kind.LARGE, 2)
    assert cli.trainer.max_steps == 3


def test_file_for_all_subcommands_stands_before_the_subcommand() -> None:
    write("all.yaml", "fit:\n  model: {width: 4}\ntest:\n  model: {width: 5}\n  verbose: false")

    cli = LightningCLI(WideModel, BoringDataModule, args=["-c", "all.yaml", "test", "--trainer.fast_dev_run=1"])

    assert cli.model.width == 5
    assert cli.config.test.verbose is False


def test_parts_may_be_files_of_their_own() -> None:
    write("trainer.yaml", "max_steps: 3")
    write("model.yaml", "width: 4")
    write("all.yaml", "model: model.yaml\ntrainer: trainer.yaml")

    by_options = LightningCLI(WideModel, args=["--trainer=trainer.yaml", "--model=model.yaml"], run=False)
    by_file = LightningCLI(WideModel, args=["--config=all.yaml"], run=False)

    for cli in (by_options, by_file):
        assert (cli.model.width, cli.trainer.max_steps) == (4, 3)


def test_file_of_json_is_read() -> None:
    write("all.json", '{"model": {"width": 4}}')

    assert LightningCLI(WideModel, args=["--config=all.json"], run=False).model.width == 4


def test_remote_files_are_read() -> None:
    with fsspec.open("memory://configs/model.yaml", "w") as file:
        file.write("width: 4")
    with fsspec.open("memory://configs/all.yaml", "w") as file:
        file.write("trainer: {max_steps: 3}\nmodel: {width: 2}")

    cli = LightningCLI(
        WideModel, args=["-c", "memory://configs/all.yaml", "--model=memory://configs/model.yaml"], run=False
    )

    assert (cli.model.width, cli.trainer.max_steps) == (4, 3)


# -- the environment --------------------------------------------------------------------------------------------------


def test_environment_is_read_on_request_alone(monkeypatch) -> None:
    monkeypatch.setenv("PL_MODEL__WIDTH", "9")

    assert LightningCLI(WideModel, args=[], run=False).model.width == 3
    assert LightningCLI(WideModel, args=[], run=False, parser_kwargs={"default_env": True}).model.width == 9
    kwargs = {"default_env": True, "env_prefix": "MY"}
    monkeypatch.setenv("MY_MODEL__WIDTH", "8")
    assert LightningCLI(WideModel, args=[], run=False, parser_kwargs=kwargs).model.width == 8


def test_environment_names_the_subcommand_and_its_arguments(monkeypatch) -> None:
    monkeypatch.setenv("PL_SUBCOMMAND", "validate")
    monkeypatch.setenv("PL_VALIDATE__MODEL__WIDTH", "9")
    monkeypatch.setenv("PL_VALIDATE__TRAINER__FAST_DEV_RUN", "true")

    cli = LightningCLI(WideModel, BoringDataModule, args=[], parser_kwargs={"default_env": True})

    assert cli.subcommand == "validate"
    assert cli.model.width == 9


def test_environment_of_one_subcommand_alone(monkeypatch) -> None:
    monkeypatch.setenv("PL_FIT__MODEL__WIDTH", "9")
    kwargs = {"fit": {"default_env": True}}

    cli = LightningCLI(WideModel, BoringDataModule, args=["fit", "--trainer.fast_dev_run=1"], parser_kwargs=kwargs)

    assert cli.model.width == 9


def test_variables_of_the_trainer_are_in_the_configuration(monkeypatch) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    monkeypatch.setenv("PL_TRAINER_ENABLE_PROGRESS_BAR", "false")

    cli = LightningCLI(WideModel, args=[], run=False)

    assert (cli.trainer.max_epochs, cli.config.trainer.enable_progress_bar) == (3, False)
    assert cli.trainer.progress_bar_callback is None
    assert LightningCLI(WideModel, args=["--trainer.max_epochs=4"], run=False).trainer.max_epochs == 4


# -- printing ---------------------------------------------------------------------------------------------------------


def printed(capsys, *args: str, **kwargs) -> str:
    with pytest.raises(SystemExit) as ended:
        LightningCLI(WideModel, SizedData, args=[*args], **kwargs)
    assert not ended.value.code
    return capsys.readouterr().out


def test_printed_configuration_read_again_prints_the_same(capsys) -> None:
    args = [
        "fit",
        "--model.width=4",
        "--model.kind=LARGE",
        "--model.activation=torch.nn.LeakyReLU",
        "--model.activation.negative_slope=0.5",
        "--trainer.callbacks+=LearningRateMonitor",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=x",
        "--trainer.precision=16",
        "--trainer.max_time={hours: 1}",
        "--trainer.limit_train_batches=1.0",
        "--trainer.strategy=SingleDeviceStrategy",
        "--optimizer=Adam",
        "--lr_scheduler=ReduceLROnPlateau",
        "--lr_scheduler.monitor=x",
    ]
    first = printed(capsys, *args, "--print_config")
    write("all.yaml", first)

    assert printed(capsys, "fit", "--config=all.yaml", "--print_config") == first
    content = yaml.safe_load(first)
    assert content["model"] == {
        "width": 4,
        "activation": {"class_path": "torch.nn.LeakyReLU", "init_args": {"negative_slope": 0.5, "inplace": False}},
        "kind": "LARGE",
    }
    assert [callback["class_path"] for callback in content["trainer"]["callbacks"]] == [
        "fulmen.callbacks.LearningRateMonitor",
        "fulmen.callbacks.EarlyStopping",
    ]
    assert content["lr_scheduler"]["class_path"] == "fulmen.cli.ReduceLROnPlateau"


def test_run_of_the_printed_configuration_is_that_of_the_options(capsys) -> None:
    args = ["fit", *QUICK, *CSV, "--model.width=4", "--optimizer=Adam", "--optimizer.lr=0.3"]
    write("all.yaml", printed(capsys, *args, "--print_config"))

    with pytest.warns(UserWarning, match="configure_optimizers"):
        by_options = LightningCLI(WideModel, SizedData, args=args)
    with pytest.warns(UserWarning, match="configure_optimizers"):
        by_file = LightningCLI(WideModel, SizedData, args=["fit", "--config=all.yaml"])

    one, other = by_options.model.state_dict(), by_file.model.state_dict()
    assert all(one[name].equal(other[name]) for name in one)
    assert {**by_file.config.fit.as_dict(), "config": None} == {**by_options.config.fit.as_dict(), "config": None}


@pytest.mark.parametrize("room", ["callbacks", "plugins"])
def test_every_class_with_its_defaults_can_be_printed_and_read(room) -> None:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    module = import_module(f"fulmen.{room}")

    for name in module.__all__:
        try:
            config = parser.parse_args([f"--trainer.{room}=[{name}]"])
        except ArgumentError:  # abstract, or with arguments that it needs
            continue
        assert parser.parse_string(parser.dump(config)).trainer[room] == config.trainer[room], name


# -- of Lightning -----------------------------------------------------------------------------------------------------


def test_configuration_that_lightning_has_printed_runs_unchanged() -> None:
    """It is what ``--print_config`` of Lightning 2.6.6 says of such a run."""
    path = Path(__file__).parent / "of_lightning.yaml"

    with pytest.warns(UserWarning, match="configure_optimizers"):
        cli = LightningCLI(
            BoringModel,
            BoringDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=["fit", f"--config={path}", "--trainer.profiler=null"],
        )

    assert type(cli.model) is BoringModel
    assert cli.trainer.global_step == 1
    assert cli.trainer.optimizers[0].defaults["lr"] == 0.25
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"EarlyStopping", "ModelCheckpoint", "LearningRateMonitor", "RichModelSummary"} <= set(names)
    saved = Path(cli.trainer.log_dir, "config.yaml").read_text()
    assert "class_path: fulmen.callbacks.EarlyStopping" in saved
    assert "lightning.pytorch" not in saved


def test_class_of_lightning_that_there_is_not_is_a_mistake(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        LightningCLI(WideModel, args=["--trainer.callbacks=lightning.pytorch.callbacks.NoSuchCallback"], run=False)

    assert ended.value.code == 2
    assert "NoSuchCallback" in capsys.readouterr().err


# -- saving -----------------------------------------------------------------------------------------------------------


def test_configuration_is_saved_beside_the_logs_and_runs_again() -> None:
    cli = LightningCLI(WideModel, SizedData, args=["fit", *QUICK, *CSV, "--model.width=4"])

    path = Path(cli.trainer.log_dir, "config.yaml")
    content = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# fulmen==")
    assert content["model"]["width"] == 4
    assert content["seed_everything"] == 0
    assert content["ckpt_path"] is None
    assert content["trainer"]["max_steps"] == 1
    again = LightningCLI(WideModel, SizedData, args=["fit", f"--config={path}"])
    assert again.model.layer.weight.equal(cli.model.layer.weight)
    assert Path(again.trainer.log_dir) == Path("logs/lightning_logs/version_1")


def fit_in_one_folder(*args: str, **kwargs) -> LightningCLI:
    return LightningCLI(
        WideModel, SizedData, args=["fit", *QUICK, *CSV, "--trainer.logger.version=same", *args], **kwargs
    )


@pytest.mark.filterwarnings("ignore:.*already:UserWarning")
def test_configuration_of_another_run_is_not_overwritten() -> None:
    fit_in_one_folder("--model.width=4")
    path = Path("logs/lightning_logs/same/config.yaml")
    before = path.read_bytes()

    with pytest.raises(RuntimeError, match=r"same/config\.yaml is there already"):
        fit_in_one_folder("--model.width=5")
    assert path.read_bytes() == before
    fit_in_one_folder("--model.width=4")  # which is the same
    fit_in_one_folder("--model.width=5", save_config_kwargs={"overwrite": True})
    assert yaml.safe_load(path.read_text())["model"]["width"] == 5


def test_run_that_goes_on_keeps_the_configuration_of_each_start(monkeypatch) -> None:
    args = ["fit", *QUICK[1:4], *CSV, "--ckpt_path=auto", "--trainer.max_steps"]
    LightningCLI(WideModel, SizedData, args=[*args, "2"])

    cli = LightningCLI(WideModel, SizedData, args=[*args, "3"])

    assert cli.trainer.global_step == 3
    folder = Path("logs/lightning_logs/version_0")
    starts = [yaml.safe_load((folder / name).read_text()) for name in ("config.yaml", "config-1.yaml")]
    assert [start["trainer"]["max_steps"] for start in starts] == [2, 3]
    LightningCLI(WideModel, SizedData, args=[*args, "3"])
    assert not (folder / "config-2.yaml").exists()


def test_nothing_is_saved_by_a_trial_run_or_on_request() -> None:
    LightningCLI(WideModel, SizedData, args=["fit", "--trainer.fast_dev_run=1"])
    LightningCLI(WideModel, SizedData, args=["fit", *QUICK, *CSV], save_config_callback=None)

    assert not list(Path().rglob("config.yaml"))


def test_configuration_is_saved_under_another_name_and_in_another_place_too() -> None:
    class Also(SaveConfigCallback):
        def save_config(self, trainer, pl_module, stage) -> None:
            Path("also.yaml").write_text(f"# {stage}\n" + self.parser.dump(self.config, skip_unset=False))

    cli = LightningCLI(
        WideModel,
        SizedData,
        save_config_callback=Also,
        save_config_kwargs={"config_filename": "run.yaml"},
        args=["fit", *QUICK, *CSV],
    )

    saved = Path(cli.trainer.log_dir, "run.yaml").read_text()
    assert Path("also.yaml").read_text() == f"# fit\n{saved}"


def test_parts_that_were_files_are_saved_as_files() -> None:
    write("model.yaml", "width: 4")

    cli = LightningCLI(
        WideModel,
        SizedData,
        save_config_kwargs={"multifile": True},
        args=["fit", *QUICK, *CSV, "--model=model.yaml"],
    )

    folder = Path(cli.trainer.log_dir)
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"] == "model.yaml"
    assert yaml.safe_load((folder / "model.yaml").read_text())["width"] == 4


def test_configuration_is_saved_to_a_remote_folder() -> None:
    LightningCLI(
        WideModel,
        SizedData,
        args=["fit", *QUICK, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=memory://of_cli"],
    )

    with fsspec.open("memory://of_cli/lightning_logs/version_0/config.yaml") as file:
        assert yaml.safe_load(file)["model"]["width"] == 3


# -- the parser alone -------------------------------------------------------------------------------------------------


def test_parser_serves_programs_without_the_cli() -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(BoringModel, "net", subclass_mode=True)

    config = parser.parse_args(["--net=WideModel", "--net.width=4", "--trainer.callbacks=[LearningRateMonitor]"])
    made = parser.instantiate(config)

    assert made.net.width == 4
    assert type(made.trainer.callbacks[0]) is LearningRateMonitor


def test_string_and_object_are_parsed_alike() -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    text = "trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: x}}}"

    by_text = parser.parse_string(text)

    assert parser.parse_object(yaml.safe_load(text)) == by_text
    assert type(parser.instantiate(by_text).trainer.callbacks) is EarlyStopping
