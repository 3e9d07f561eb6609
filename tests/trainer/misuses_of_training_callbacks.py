"""Misuses of callbacks that change what is trained: averages, pruning, finetuning, spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from misuse_table import Misuse, Scene, enter, misuse
from torch import nn

from fulmen.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    EMAWeightAveraging,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    WeightAveraging,
)
from fulmen.utilities.exceptions import MisconfigurationException

_SUBJECT = "Callbacks that change what is trained"


def _argument(callback: Callable[..., Any], raises: type[BaseException], *says: str, **arguments: Any) -> None:
    """A value that an argument of a callback cannot have."""
    written = ", ".join(f"{name}={'f' if callable(value) else repr(value)}" for name, value in arguments.items())
    enter(Misuse(_SUBJECT, f"{callback.__name__}({written})", lambda scene: callback(**arguments), raises, says))


_argument(WeightAveraging, TypeError, "decay=0.9", "no such argument", "avg_fn", decay=0.9)
_argument(WeightAveraging, MisconfigurationException, "`avg_fn`", "Pass one", avg_fn=max, multi_avg_fn=max)
_argument(EMAWeightAveraging, ValueError, "decay=2", "from 0 to 1", decay=2)
_argument(EMAWeightAveraging, MisconfigurationException, "from 1 on", update_every_n_steps=-1)
_argument(EMAWeightAveraging, MisconfigurationException, "avg_fn", "WeightAveraging(avg_fn=...)", avg_fn=max)
_argument(StochasticWeightAveraging, MisconfigurationException, "swa_lrs=0", "a positive number", swa_lrs=0)
_argument(ModelPruning, MisconfigurationException, "pruning_fn='most'", "l1_unstructured", pruning_fn="most")
_argument(ModelPruning, MisconfigurationException, "needs `pruning_dim`", pruning_fn="ln_structured")
_argument(BackboneFinetuning, MisconfigurationException, "a whole number from 0", unfreeze_backbone_at_epoch=-1)


@misuse(
    _SUBJECT,
    "BackboneFinetuning of a module without a backbone",
    MisconfigurationException,
    "has no `backbone`",
    "derive a callback from BaseFinetuning",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=BackboneFinetuning())


class _HeadFirst(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None: ...

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None: ...


@misuse(
    _SUBJECT,
    "BaseFinetuning with a parameter that is not the module's",
    KeyError,
    "none of the module's",
    "Make it an attribute",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    def configure_optimizers(module: Any) -> Any:
        return torch.optim.SGD([*module.parameters(), nn.Parameter(torch.zeros(3))], lr=0.1)

    scene.fit(scene.module(configure_optimizers=configure_optimizers), callbacks=_HeadFirst())


@misuse(
    _SUBJECT,
    "StochasticWeightAveraging in manual optimization",
    MisconfigurationException,
    "replaces the scheduler",
    "WeightAveraging()",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    module = scene.module()
    module.automatic_optimization = False
    scene.fit(module, callbacks=StochasticWeightAveraging(0.1), max_epochs=2)


@misuse(
    _SUBJECT,
    "ModelPruning of a layer of another module",
    MisconfigurationException,
    "'weight' of a Linear",
    "Pass layers of the module that is trained",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=ModelPruning("l1_unstructured", parameters_to_prune=[(nn.Linear(2, 1), "weight")]))


@misuse(
    _SUBJECT,
    "SpikeDetection where no loss is returned",
    MisconfigurationException,
    "the loss of each batch",
    "`return loss`",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    def step(module: Any, batch: Any, batch_idx: int) -> None:
        module.optimizers().step()

    module = scene.module(training_step=step)
    module.automatic_optimization = False
    scene.fit(module, callbacks=SpikeDetection())
