"""`load_from_checkpoint`: arguments, weights, and what a file may not do. Files of hyperparameters."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import os
import pathlib
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from fulmen.core.hparams import HyperparameterOwner, given_hyperparameters, hparams_for_checkpoint
from fulmen.core.module import LightningModule
from fulmen.core.saving import (
    load_hparams_from_tags_csv,
    load_hparams_from_yaml,
    save_hparams_to_tags_csv,
    save_hparams_to_yaml,
)
from fulmen.utilities.parsing import AttributeDict
from fulmen.utilities.warnings import UnsafeLoadWarning


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Optim:
    lr: float = 0.1
    color: Color = Color.RED


class Net(LightningModule):
    def __init__(self, width: int, color: Color = Color.RED, root: pathlib.Path | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)


class WithLoss(LightningModule):
    def __init__(self, loss: nn.Module, width: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.loss = loss


class OfConf(LightningModule):
    def __init__(self, conf, extra=None):
        super().__init__()
        self.save_hyperparameters(conf)
        self.conf = conf
        self.extra = extra


def saved(module: HyperparameterOwner, path: pathlib.Path, **entries: Any) -> pathlib.Path:
    """A checkpoint as the trainer writes it, as far as loading looks at it."""
    state_dict = module.state_dict()  # type: ignore[attr-defined]
    checkpoint = {"state_dict": state_dict, "epoch": 1, **hparams_for_checkpoint(module)} | entries
    torch.save({key: value for key, value in checkpoint.items() if value is not ...}, path)
    return path


# -- the plain case ---------------------------------------------------------------------------------------------------


def test_load_from_checkpoint_gives_back_arguments_and_weights(tmp_path) -> None:
    net = Net(3, Color.GREEN, pathlib.Path("here"))

    again = Net.load_from_checkpoint(saved(net, tmp_path / "x.ckpt"))

    assert again.hparams == {"width": 3, "color": Color.GREEN, "root": pathlib.Path("here")}
    assert torch.equal(again.layer.weight, net.layer.weight)
    assert again.training
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("kind", ["text", "path", "file", "url"])
def test_load_from_checkpoint_takes_paths_files_and_urls(tmp_path, kind) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt")
    source: Any = {
        "text": str(path),
        "path": path,
        "file": io.BytesIO(path.read_bytes()),
        "url": f"file://{path}",
    }[kind]

    assert Net.load_from_checkpoint(source).hparams.width == 3


def test_load_from_checkpoint_takes_arguments_in_place_of_saved_ones(tmp_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt")

    assert Net.load_from_checkpoint(path, color=Color.GREEN).hparams == {"width": 3, "color": Color.GREEN, "root": None}


def test_load_from_checkpoint_with_an_unknown_argument_warns_and_ignores_it(tmp_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt")

    with pytest.warns(UserWarning, match=r"Net has no argument `colour`") as caught:
        Net.load_from_checkpoint(path, colour=Color.GREEN)

    assert caught[0].filename == __file__


def test_load_from_checkpoint_of_an_instance_raises(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"`Net\.load_from_checkpoint` makes a new object.*it = Net\.load_from"):
        Net(3).load_from_checkpoint(tmp_path / "x.ckpt")


def test_subclass_can_extend_load_from_checkpoint(tmp_path) -> None:
    class Other(Net):
        @classmethod
        def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
            return super().load_from_checkpoint(*args, color=Color.GREEN, **kwargs)

    assert Other.load_from_checkpoint(saved(Net(3), tmp_path / "x.ckpt")).hparams.color is Color.GREEN


# -- arguments --------------------------------------------------------------------------------------------------------


def test_saved_arguments_that_the_constructor_does_not_have_are_dropped(tmp_path) -> None:
    class Sub(Net):
        def __init__(self, size: int):
            super().__init__(width=size * 2)

    path = saved(Sub(2), tmp_path / "x.ckpt")

    assert torch.load(path)["hyper_parameters"] == {"width": 4, "color": "red", "root": None, "size": 2}
    assert Sub.load_from_checkpoint(path).layer.in_features == 4


def test_constructor_with_kwargs_gets_all_saved_arguments(tmp_path) -> None:
    class M(LightningModule):
        def __init__(self, width, **others):
            super().__init__()
            self.save_hyperparameters()
            self.others = others

    path = saved(M(1, heads=2), tmp_path / "x.ckpt")

    with pytest.warns(UserWarning, match="has no weights"):
        assert M.load_from_checkpoint(path, tails=3).others == {"heads": 2, "tails": 3}


def test_module_without_a_constructor_loads_from_any_checkpoint(tmp_path) -> None:
    class M(LightningModule):
        pass

    path = saved(Net(1), tmp_path / "x.ckpt", state_dict={"buffer": torch.ones(1)})

    with pytest.warns(UserWarning, match="`buffer`, which M does not have"):
        assert M.load_from_checkpoint(path, strict=False).hparams == {}


def test_positional_only_arguments_come_back(tmp_path) -> None:
    class M(LightningModule):
        def __init__(self, width, /, lr):
            super().__init__()
            self.save_hyperparameters()
            self.layer = nn.Linear(width, 1)

    assert M.load_from_checkpoint(saved(M(2, 3), tmp_path / "x.ckpt")).hparams == {"width": 2, "lr": 3}


def test_missing_argument_raises_and_names_the_line_to_write(tmp_path) -> None:
    class M(LightningModule):
        def __init__(self, width, lr):
            super().__init__()

    path = saved(M(1, 2), tmp_path / "x.ckpt")

    with pytest.raises(TypeError, match=r"needs `width`, `lr`.*save_hyperparameters\(\)` in `M\.__init__`") as caught:
        M.load_from_checkpoint(path)
    assert f"`M.load_from_checkpoint('{path}', width=..., lr=...)`" in str(caught.value)


def test_argument_without_a_plain_form_is_asked_for_and_can_be_passed(tmp_path) -> None:
    with pytest.warns(UserWarning, match="loss"):
        path = saved(WithLoss(nn.BCELoss(weight=torch.ones(2)), width=5), tmp_path / "x.ckpt")

    with pytest.raises(TypeError, match=r"needs `loss`.*`loss` had no plain form and was left out"):
        WithLoss.load_from_checkpoint(path)
    with pytest.warns(UserWarning, match="no plain form"):
        again = WithLoss.load_from_checkpoint(path, loss=nn.BCELoss(weight=torch.zeros(2)))
    assert again.hparams.width == 5
    assert torch.equal(again.loss.weight, torch.ones(2))


def test_argument_without_a_plain_form_that_has_a_default_gets_it_with_a_warning(tmp_path) -> None:
    class M(Net):
        def __init__(self, width: int, loss: nn.Module | None = None):
            super().__init__(width)
            self.loss = loss

    with pytest.warns(UserWarning, match="no plain form"):
        path = saved(M(3, nn.MSELoss()), tmp_path / "x.ckpt")

    with pytest.warns(UserWarning, match=r"no `loss`, without a plain form: M gets its default.*loss=\.\.\.") as caught:
        assert M.load_from_checkpoint(path).loss is None
    assert caught[0].filename == __file__


def test_constructor_that_fails_for_a_left_out_entry_gets_a_note(tmp_path) -> None:
    class M(LightningModule):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters(conf)
            self.loss = conf["loss"]

    with pytest.warns(UserWarning, match="loss"):
        path = saved(M({"loss": nn.MSELoss()}), tmp_path / "x.ckpt")

    with pytest.raises(KeyError) as caught:
        M.load_from_checkpoint(path)
    assert "has no `loss`: without a plain form" in caught.value.__notes__[0]


# -- one argument that takes them all ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conf",
    [
        {"lr": 1, "root": pathlib.Path("x")},
        argparse.Namespace(lr=1, root=pathlib.Path("x")),
        AttributeDict(lr=1),
        collections.OrderedDict(lr=1),
    ],
)
def test_collection_in_one_argument_comes_back_as_what_it_was(tmp_path, conf) -> None:
    path = saved(OfConf(conf), tmp_path / "x.ckpt", state_dict={"a": torch.ones(1)})

    with pytest.warns(UserWarning, match="`a`"):
        again = OfConf.load_from_checkpoint(path, strict=False)

    assert type(again.conf) is type(conf)
    assert again.conf == conf


def test_arguments_beside_a_collection_go_into_it_unless_the_constructor_has_them(tmp_path) -> None:
    path = saved(OfConf({"lr": 1, "width": 2}), tmp_path / "x.ckpt")

    with pytest.warns(UserWarning, match="no weights"):
        again = OfConf.load_from_checkpoint(path, lr=9, depth=4, extra="e")

    assert again.conf == {"lr": 9, "width": 2, "depth": 4}
    assert again.extra == "e"


def test_collection_can_be_replaced_as_a_whole(tmp_path) -> None:
    path = saved(OfConf({"lr": 1}), tmp_path / "x.ckpt")

    with pytest.warns(UserWarning, match="no weights"):
        assert OfConf.load_from_checkpoint(path, conf={"new": 2}).conf == {"new": 2}


def test_collection_of_a_file_without_kinds_can_be_used_as_dict_and_namespace(tmp_path) -> None:
    path = saved(OfConf(argparse.Namespace(lr=1)), tmp_path / "x.ckpt", hparams_kinds=...)

    with pytest.warns(UserWarning, match="no weights"):
        conf = OfConf.load_from_checkpoint(path).conf

    assert conf.lr == conf["lr"] == 1


# -- files by others --------------------------------------------------------------------------------------------------


def test_file_without_kinds_gets_its_types_from_the_annotations(tmp_path) -> None:
    path = saved(Net(3, Color.GREEN, pathlib.Path("x")), tmp_path / "x.ckpt", hparams_kinds=...)

    assert Net.load_from_checkpoint(path).hparams == {"width": 3, "color": Color.GREEN, "root": pathlib.Path("x")}


@pytest.mark.parametrize("key", ["hparams", "module_arguments"])
def test_hyperparameters_under_old_keys_are_found(tmp_path, key) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt", hyper_parameters=..., hparams_kinds=..., **{key: {"width": 3}})

    assert Net.load_from_checkpoint(path).hparams.width == 3


@pytest.mark.parametrize("name", ["h.yaml", "h.yml", "h.csv"])
def test_hparams_file_takes_the_place_of_the_checkpoints_hyperparameters(tmp_path, name) -> None:
    class M(LightningModule):
        def __init__(self, width: int, color: Color = Color.RED, optim: Optim | None = None):
            super().__init__()
            self.save_hyperparameters()
            self.layer = nn.Linear(3, 1)

    path = saved(M(3, Color.GREEN), tmp_path / "x.ckpt")
    (save_hparams_to_tags_csv if name.endswith("csv") else save_hparams_to_yaml)(
        tmp_path / name, {"width": 4, "optim": {"lr": 3.0}}
    )

    again = M.load_from_checkpoint(path, hparams_file=tmp_path / name)

    assert again.hparams == {"width": 4, "color": Color.RED, "optim": Optim(lr=3.0)}


def test_hparams_file_of_another_kind_raises_and_names_those_there_are(tmp_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt")

    with pytest.raises(ValueError, match=r"h\.json'` ends in '\.json'.*\.yaml.*\.csv"):
        Net.load_from_checkpoint(path, hparams_file="h.json")


def test_file_without_weights_of_a_trainer_raises_and_says_what_to_write(tmp_path) -> None:
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "x.ckpt")

    with pytest.raises(KeyError, match=r"no `state_dict`.*'weight', 'bias'.*model\.load_state_dict"):
        Net.load_from_checkpoint(tmp_path / "x.ckpt")


# -- weights ----------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_match_raise_unless_strict_is_false(tmp_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt", state_dict={"layer.weight": torch.ones(1, 3), "other": torch.ones(1)})

    with pytest.raises(RuntimeError, match=r"layer\.bias"):
        Net.load_from_checkpoint(path)
    with pytest.warns(UserWarning, match="The checkpoint has") as caught:
        again = Net.load_from_checkpoint(path, strict=False)

    assert torch.equal(again.layer.weight, torch.ones(1, 3))
    texts = [str(warning.message) for warning in caught]
    assert any("has no `layer.bias`, which Net keeps" in text for text in texts)
    assert any("has `other`, which Net does not have" in text for text in texts)


def test_strict_loading_of_the_module_counts_and_may_not_be_contradicted(tmp_path) -> None:
    class Loose(Net):
        def __init__(self, width):
            super().__init__(width)
            self.strict_loading = False

    path = saved(Loose(3), tmp_path / "x.ckpt", state_dict={"layer.weight": torch.ones(1, 3)})

    with pytest.warns(UserWarning, match=r"layer\.bias"):
        Loose.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r"strict=True\).*`?strict_loading = False"):
        Loose.load_from_checkpoint(path, strict=True)


def test_hooks_are_called_before_the_weights_are_loaded(tmp_path) -> None:
    calls = []

    class Late(LightningModule):
        def configure_model(self):
            calls.append("configure_model")
            self.layer = nn.Linear(2, 1)

        def on_load_checkpoint(self, checkpoint):
            calls.append("on_load_checkpoint")
            checkpoint["state_dict"]["layer.bias"].fill_(7)

    model = Late()
    model.configure_model()

    again = Late.load_from_checkpoint(saved(model, tmp_path / "x.ckpt"))

    assert calls == ["configure_model", "configure_model", "on_load_checkpoint"]
    assert again.layer.bias.item() == 7


def test_weights_of_a_missing_device_go_to_the_cpu(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:97")
        path = saved(Net(3), tmp_path / "x.ckpt")

    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path)
    assert Net.load_from_checkpoint(path).layer.weight.device.type == "cpu"


def test_module_is_put_where_map_location_puts_the_weights(tmp_path) -> None:
    class Meta(Net):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return None

    path = saved(Net(3), tmp_path / "x.ckpt")

    assert Meta.load_from_checkpoint(path, map_location="meta").layer.weight.device.type == "meta"


# -- what a file may not do -------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("weights_only", [None, True])
def test_foreign_objects_raise_and_nothing_runs(tmp_path, weights_only) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt", bomb=Bomb(tmp_path / "mark"))

    with pytest.raises(pickle.UnpicklingError, match=r"run code: posix\.mkdir.*Nothing of it was run"):
        Net.load_from_checkpoint(path, weights_only=weights_only)

    assert not (tmp_path / "mark").exists()


def test_weights_only_false_is_obeyed(tmp_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt", bomb=Bomb(tmp_path / "mark"))

    with pytest.warns(
        UnsafeLoadWarning, match=r"x\.ckpt is read with `weights_only=False`: .*can run any code"
    ) as caught:
        Net.load_from_checkpoint(path, weights_only=False)
    assert caught[0].filename == __file__
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("instantiator", ["os.system", "lightning.pytorch.cli.instantiate_module", None])
def test_instantiator_in_a_file_is_neither_imported_nor_called(tmp_path, instantiator) -> None:
    hparams = {"_instantiator": instantiator, "width": 3}
    path = saved(Net(3), tmp_path / "x.ckpt", hyper_parameters=hparams, hparams_kinds={})
    before = set(sys.modules)

    assert Net.load_from_checkpoint(path).hparams.width == 3
    assert set(sys.modules) == before


def test_class_path_selects_an_imported_subclass(tmp_path) -> None:
    class Sub(Net):
        pass

    with given_hyperparameters(Sub, {"width": 3, "_class_path": f"{__name__}.{Sub.__qualname__}"}):
        path = saved(Sub(3), tmp_path / "x.ckpt")

    assert type(Net.load_from_checkpoint(path)) is Sub


def test_class_of_a_script_is_found_where_another_program_imports_it(tmp_path) -> None:
    with given_hyperparameters(Net, {"width": 3, "_class_path": f"__main__.{Net.__qualname__}"}):
        path = saved(Net(3), tmp_path / "x.ckpt")

    assert type(Net.load_from_checkpoint(path)) is Net


@pytest.mark.parametrize("class_path", ["antigravity.Net", "os.system", "torch.nn.modules.linear.Linear"])
def test_class_path_of_anything_else_raises_and_imports_nothing(tmp_path, class_path) -> None:
    path = saved(Net(3), tmp_path / "x.ckpt", hyper_parameters={"width": 3, "_class_path": class_path})

    with pytest.raises(ValueError, match=rf"class '{class_path}', which is not Net nor an imported subclass"):
        Net.load_from_checkpoint(path)

    assert "antigravity" not in sys.modules


class Doubled(nn.MSELoss):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


class WithMakers(LightningModule):
    def __init__(
        self,
        make: Callable[[list], nn.Module],
        losses: list[nn.Module],
        function: Callable = torch.relu,
        anything=None,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(1, 1)
        self.make, self.losses, self.function, self.anything = make, nn.ModuleList(losses), function, anything


def of_command_line(cls: type, path: pathlib.Path, arguments: dict[str, Any], *objects: Any) -> pathlib.Path:
    """A checkpoint of a module that the command line has made with ``objects``, which it had as ``arguments``."""
    with given_hyperparameters(cls, {**arguments, "_instantiator": "lightning.pytorch.cli.instantiate_module"}):
        return saved(cls(*objects), path)


def test_objects_of_the_command_line_are_made_again_if_the_signature_asks_for_their_class(tmp_path) -> None:
    description = {"class_path": "torch.nn.PReLU", "init_args": {"num_parameters": 2}}
    path = of_command_line(WithLoss, tmp_path / "x.ckpt", {"loss": description, "width": 2}, nn.PReLU(2))

    again = WithLoss.load_from_checkpoint(path)

    assert type(again.loss) is nn.PReLU
    assert again.loss.num_parameters == 2
    assert again.hparams.loss == description  # so that its own checkpoints can do the same
    given = nn.PReLU(2)
    with pytest.warns(UserWarning, match="loss"):  # which is no plain data
        assert WithLoss.load_from_checkpoint(path, loss=given).loss is given


def test_objects_within_objects_lists_and_factories_are_made_again(tmp_path) -> None:
    within = {"class_path": f"{__name__}.Doubled", "init_args": {"inner": {"class_path": "torch.nn.L1Loss"}}}
    factory = {"class_path": "torch.nn.HuberLoss", "init_args": {"delta": 0.5}}
    arguments = {"make": factory, "losses": [within], "anything": {"class_path": "os.system"}}
    path = of_command_line(WithMakers, tmp_path / "x.ckpt", arguments, None, [])

    again = WithMakers.load_from_checkpoint(path, strict=False)

    assert type(again.losses[0].inner) is nn.L1Loss
    assert again.make().delta == 0.5
    assert again.anything == {"class_path": "os.system"}  # nothing says that it was an object


@pytest.mark.parametrize("class_path", ["antigravity.Loss", "os.system", "torch.optim.SGD", "builtins.eval"])
def test_object_of_a_class_that_the_signature_does_not_ask_for_raises_and_imports_nothing(tmp_path, class_path) -> None:
    path = of_command_line(WithLoss, tmp_path / "x.ckpt", {"loss": {"class_path": class_path}}, nn.MSELoss())

    with pytest.raises(TypeError, match=rf"'{class_path}' for `loss`, which takes `Module`.*loss=\.\.\."):
        WithLoss.load_from_checkpoint(path)

    assert "antigravity" not in sys.modules


def test_function_of_the_command_line_is_asked_for(tmp_path) -> None:
    arguments = {"make": {"class_path": "torch.nn.L1Loss"}, "losses": [], "function": "os.system"}
    path = of_command_line(WithMakers, tmp_path / "x.ckpt", arguments, None, [])

    with pytest.raises(TypeError, match=r"'os.system' \(a str\) for `function`, which takes a function"):
        WithMakers.load_from_checkpoint(path)
    with pytest.warns(UserWarning, match="function"):  # which is no plain data
        assert WithMakers.load_from_checkpoint(path, function=len).function is len


def test_object_that_cannot_be_made_again_says_which_and_how_to_pass_it(tmp_path) -> None:
    description = {"class_path": "torch.nn.PReLU", "init_args": {"num_parameters": -1}}
    path = of_command_line(WithLoss, tmp_path / "x.ckpt", {"loss": description}, nn.PReLU())

    with pytest.raises(RuntimeError, match="-1") as caught:
        WithLoss.load_from_checkpoint(path)

    assert "`loss` was to be made again" in caught.value.__notes__[0]


# -- files of hyperparameters -----------------------------------------------------------------------------------------


def test_yaml_round_trips_simple_values_in_their_order(tmp_path) -> None:
    hparams = {"z": 1, "a": (1, (2.5, "x")), "c": 1 + 2j, "n": {"t": [None, True]}, "b": b"x", "s": {1}, "f": 1e-5}

    save_hparams_to_yaml(tmp_path / "h.yaml", hparams)

    again = load_hparams_from_yaml(tmp_path / "h.yaml", use_omegaconf=False)
    assert again == hparams
    assert list(again) == list(hparams)


def test_yaml_writes_richer_values_for_people(tmp_path) -> None:
    hparams = argparse.Namespace(
        root=pathlib.Path("a/b"), color=Color.GREEN, optim=Optim(), dtype=torch.float16, weights=torch.ones(2)
    )

    save_hparams_to_yaml(tmp_path / "deep" / "h.yaml", hparams)

    assert (tmp_path / "deep" / "h.yaml").read_text().splitlines() == [
        "root: a/b",
        "color: GREEN",
        "optim:",
        "  lr: 0.1",
        "  color: RED",
        "dtype: torch.float16",
        "weights:",
        "- 1.0",
        "- 1.0",
    ]


def test_yaml_of_nothing_is_an_empty_mapping(tmp_path) -> None:
    save_hparams_to_yaml(tmp_path / "h.yaml", {})

    assert (tmp_path / "h.yaml").read_text() == "{}\n"
    assert load_hparams_from_yaml(tmp_path / "h.yaml", use_omegaconf=False) == {}


def test_yaml_leaves_out_what_it_cannot_say_with_a_warning(tmp_path) -> None:
    hparams = {"a": 1, "loss": nn.MSELoss(), "large": torch.zeros(5000)}

    with pytest.warns(UserWarning, match=r"h\.yaml is without `loss`, `large`"):
        save_hparams_to_yaml(tmp_path / "h.yaml", hparams)

    assert load_hparams_from_yaml(tmp_path / "h.yaml", use_omegaconf=False) == {"a": 1}


@pytest.mark.parametrize(
    "tag", ["python/object/apply:os.mkdir ['{mark}']", "python/name:os.mkdir", "python/object/new:os.mkdir ['{mark}']"]
)
def test_yaml_that_asks_for_python_objects_raises_and_runs_nothing(tmp_path, tag) -> None:
    (tmp_path / "h.yaml").write_text(f"a: !!{tag.format(mark=tmp_path / 'mark')}\n")

    with pytest.raises(ValueError, match=r"h\.yaml cannot be read as hyperparameters"):
        load_hparams_from_yaml(tmp_path / "h.yaml")

    assert not (tmp_path / "mark").exists()


def test_yaml_knows_the_paths_of_lightnings_files(tmp_path) -> None:
    (tmp_path / "h.yaml").write_text("p: !!python/object/apply:pathlib.PosixPath\n- a\n- b\n")

    assert load_hparams_from_yaml(tmp_path / "h.yaml", use_omegaconf=False) == {"p": pathlib.Path("a/b")}


@pytest.mark.parametrize("text", ["- 1\n", "a: [", ""])
def test_yaml_that_is_no_mapping_raises_and_names_the_file(tmp_path, text) -> None:
    (tmp_path / "h.yaml").write_text(text)

    with pytest.raises(ValueError, match=r"h\.yaml"):
        load_hparams_from_yaml(tmp_path / "h.yaml")


def test_yaml_becomes_an_omegaconf_container_where_that_is_installed(tmp_path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    save_hparams_to_yaml(tmp_path / "h.yaml", omegaconf.OmegaConf.create({"a": {"b": [1]}}))

    again = load_hparams_from_yaml(tmp_path / "h.yaml")

    assert isinstance(again, omegaconf.DictConfig)
    assert again.a.b[0] == 1


def test_csv_round_trips_literals(tmp_path) -> None:
    hparams = {"a": 1, "b": 0.5, "c": "text, with comma", "d": None, "e": True, "f": [1, (2,)], "g": ""}

    save_hparams_to_tags_csv(tmp_path / "h.csv", hparams)

    assert (tmp_path / "h.csv").read_text().splitlines()[:2] == ["key,value", "a,1"]
    assert load_hparams_from_tags_csv(tmp_path / "h.csv") == hparams


def test_csv_with_other_columns_raises_and_names_them(tmp_path) -> None:
    (tmp_path / "h.csv").write_text("epoch,loss\n1,2\n")

    with pytest.raises(ValueError, match=r"no columns `key` and `value`, but \['epoch', 'loss'\]"):
        load_hparams_from_tags_csv(tmp_path / "h.csv")


@pytest.mark.parametrize("load", [load_hparams_from_yaml, load_hparams_from_tags_csv])
def test_missing_file_of_hyperparameters_raises(tmp_path, load) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
