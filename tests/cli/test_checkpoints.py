"""Checkpoints of modules that the command line has made: they say with what, and the next command takes it up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from fulmen.cli import LightningCLI, instantiate_module
from fulmen.demos.boring_classes import BoringDataModule, BoringModel

from .modules import InjectedModel, Kind, NestedModel, SizedData, WideModel

if TYPE_CHECKING:
    from torch.nn import Module as Later

QUICK = [
    "--trainer.max_steps=1",
    "--trainer.limit_val_batches=0",
    "--trainer.limit_test_batches=1",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.enable_checkpointing=false",
]


def trained(cls, *args: str, **kwargs) -> Path:
    """The checkpoint of a module that a command line has trained."""
    cli = LightningCLI(cls, BoringDataModule, save_config_callback=None, args=["fit", *QUICK, *args], **kwargs)
    path = Path("trained.ckpt").absolute()
    cli.trainer.save_checkpoint(path)
    return path


def evaluated(cls, path: Path, *args: str, **kwargs) -> LightningCLI:
    return LightningCLI(
        cls,
        BoringDataModule,
        save_config_callback=None,
        args=["test", *QUICK, f"--ckpt_path={path}", *args],
        **kwargs,
    )


ACTIVATION = ["--model.activation=torch.nn.LeakyReLU", "--model.activation.negative_slope=0.5"]


# -- load_from_checkpoint ---------------------------------------------------------------------------------------------


def test_module_is_loaded_with_the_objects_that_it_was_made_with() -> None:
    path = trained(WideModel, "--model.width=5", "--model.kind=LARGE", *ACTIVATION)

    model = WideModel.load_from_checkpoint(path)

    assert (model.width, model.kind) == (5, Kind.LARGE)
    assert type(model.activation) is nn.LeakyReLU
    assert model.activation.negative_slope == 0.5


def test_chosen_class_is_found_among_the_imported_ones() -> None:
    path = trained(None, "--model=NestedModel", "--model.inner=WideModel", "--model.inner.width=5")

    model = BoringModel.load_from_checkpoint(path)

    assert type(model) is NestedModel
    assert model.inner.width == 5


def test_functions_that_make_optimizers_are_loaded() -> None:
    path = trained(
        InjectedModel, "--model.optimizer=Adam", "--model.optimizer.lr=0.25", auto_configure_optimizers=False
    )

    optimizer = InjectedModel.load_from_checkpoint(path).configure_optimizers()["optimizer"]

    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adam, 0.25)


def test_checkpoint_is_plain_data_with_the_marks_that_lightning_knows() -> None:
    path = trained(None, "--model=WideModel", *ACTIVATION)

    hparams = torch.load(path, weights_only=True)["hyper_parameters"]

    assert hparams == {
        "width": 3,
        "kind": "s",
        "activation": {"class_path": "torch.nn.LeakyReLU", "init_args": {"negative_slope": 0.5, "inplace": False}},
        "_class_path": f"{WideModel.__module__}.WideModel",
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }


def test_datamodule_remembers_its_arguments_too() -> None:
    cli = LightningCLI(
        BoringModel, SizedData, save_config_callback=None, args=["fit", *QUICK, "--data.batch_size=4", "--data.root=x"]
    )
    cli.trainer.save_checkpoint("trained.ckpt")

    again = SizedData.load_from_checkpoint("trained.ckpt")

    assert (again.batch_size, again.root) == (4, Path("x"))


def test_without_the_support_the_arguments_themselves_are_remembered() -> None:
    cli = LightningCLI(WideModel, load_from_checkpoint_support=False, args=["--model.width=5"], run=False)

    assert cli.model.hparams == {"width": 5, "activation": None, "kind": Kind.SMALL}


def test_loggers_get_the_hyperparameters_without_the_marks() -> None:
    args = [option for option in QUICK if "logger" not in option]
    cli = LightningCLI(
        WideModel, BoringDataModule, args=["fit", *args, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    )

    assert "_instantiator" not in Path(cli.trainer.log_dir, "hparams.yaml").read_text()


def test_module_is_made_of_what_was_parsed() -> None:
    config = {"width": 5, "activation": {"class_path": "torch.nn.LeakyReLU", "init_args": {"negative_slope": 0.5}}}

    fixed = instantiate_module(WideModel, {**config, "_instantiator": "any"})
    chosen = instantiate_module(BoringModel, {**config, "_class_path": f"{WideModel.__module__}.WideModel"})

    for model in (fixed, chosen):
        assert (model.width, model.activation.negative_slope) == (5, 0.5)


# -- --ckpt_path ------------------------------------------------------------------------------------------------------


def test_command_makes_the_module_of_the_checkpoint() -> None:
    path = trained(WideModel, "--model.width=5", "--model.kind=LARGE", *ACTIVATION)
    Path("other.yaml").write_text("model: {width: 6}")

    cli = evaluated(WideModel, path, "--config=other.yaml")

    assert (cli.model.width, cli.model.kind, cli.model.activation.negative_slope) == (5, Kind.LARGE, 0.5)
    assert cli.config.test.model.width == 5


def test_chosen_module_of_the_checkpoint() -> None:
    path = trained(None, "--model=WideModel", "--model.width=5", *ACTIVATION)

    cli = evaluated(None, path, "--model=WideModel")

    assert (cli.model.width, cli.model.activation.negative_slope) == (5, 0.5)


def test_option_of_the_command_line_itself_stays() -> None:
    path = trained(WideModel, "--model.kind=LARGE", *ACTIVATION)

    cli = evaluated(WideModel, path, "--model.activation", "torch.nn.ELU", "--model.kind=SMALL")

    assert (type(cli.model.activation), cli.model.kind) == (nn.ELU, Kind.SMALL)


def test_checkpoint_of_a_script_gives_its_arguments() -> None:
    from fulmen import Trainer

    trainer = Trainer(max_steps=1, limit_val_batches=0, logger=False, enable_checkpointing=False)
    trainer.fit(WideModel(5, kind=Kind.LARGE), datamodule=BoringDataModule())
    trainer.save_checkpoint("trained.ckpt")

    cli = evaluated(WideModel, Path("trained.ckpt"))

    assert (cli.model.width, cli.model.kind) == (5, Kind.LARGE)


def test_checkpoint_without_hyperparameters_changes_nothing() -> None:
    path = trained(BoringModel)

    assert type(evaluated(BoringModel, path).model) is BoringModel


def test_checkpoint_of_another_class_is_refused(capsys) -> None:
    path = trained(None, "--model=WideModel")

    with pytest.raises(SystemExit) as ended:
        evaluated(None, path, "--model=InjectedModel")

    assert ended.value.code == 2
    assert f"is of the class '{WideModel.__module__}.WideModel'" in capsys.readouterr().err


@pytest.mark.parametrize("class_path", ["antigravity.Layer", "os.system", "torch.optim.SGD"])
def test_what_a_checkpoint_names_is_not_imported(class_path, capsys) -> None:
    path = trained(WideModel)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["activation"] = {"class_path": class_path}
    torch.save(checkpoint, path)

    with pytest.raises(SystemExit) as ended:
        evaluated(WideModel, path)

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert class_path in error
    assert "`activation`" in error
    assert "antigravity" not in sys.modules


def test_description_for_an_argument_of_any_kind_is_not_followed(capsys) -> None:
    path = trained(AnyModel, "--model.thing=text")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["thing"] = [{"class_path": "torch.nn.ReLU"}]
    torch.save(checkpoint, path)

    with pytest.raises(SystemExit):
        evaluated(AnyModel, path)

    assert "has no annotation that says which classes it takes" in capsys.readouterr().err


def with_hyperparameters(path: Path, **values) -> Path:
    """The checkpoint as somebody has changed it."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] = {**checkpoint.get("hyper_parameters", {}), **values}
    checkpoint.pop("hparams_kinds", None)
    torch.save(checkpoint, path)
    return path


DESCRIPTION = '{"class_path": "antigravity.Layer"}'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net", "antigravity.Layer"),
        ("net", DESCRIPTION),
        ("net", "net.yaml"),
        ("net", {"class_path": "torch.nn.TransformerEncoder", "init_args": {"encoder_layer": "antigravity.Layer"}}),
        ("net", {"encoder_layer": "antigravity.Layer"}),
        ("nets", ["antigravity.Layer"]),
        ("nets", "[antigravity.Layer]"),
        ("function", "antigravity.webbrowser.open"),
        ("function", "os.system"),
        ("maker", "antigravity.Layer"),
        ("kind", "antigravity.Layer"),
        ("sizes", "net.yaml"),
        ("sizes", {"net": "antigravity.Layer"}),
        ("text_or_net", "antigravity.Layer"),
        ("anything", DESCRIPTION),
        ("untyped", '{"class_p\\u0061th": "antigravity.Layer"}'),
        ("mapping", {"a": {"b": DESCRIPTION}}),
        ("later", "antigravity.Layer"),
        ("forwarded", "antigravity.Layer"),
    ],
)
@pytest.mark.parametrize("cls", ["fixed", "chosen"])
def test_text_of_a_checkpoint_by_which_the_parser_would_import_or_read_is_refused(name, value, cls, capsys) -> None:
    Path("net.yaml").write_text("class_path: antigravity.Layer")
    path = with_hyperparameters(trained(ManyModel), **{name: value})

    with pytest.raises(SystemExit) as ended:
        evaluated(*((ManyModel, path) if cls == "fixed" else (None, path, f"--model={__name__}.ManyModel")))

    assert ended.value.code == 2
    assert f"`{name}" in capsys.readouterr().err
    assert "antigravity" not in sys.modules


def test_texts_of_a_checkpoint_that_mean_nothing_else_are_taken() -> None:
    values = {"text": "antigravity.Layer", "text_or_net": "small", "untyped": "data: x.yaml", "mapping": {"a": "b.c"}}
    path = with_hyperparameters(trained(ManyModel), **values)

    model = evaluated(ManyModel, path).model

    assert {name: getattr(model.hparams, name) for name in ("text", "text_or_net", "mapping")} == {
        name: values[name] for name in ("text", "text_or_net", "mapping")
    }


def test_class_itself_is_that_of_the_checkpoint() -> None:
    path = trained(ManyModel, "--model.kind=torch.nn.ReLU")

    assert ManyModel.load_from_checkpoint(path).kind is nn.ReLU
    assert evaluated(ManyModel, path).model.kind is nn.ReLU


@pytest.mark.parametrize("name", ["antigravity.Layer", "os._Environ", "torch.optim.SGD"])
def test_class_itself_that_is_not_imported_or_not_asked_for_is_not_loaded(name) -> None:
    path = with_hyperparameters(trained(ManyModel), kind=name)

    with pytest.raises(TypeError, match="`kind`, which takes a class"):
        ManyModel.load_from_checkpoint(path)

    assert "antigravity" not in sys.modules


def test_description_for_a_number_is_not_followed() -> None:
    path = with_hyperparameters(trained(WideModel), width={"class_path": "signal.Signals", "init_args": {"value": 9}})

    with pytest.raises(TypeError, match="`width`, which has no annotation that says which classes it takes"):
        WideModel.load_from_checkpoint(path)


def test_function_of_a_checkpoint_that_the_command_line_names_too_is_taken() -> None:
    path = with_hyperparameters(trained(ManyModel), function="torch.relu")

    model = evaluated(ManyModel, path, "--model.function=torch.sigmoid").model

    assert model.hparams["function"] == "torch.sigmoid"


def test_function_that_the_configuration_and_the_checkpoint_name_is_taken() -> None:
    path = trained(ManyModel, "--model.function=torch.relu")
    Path("same.yaml").write_text("model: {function: torch.relu}")

    model = evaluated(ManyModel, path, "--config=same.yaml").model

    assert model.hparams["function"] == "torch.relu"


@pytest.mark.parametrize("chosen", [False, True])
def test_arguments_that_the_module_hands_on_are_those_of_the_checkpoint(chosen) -> None:
    path = with_hyperparameters(trained(HandingModel), width=5)

    cli = evaluated(*((None, path, f"--model={__name__}.HandingModel") if chosen else (HandingModel, path)))

    assert cli.model.inner.width == 5


def test_other_arguments_that_the_module_takes_are_those_of_the_checkpoint() -> None:
    path = with_hyperparameters(trained(KeepingModel), extra=5)

    cli = evaluated(None, path, f"--model={__name__}.KeepingModel")

    assert cli.model.others == {"extra": 5}


class HandingModel(BoringModel):
    def __init__(self, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.inner = InnerNet(**kwargs)


class KeepingModel(BoringModel):
    def __init__(self, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.others = kwargs


@dataclass
class Sizes:
    width: int = 1
    net: nn.Module | None = None


class InnerNet(nn.Module):
    def __init__(self, forwarded: nn.Module | None = None, width: int = 1):
        super().__init__()
        self.width = width


class ManyModel(BoringModel):
    def __init__(
        self,
        net: nn.TransformerEncoder | None = None,
        nets: list[nn.Module] | None = None,
        function: Callable | None = None,
        maker: Callable[[int], nn.Module] | None = None,
        kind: type[nn.Module] | None = None,
        sizes: Sizes | None = None,
        text_or_net: str | nn.Module = "",
        anything: Any = None,
        untyped=None,
        mapping: dict | None = None,
        later: Later | None = None,
        text: str = "",
        **kwargs,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.kind = kind
        self.inner = InnerNet(**kwargs)


class AnyModel(BoringModel):
    def __init__(self, thing=None):
        super().__init__()
        self.save_hyperparameters()
