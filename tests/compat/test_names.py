"""What is imported by Lightning's names is Fulmen's own, under every name; and what Fulmen lacks is said at once."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pickle
from operator import attrgetter

import pytest

import fulmen
from fulmen import compat
from fulmen.callbacks.early_stopping import EarlyStopping

pytestmark = pytest.mark.usefixtures("aliases")


@pytest.mark.parametrize("root", ["lightning", "lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("name", fulmen.__all__)
def test_a_front_name_is_the_same_object_under_each_root(root: str, name: str) -> None:
    if name != "__version__":
        assert getattr(importlib.import_module(root), name) is getattr(fulmen, name)


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("lightning.pytorch.callbacks.early_stopping:EarlyStopping", "callbacks.early_stopping:EarlyStopping"),
        ("pytorch_lightning.callbacks:EarlyStopping", "callbacks.early_stopping:EarlyStopping"),
        ("pytorch_lightning.utilities.rank_zero:rank_zero_only", "utilities.rank_zero:rank_zero_only"),
        ("lightning.fabric.utilities.rank_zero:rank_zero_only", "utilities.rank_zero:rank_zero_only"),
        ("lightning_fabric.utilities.seed:seed_everything", "utilities.seed:seed_everything"),
        ("lightning.pytorch.utilities.types:STEP_OUTPUT", "utilities.types:STEP_OUTPUT"),
        ("lightning.pytorch.trainer.states:TrainerFn", "trainer.states:TrainerFn"),
        ("lightning.pytorch.core.optimizer:LightningOptimizer", "core.optimizer:LightningOptimizer"),
        ("lightning.pytorch.core.mixins:HyperparametersMixin", "core.hparams:HyperparameterOwner"),
        ("lightning.fabric.plugins.io.checkpoint_io:CheckpointIO", "plugins.io.checkpoint_plugin:CheckpointIO"),
        ("lightning.fabric.strategies:DDPStrategy", "strategies.ddp:DDPStrategy"),
        ("pytorch_lightning.core.lightning:LightningModule", "core.module:LightningModule"),
        ("pytorch_lightning.loggers.base:LightningLoggerBase", "loggers.logger:Logger"),
        ("pytorch_lightning.utilities.distributed:rank_zero_only", "utilities.rank_zero:rank_zero_only"),
        ("pytorch_lightning.profiler:SimpleProfiler", "profilers.simple:SimpleProfiler"),
        ("pytorch_lightning.trainer.supporters:CombinedLoader", "utilities.combined_loader:CombinedLoader"),
        ("pytorch_lightning.accelerators:TPUAccelerator", "accelerators.xla:XLAAccelerator"),
    ],
)
def test_a_deep_path_is_the_object_of_the_house(path: str, ours: str) -> None:
    module, _, name = path.partition(":")
    scope: dict[str, object] = {}
    exec(f"from {module} import {name} as found", scope)
    home, _, own = ours.partition(":")
    assert scope["found"] is getattr(importlib.import_module(f"fulmen.{home}"), own)


def test_attributes_of_a_root_reach_its_modules_without_an_import_of_their_own() -> None:
    import lightning as L
    import pytorch_lightning as pl

    assert attrgetter("pytorch.callbacks.EarlyStopping")(L) is EarlyStopping
    assert attrgetter("callbacks.early_stopping.EarlyStopping")(pl) is EarlyStopping
    assert attrgetter("fabric.utilities.rank_zero.rank_zero_only")(L) is attrgetter("utilities.rank_zero_only")(pl)


def test_a_star_takes_what_the_house_offers() -> None:
    scope: dict[str, object] = {}
    exec("from lightning.pytorch.callbacks import *", scope)
    assert scope["EarlyStopping"] is EarlyStopping


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from lightning.pytorch.callbacks import EarlyStoping", "did you mean 'EarlyStopping'"),
        ("from pytorch_lightning import Trainr", "'Trainr' in 'pytorch_lightning'"),
        ("from pytorch_lightning.loggers import TestTubeLogger", "write CSVLogger or TensorBoardLogger"),
    ],
)
def test_a_name_that_is_not_there_fails_at_its_import(statement: str, said: str) -> None:
    with pytest.raises(ImportError, match=said) as caught:
        exec(statement)
    assert not isinstance(caught.value, ModuleNotFoundError)  # which some programs take for "not installed"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("import pytorch_lightning.overrides", "Strategy.wrap_step"),
        ("from lightning.pytorch.nowhere import Anything", "no module 'lightning.pytorch.nowhere'"),
        ("import lightning.app.frontend", "another product"),
        ("import lightning.pytorch.callbacks.early_stopping.inner", "no module"),
        ("import lightning.pytorch.callbacks.early_stoping", "did you mean 'early_stopping'"),
    ],
)
def test_a_module_that_is_not_there_fails_at_its_import(statement: str, said: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=said):
        exec(statement)


def test_a_name_that_is_only_asked_for_is_answered_with_no() -> None:
    import lightning.pytorch as pl

    assert not hasattr(pl.callbacks, "Nothing")
    with pytest.raises(AttributeError, match=r"no 'Nothing' in 'lightning\.pytorch\.callbacks'"):
        _ = pl.callbacks.Nothing
    assert importlib.util.find_spec("lightning.pytorch.callbacks") is not None
    assert importlib.util.find_spec("lightning.pytorch.nowhere") is None


def test_versions_are_those_of_the_lightning_whose_names_are_offered() -> None:
    for root in ("lightning", "lightning.pytorch", "pytorch_lightning", "lightning.fabric", "lightning_fabric"):
        assert importlib.import_module(root).__version__ == "2.6.6"
    for distribution in ("lightning", "pytorch-lightning", "pytorch_lightning", "lightning_fabric"):
        assert importlib.metadata.version(distribution) == "2.6.6"
    assert "Fulmen" in importlib.metadata.metadata("lightning")["Summary"]


def test_a_listing_of_what_is_installed_does_not_name_lightning() -> None:
    """Programs write requirements from it."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    assert not names & {"lightning", "pytorch-lightning", "lightning-fabric"}


def test_checks_for_lightning_by_other_libraries_say_that_it_is_there() -> None:
    from lightning_utilities.core.imports import RequirementCache, compare_version

    assert RequirementCache("lightning>=2.0")
    assert not RequirementCache("lightning>=99")
    assert compare_version("pytorch_lightning", lambda one, other: one >= other, "2.6")


def test_a_class_that_a_file_of_lightning_names_is_ours() -> None:
    """Checkpoints of 1.x hold the classes of callbacks."""
    assert pickle.loads(b"cpytorch_lightning.callbacks.early_stopping\nEarlyStopping\n.") is EarlyStopping


def test_an_alias_that_was_pickled_is_one_again() -> None:
    import lightning.pytorch.callbacks as module

    assert pickle.loads(pickle.dumps(module)) is module


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("lightning.pytorch.callbacks.EarlyStopping", "fulmen.callbacks.EarlyStopping"),
        ("pytorch_lightning.loggers.CSVLogger", "fulmen.loggers.CSVLogger"),
        ("lightning.Trainer", "fulmen.Trainer"),
        ("lightning.fabric.plugins.io.torch_io.TorchCheckpointIO", "fulmen.plugins.io.torch_plugin.TorchCheckpointIO"),
        ("pytorch_lightning.trainer.states.TrainerFn.FITTING", "fulmen.trainer.states.TrainerFn.FITTING"),
        ("lightning.pytorch.callbacks", "fulmen.callbacks"),
        ("lightning_utilities.core.enums.StrEnum", "lightning_utilities.core.enums.StrEnum"),
        ("my.callbacks.EarlyStopping", "my.callbacks.EarlyStopping"),
        ("lightningly.Trainer", "lightningly.Trainer"),
    ],
)
def test_a_class_path_is_resolved_to_the_house(path: str, ours: str) -> None:
    compat.uninstall()
    assert compat.resolve(path) == ours


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("lightning.pytorch.callbacks.EarlyStoping", ImportError, "did you mean 'EarlyStopping'"),
        ("lightning.pytorch.nowhere.Thing", ModuleNotFoundError, "no module 'lightning.pytorch.nowhere'"),
        ("lightning.pytorch.nowhere", ImportError, "no 'nowhere' in 'lightning.pytorch'"),
    ],
)
def test_a_class_path_of_what_is_not_there_is_refused(path: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        compat.resolve(path)
