"""Every name that packages take from Lightning is there, or the table says why it is not and what to write."""

from __future__ import annotations

import pytest

from fulmen.compat.table import reason_for

from .census import counted, is_there

#: what three packages or more use and Fulmen has not; a name that has come may be taken off
NOT_THERE = frozenset(
    """
    lightning.fabric.Fabric
    lightning.fabric.utilities.logger._sanitize_callable_params
    lightning.pytorch.Trainer.add_argparse_args
    lightning.pytorch.Trainer.from_argparse_args
    lightning.pytorch.callbacks.BaseFinetuning
    lightning.pytorch.loggers.CometLogger
    lightning.pytorch.loggers.MLFlowLogger
    lightning.pytorch.loggers.NeptuneLogger
    lightning.pytorch.loggers.WandbLogger
    lightning.pytorch.loggers.comet.CometLogger
    lightning.pytorch.loggers.mlflow.MLFlowLogger
    lightning.pytorch.loggers.neptune.NeptuneLogger
    lightning.pytorch.loggers.wandb.WandbLogger
    lightning.pytorch.strategies.DeepSpeedStrategy
    lightning.pytorch.trainer.connectors.accelerator_connector._AcceleratorConnector
    lightning.pytorch.utilities.deepspeed.convert_zero_checkpoint_to_fp32_state_dict
    """.split()
)


@pytest.mark.parametrize("name", sorted({name for _, name in counted()}))
def test_a_name_of_the_census_is_there_or_has_a_stated_reason(name: str) -> None:
    assert is_there(name) or reason_for(name)
