"""LightningCLI: what it makes, what it runs, and what may be changed in it."""

from __future__ import annotations

import pytest
import torch

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.callbacks import EarlyStopping
from fulmen.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from fulmen.demos.boring_classes import BoringDataModule, BoringModel
from fulmen.utilities.exceptions import MisconfigurationException

from .modules import Recorder, SizedData, WideModel

QUICK = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


# -- what is made -----------------------------------------------------------------------------------------------------


def test_fixed_classes_get_their_arguments() -> None:
    cli = LightningCLI(
        WideModel,
        SizedData,
        args=["--model.width=5", "--data.batch_size=4", "--trainer.max_epochs=2", "--seed_everything=7"],
        run=False,
    )

    assert type(cli.model) is WideModel
    assert cli.model.width == 5
    assert cli.datamodule.batch_size == 4
    assert cli.trainer.max_epochs == 2
    assert cli.subcommand is None
    assert cli.config.model.width == 5
    assert cli.config_init.model is cli.model


def test_classes_are_chosen_on_the_command_line() -> None:
    cli = LightningCLI(
        args=[f"--model={WideModel.__module__}.WideModel", "--model.width=5", "--data=SizedData"], run=False
    )

    assert type(cli.model) is WideModel
    assert cli.model.width == 5
    assert type(cli.datamodule) is SizedData


def test_without_a_datamodule_there_is_none() -> None:
    cli = LightningCLI(args=["--model=WideModel"], run=False)

    assert cli.datamodule is None


def test_class_among_the_subclasses_of_one_is_chosen() -> None:
    cli = LightningCLI(
        BoringModel,
        BoringDataModule,
        subclass_mode_model=True,
        args=["--model=WideModel", "--model.width=4"],
        run=False,
    )

    assert cli.model.width == 4


def test_class_that_is_no_subclass_of_the_one_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        LightningCLI(WideModel, subclass_mode_model=True, args=["--model=BoringModel"], run=False)

    assert ended.value.code == 2
    assert "BoringModel" in capsys.readouterr().err


def wide(width: int = 6) -> WideModel:
    """Make a wide model."""
    return WideModel(width)


def quiet_trainer(max_epochs: int = 3) -> Trainer:
    return Trainer(max_epochs=max_epochs, logger=False, enable_progress_bar=False)


def test_functions_make_the_objects() -> None:
    with pytest.warns(UserWarning, match="quiet_trainer has no argument `callbacks`"):
        cli = LightningCLI(wide, trainer_class=quiet_trainer, args=["--trainer.max_epochs=4"], run=False)

    assert cli.model.width == 6
    assert cli.trainer.max_epochs == 4


def test_arguments_of_a_dict_and_of_a_namespace_are_those_of_a_list() -> None:
    by_list = LightningCLI(WideModel, args=["--model.width=5", "--trainer.max_steps=3"], run=False)
    by_dict = LightningCLI(WideModel, args={"model": {"width": 5}, "trainer": {"max_steps": 3}}, run=False)
    by_namespace = LightningCLI(WideModel, args=by_list.config, run=False)

    assert by_dict.config == by_list.config == by_namespace.config


def test_arguments_of_the_program_beside_given_ones_warn(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["program.py", "--model.width=9"])

    with pytest.warns(UserWarning, match=r"arguments of the program are ignored: --model\.width=9"):
        assert LightningCLI(WideModel, args=["--model.width=5"], run=False).model.width == 5
    assert LightningCLI(WideModel, run=False).model.width == 9


def test_defaults_of_the_program_are_below_what_is_given() -> None:
    recorder = Recorder()
    defaults = {"max_epochs": 3, "limit_train_batches": 2, "callbacks": recorder}

    cli = LightningCLI(
        WideModel,
        trainer_defaults=defaults,
        args=["--trainer.max_epochs=4", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x"],
        run=False,
    )

    assert (cli.trainer.max_epochs, cli.trainer.limit_train_batches) == (4, 2)
    assert recorder in cli.trainer.callbacks
    assert any(isinstance(callback, EarlyStopping) for callback in cli.trainer.callbacks)


# -- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "written", "seed"),
    [(True, [], 0), (5, [], 5), (5, ["--seed_everything=6"], 6), (True, ["--seed_everything=1"], 1)],
)
def test_everything_is_seeded_before_the_objects_are_made(default, written, seed) -> None:
    cli = LightningCLI(BoringModel, seed_everything_default=default, args=written, run=False)

    seed_everything(seed, verbose=False)
    assert torch.equal(cli.model.layer.weight, BoringModel().layer.weight)
    assert cli.config.seed_everything == seed


def test_seed_of_the_environment_is_taken(monkeypatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")

    assert LightningCLI(BoringModel, args=[], run=False).config.seed_everything == 11


def test_nothing_is_seeded_on_request() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    class DrawsFirst(LightningCLI):
        def before_instantiate_classes(self) -> None:
            self.drawn = torch.rand(1)

    assert DrawsFirst(BoringModel, args=["--seed_everything=false"], run=False).drawn == expected


# -- subcommands ------------------------------------------------------------------------------------------------------


class Told(LightningCLI):
    """Writes down what happens."""

    def __init__(self, *args, **kwargs) -> None:
        self.events: list[str] = []
        super().__init__(*args, **kwargs)

    def before_instantiate_classes(self) -> None:
        self.events.append(f"before objects {hasattr(self, 'model')}")

    def after_instantiate_classes(self) -> None:
        self.events.append(f"after objects {type(self.trainer).__name__}")

    def before_fit(self) -> None:
        self.events.append(f"before fit {self.trainer.state.status.name}")

    def after_fit(self) -> None:
        self.events.append(f"after fit {self.trainer.state.status.name}")

    def before_test(self) -> None:
        self.events.append("before test")


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_subcommand_calls_the_method_of_the_trainer(subcommand) -> None:
    cli = LightningCLI(BoringModel, BoringDataModule, args=[subcommand, *QUICK])

    assert cli.subcommand == subcommand
    assert cli.trainer.state.fn == subcommand
    assert cli.trainer.global_step == (1 if subcommand == "fit" else 0)
    assert cli.trainer.datamodule is cli.datamodule


def test_hooks_are_called_around_what_they_are_named_after() -> None:
    cli = Told(BoringModel, BoringDataModule, args=["fit", *QUICK])

    assert cli.events == [
        "before objects False",
        "after objects Trainer",
        "before fit INITIALIZING",
        "after fit FINISHED",
    ]


def test_arguments_of_the_method_are_options() -> None:
    cli = LightningCLI(BoringModel, BoringDataModule, args=["predict", *QUICK, "--return_predictions=false"])

    assert cli.config.predict.return_predictions is False
    assert cli.trainer.keeps_predictions is False


def test_method_of_the_cli_replaces_that_of_the_trainer() -> None:
    class Fits(LightningCLI):
        def fit(self, model: LightningModule, **arguments) -> None:
            self.given = (model, sorted(arguments))

    cli = Fits(BoringModel, BoringDataModule, args=["fit", *QUICK])

    assert cli.given == (cli.model, ["ckpt_path", "datamodule", "weights_only"])
    assert cli.trainer.global_step == 0


class CountingTrainer(Trainer):
    def count(self, model: LightningModule, upto: int = 3, datamodule=None) -> None:
        """Count.

        Args:
            upto: the last number.
        """
        self.counted = list(range(1, upto + 1))


class CountingCLI(LightningCLI):
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "count": {"model", "datamodule"}}


def test_subcommand_of_ones_own_calls_ones_own_method() -> None:
    cli = CountingCLI(BoringModel, trainer_class=CountingTrainer, args=["count", *QUICK, "--upto=2"])

    assert cli.trainer.counted == [1, 2]


def test_no_subcommand_ends_with_two(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        LightningCLI(BoringModel, args=[])

    assert ended.value.code == 2
    assert "subcommand" in capsys.readouterr().err


def test_help_of_the_program_lists_the_subcommands_and_that_of_one_its_options(capsys) -> None:
    with pytest.raises(SystemExit):
        LightningCLI(WideModel, args=["--help"])
    assert "Run the validation set once" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        LightningCLI(WideModel, args=["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--model.width" in text
    assert "how wide it is." in text  # of the docstring
    assert "stop after so many epochs" in text
    assert "--ckpt_path" in text


# -- extensions -------------------------------------------------------------------------------------------------------


class Extended(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", default="run")
        parser.add_lightning_class_args(Recorder, "recorder")
        parser.set_defaults({"recorder.every": 4, "model.width": 8})


def test_arguments_callbacks_and_defaults_of_ones_own() -> None:
    cli = Extended(WideModel, args=["--name=mine", "--recorder.every=5"], run=False)

    assert cli.config.name == "mine"
    assert cli.model.width == 8
    assert [callback.every for callback in cli.trainer.callbacks if isinstance(callback, Recorder)] == [5]


def test_class_of_another_kind_cannot_be_added() -> None:
    parser = LightningArgumentParser()

    with pytest.raises(MisconfigurationException, match="got the class dict for `table`"):
        parser.add_lightning_class_args(dict, "table")


def test_trainer_is_made_anew_with_other_arguments() -> None:
    cli = LightningCLI(BoringModel, args=["--trainer.max_epochs=2", "--trainer.max_steps=5"], run=False)

    again = cli.instantiate_trainer(max_epochs=9)

    assert (again.max_epochs, again.max_steps) == (9, 5)


def test_parser_class_and_its_arguments_are_ones_own(capsys) -> None:
    class Own(LightningArgumentParser):
        pass

    kwargs = {"description": "Mine.", "fit": {"description": "Mine to fit."}}
    with pytest.raises(SystemExit):
        LightningCLI(BoringModel, parser_class=Own, parser_kwargs=kwargs, args=["--help"])
    assert "Mine." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        LightningCLI(BoringModel, parser_class=Own, parser_kwargs=kwargs, args=["fit", "--help"])
    assert "Mine to fit." in capsys.readouterr().out


def test_callback_that_saves_nothing_must_say_what_it_does_instead() -> None:
    with pytest.raises(ValueError, match="saves nothing"):
        LightningCLI(BoringModel, save_config_kwargs={"save_to_log_dir": False}, args=[], run=False)

    class Elsewhere(SaveConfigCallback):
        pass

    Elsewhere.save_config = lambda self, trainer, pl_module, stage: None  # type: ignore[method-assign]
    LightningCLI(
        BoringModel,
        save_config_callback=Elsewhere,
        save_config_kwargs={"save_to_log_dir": False},
        args=[],
        run=False,
    )


class Breaks(BoringDataModule):
    def __init__(self, size: int = 1):
        raise KeyError("no such data")


def test_error_of_a_constructor_is_told_as_it_is() -> None:
    with pytest.raises(KeyError, match="no such data"):
        LightningCLI(BoringModel, args=["--data=Breaks"], run=False)
    with pytest.raises(KeyError, match="no such data"):
        LightningCLI(BoringModel, Breaks, args=[], run=False)
