"""Classes that are chosen on the command line: by short names, in lists, optimizers and schedulers, and links."""

from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentError

from fulmen import Trainer, accelerators, callbacks, loggers, plugins, profilers, strategies
from fulmen.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from fulmen.cli import (
    CALLBACK_REGISTRY,
    MODEL_REGISTRY,
    LightningArgumentParser,
    LightningCLI,
    ReduceLROnPlateau,
    instantiate_class,
)
from fulmen.demos.boring_classes import BoringModel
from fulmen.utilities.exceptions import MisconfigurationException

from .modules import ChosenModel, InjectedModel, Kind, NamedModel, NestedModel, Recorder, SizedData, WideModel


def made(cls, *args: str, **kwargs) -> LightningCLI:
    return LightningCLI(cls, args=list(args), run=False, **kwargs)


# -- names ------------------------------------------------------------------------------------------------------------


def names_of(room, kind: type) -> list[str]:
    found = [getattr(room, name) for name in room.__all__]
    return [cls.__name__ for cls in found if isinstance(cls, type) and issubclass(cls, kind) and cls is not kind]


@pytest.mark.parametrize(
    ("argument", "room", "kind"),
    [
        ("callbacks", callbacks, callbacks.Callback),
        ("logger", loggers, loggers.Logger),
        ("profiler", profilers, profilers.Profiler),
        ("strategy", strategies, strategies.Strategy),
        ("accelerator", accelerators, accelerators.Accelerator),
        ("plugins", plugins, plugins.CheckpointIO),
        ("plugins", plugins, plugins.Precision),
    ],
)
def test_every_class_of_a_room_has_a_short_name(argument, room, kind) -> None:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Trainer, "trainer")

    for name in names_of(room, kind):
        path = f"{room.__name__}.{name}"
        try:
            found = parser.parse_args([f"--trainer.{argument}={name}"]).trainer[argument].class_path
        except ArgumentError as error:  # what cannot be made without arguments, or at all, was found nevertheless
            found = path if f"'{path}'" in str(error) else str(error)
        assert found == path


def test_lists_are_appended_to_and_the_last_element_gets_arguments() -> None:
    cli = made(
        WideModel,
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=x",
        "--trainer.callbacks.patience=5",
        "--trainer.callbacks+={class_path: ModelCheckpoint, init_args: {monitor: y}}",
        "--trainer.callbacks+=Recorder",
        "--trainer.callbacks.every=3",
    )

    stopping, recorder, checkpoint = (
        next(callback for callback in cli.trainer.callbacks if isinstance(callback, kind))
        for kind in (EarlyStopping, Recorder, ModelCheckpoint)
    )
    assert (stopping.monitor, stopping.patience, checkpoint.monitor, recorder.every) == ("x", 5, "y", 3)


def test_list_of_a_file_is_appended_to(tmp_path) -> None:
    (tmp_path / "all.yaml").write_text("trainer: {callbacks: [{class_path: LearningRateMonitor}]}")

    (tmp_path / "more.yaml").write_text("trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitor: x}}]}")

    cli = made(WideModel, "--config=all.yaml", "--config=more.yaml", "--trainer.callbacks+=Recorder")

    kinds = {type(callback) for callback in cli.trainer.callbacks}
    assert {LearningRateMonitor, EarlyStopping, Recorder} <= kinds


def test_class_within_an_argument_is_chosen_by_path_and_by_name() -> None:
    cli = made(WideModel, "--model.activation=torch.nn.LeakyReLU", "--model.activation.negative_slope=0.5")
    assert cli.model.activation.negative_slope == 0.5

    cli = made(WideModel, "--model.activation=HuberLoss", "--model.activation.delta=0.5")
    assert cli.model.activation.delta == 0.5


def test_text_that_is_the_name_of_a_class_stays_a_text() -> None:
    CALLBACK_REGISTRY(Recorder, key="rec")
    try:
        for name in ("ReduceLROnPlateau", "EarlyStopping", "rec"):
            assert made(NamedModel, f"--model.name={name}").model.name == name
    finally:
        CALLBACK_REGISTRY.clear()


def test_model_within_a_model_gets_its_own_arguments_and_hyperparameters() -> None:
    cli = made(None, "--model=NestedModel", "--model.depth=2", "--model.inner=WideModel", "--model.inner.width=5")

    assert type(cli.model) is NestedModel
    assert cli.model.inner.width == 5
    assert cli.model.inner.hparams == {"width": 5, "activation": None, "kind": Kind.SMALL}
    assert cli.model.hparams.depth == 2
    assert cli.model.hparams.inner["init_args"]["width"] == 5


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_change_of_the_class_drops_the_arguments_of_the_other(tmp_path) -> None:
    (tmp_path / "all.yaml").write_text("optimizer: {class_path: Adam, init_args: {lr: 0.5, amsgrad: true}}")

    cli = made(BoringModel, "--config=all.yaml", "--optimizer=SGD", "--optimizer.momentum=0.9")

    assert cli.config.optimizer.class_path == "torch.optim.SGD"
    assert "amsgrad" not in cli.config.optimizer.init_args
    assert (cli.config.optimizer.init_args.lr, cli.config.optimizer.init_args.momentum) == (0.5, 0.9)


def test_registered_name_is_a_name() -> None:
    CALLBACK_REGISTRY(Recorder, key="rec")
    MODEL_REGISTRY.register_classes(__import__(WideModel.__module__, fromlist=["x"]), BoringModel)
    try:
        cli = made(None, "--model=WideModel", "--trainer.callbacks+=rec", "--trainer.callbacks.every=4")
        described = {"class_path": "rec", "init_args": {"every": 5}}
        by_dict = LightningCLI(WideModel, args={"trainer": {"callbacks": [described]}}, run=False)

        assert by_dict.trainer.callbacks[0].every == 5
        assert "InjectedModel" in MODEL_REGISTRY.names
        assert WideModel in MODEL_REGISTRY.classes
        assert [callback.every for callback in cli.trainer.callbacks if isinstance(callback, Recorder)] == [4]
        with pytest.raises(ValueError, match="'rec' is the name of"):
            CALLBACK_REGISTRY(EarlyStopping, key="rec")
        with pytest.raises(TypeError, match="is not a class"):
            CALLBACK_REGISTRY(3)
    finally:
        CALLBACK_REGISTRY.clear()
        MODEL_REGISTRY.clear()


# -- optimizers and schedulers ----------------------------------------------------------------------------------------


def optimizers_of(cli: LightningCLI):
    return cli.model.configure_optimizers()


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_optimizer_of_the_command_line_is_used() -> None:
    optimizer = optimizers_of(made(BoringModel, "--optimizer=Adam", "--optimizer.lr=0.25"))

    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 0.25


def test_optimizer_in_place_of_the_modules_own_warns() -> None:
    with pytest.warns(UserWarning, match=r"`BoringModel\.configure_optimizers` is not used.*torch\.optim\.Adam"):
        made(BoringModel, "--optimizer=Adam")


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_scheduler_of_the_command_line_is_used() -> None:
    (optimizer,), (scheduler,) = optimizers_of(
        made(BoringModel, "--optimizer=SGD", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=3")
    )

    assert type(scheduler) is torch.optim.lr_scheduler.StepLR
    assert scheduler.step_size == 3
    assert scheduler.optimizer is optimizer


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_plateau_scheduler_knows_what_it_watches() -> None:
    choice = optimizers_of(
        made(BoringModel, "--optimizer=SGD", "--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=x")
    )

    assert type(choice["lr_scheduler"]["scheduler"]) is ReduceLROnPlateau
    assert choice["lr_scheduler"]["monitor"] == "x"


def test_without_a_choice_the_module_configures_its_optimizers() -> None:
    assert made(BoringModel).model.configure_optimizers.__func__ is BoringModel.configure_optimizers


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_way_of_using_the_choice_is_overridden() -> None:
    class Own(LightningCLI):
        @staticmethod
        def configure_optimizers(lightning_module, optimizer, lr_scheduler=None):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}

    args = ["--optimizer=SGD", "--lr_scheduler=ConstantLR"]
    choice = optimizers_of(Own(BoringModel, args=args, run=False))

    assert choice["lr_scheduler"]["interval"] == "step"


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_optimizer_gets_the_parameters_of_the_moment() -> None:
    """Strategies that shard a module replace its parameters before they ask for the optimizer."""
    cli = made(BoringModel, "--optimizer=SGD")
    cli.model.layer = torch.nn.Linear(32, 2)

    assert optimizers_of(cli).param_groups[0]["params"][0] is cli.model.layer.weight


class OneClass(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_optimizer_args(torch.optim.Adam)
        parser.add_lr_scheduler_args(torch.optim.lr_scheduler.ExponentialLR)
        parser.set_defaults({"lr_scheduler.gamma": 0.5})


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. is not used")
def test_optimizer_and_scheduler_of_one_class_need_no_choice() -> None:
    (optimizer,), (scheduler,) = optimizers_of(OneClass(BoringModel, args=["--optimizer.lr=0.5"], run=False))

    assert type(optimizer) is torch.optim.Adam
    assert (optimizer.defaults["lr"], scheduler.gamma) == (0.5, 0.5)


class Several(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_optimizer_args((torch.optim.SGD, torch.optim.Adam), "first", link_to="model.first")
        parser.add_optimizer_args(torch.optim.Adam, "second", link_to="model.second")
        parser.add_lr_scheduler_args(nested_key="schedule", link_to="model.schedule")


def test_several_optimizers_go_to_the_module_as_descriptions() -> None:
    args = ["--first=SGD", "--first.lr=0.5", "--second.lr=0.25", "--schedule=ConstantLR"]

    model = Several(ChosenModel, args=args, run=False).model

    first = instantiate_class(model.parameters(), model.first)
    second = instantiate_class((model.parameters(),), model.second)
    assert (type(first), first.defaults["lr"]) == (torch.optim.SGD, 0.5)
    assert (type(second), second.defaults["lr"]) == (torch.optim.Adam, 0.25)
    assert type(instantiate_class(first, model.schedule)) is torch.optim.lr_scheduler.ConstantLR


class TwoAutomatic(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_optimizer_args(torch.optim.SGD, "one")
        parser.add_optimizer_args(torch.optim.SGD, "two")


def test_two_automatic_optimizers_are_an_error() -> None:
    with pytest.raises(MisconfigurationException, match=r"`one` and `two`.*link_to="):
        TwoAutomatic(BoringModel, args=[], run=False)


def test_optimizer_of_another_kind_is_refused() -> None:
    parser = LightningArgumentParser()

    with pytest.raises(TypeError, match=r"`--optimizer` got the class Linear, which is not a subclass of Optimizer"):
        parser.add_optimizer_args(torch.nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`--lr_scheduler` got .* not a subclass of LRScheduler"):
        parser.add_lr_scheduler_args((torch.optim.SGD,))  # type: ignore[arg-type]


def test_functions_that_make_optimizers_are_injected() -> None:
    args = [
        "--model.optimizer=Adam",
        "--model.optimizer.lr=0.25",
        "--model.scheduler=ReduceLROnPlateau",
        "--model.scheduler.monitor=x",
    ]
    model = made(InjectedModel, *args, auto_configure_optimizers=False).model

    choice = model.configure_optimizers()
    assert (type(choice["optimizer"]), choice["optimizer"].defaults["lr"]) == (torch.optim.Adam, 0.25)
    assert (type(choice["lr_scheduler"]), choice["lr_scheduler"].monitor) == (ReduceLROnPlateau, "x")
    assert model.hparams.optimizer["init_args"]["lr"] == 0.25


def test_without_automatic_optimizers_there_is_no_option_for_them(capsys) -> None:
    with pytest.raises(SystemExit):
        made(InjectedModel, "--optimizer=Adam", auto_configure_optimizers=False)

    assert "--optimizer" in capsys.readouterr().err


# -- links ------------------------------------------------------------------------------------------------------------


class Linked(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.batch_size", "model.width", compute_fn=lambda size: 2 * size)


class LinkedWhenMade(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.num_classes", "model.width", apply_on="instantiate")


def test_argument_follows_another() -> None:
    cli = Linked(WideModel, SizedData, args=["--data.batch_size=6"], run=False)

    assert cli.model.width == 12
    assert cli.model.hparams.width == 12
    assert "width: 12" not in cli.parser.dump(cli.config)  # it follows from what is there


def test_argument_follows_the_attribute_of_an_object() -> None:
    cli = LinkedWhenMade(WideModel, SizedData, args=[], run=False)

    assert cli.model.width == 7
    assert cli.model.hparams.width == 7


def test_target_of_a_link_is_no_option(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        Linked(WideModel, SizedData, args=["--model.width=3"], run=False)

    assert ended.value.code == 2
    assert "model.width" in capsys.readouterr().err


def test_links_in_a_circle_are_refused() -> None:
    class Circle(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("data.num_classes", "model.width", apply_on="instantiate")
            parser.link_arguments("model.width", "data.batch_size", apply_on="instantiate")

    with pytest.raises(ValueError, match="cycle"):
        Circle(WideModel, SizedData, args=[], run=False)
