"""Every name that packages take from Lightning is there, or the table says why it is not and what to write."""

from __future__ import annotations

import pytest

from fulmen.compat.table import reason_for

from .census import counted, is_there

#: what is still to come; a name that has come may be taken off
TO_COME = frozenset(
    """
    lightning.fabric.Fabric
    lightning.pytorch.Trainer.add_argparse_args
    lightning.pytorch.Trainer.from_argparse_args
    lightning.pytorch.callbacks.DeviceStatsMonitor
    lightning.pytorch.strategies.DeepSpeedStrategy
    lightning.pytorch.trainer.connectors.accelerator_connector._AcceleratorConnector
    lightning.pytorch.utilities.deepspeed.convert_zero_checkpoint_to_fp32_state_dict
    lightning.fabric.connector._PRECISION_INPUT
    lightning.fabric.plugins.precision.bitsandbytes._BITSANDBYTES_AVAILABLE
    lightning.fabric.strategies.XLAFSDPStrategy
    lightning.fabric.strategies.launchers.subprocess_script._SubprocessScriptLauncher
    lightning.fabric.strategies.strategy.TBroadcast
    lightning.fabric.strategies.strategy._BackwardSyncControl
    lightning.fabric.strategies.strategy._Sharded
    lightning.fabric.strategies.strategy._apply_filter
    lightning.fabric.strategies.strategy._validate_keys_for_strict_loading
    lightning.fabric.strategies.xla_fsdp.XLAFSDPStrategy
    lightning.fabric.strategies.xla_fsdp._activation_checkpointing_auto_wrapper
    lightning.fabric.utilities.ThroughputMonitor
    lightning.fabric.utilities.logger._add_prefix
    lightning.fabric.utilities.logger._sanitize_callable_params
    lightning.fabric.utilities.throughput.ThroughputMonitor
    lightning.fabric.wrappers._FabricOptimizer
    lightning.pytorch.Trainer.add_argparse_args
    lightning.pytorch.Trainer.from_argparse_args
    lightning.pytorch.callbacks.BaseFinetuning
    lightning.pytorch.callbacks.BaseFinetuning._apply_mapping_to_param_groups
    lightning.pytorch.callbacks.BaseFinetuning.flatten_modules
    lightning.pytorch.callbacks.BaseFinetuning.freeze
    lightning.pytorch.callbacks.DeviceStatsMonitor
    lightning.pytorch.loggers.CometLogger
    lightning.pytorch.loggers.MLFlowLogger
    lightning.pytorch.loggers.NeptuneLogger
    lightning.pytorch.loggers.WandbLogger
    lightning.pytorch.loggers.base.DummyExperiment
    lightning.pytorch.loggers.base.LoggerCollection
    lightning.pytorch.loggers.comet.CometLogger
    lightning.pytorch.loggers.mlflow.MLFlowLogger
    lightning.pytorch.loggers.neptune.NeptuneLogger
    lightning.pytorch.loggers.utilities._scan_checkpoints
    lightning.pytorch.loggers.wandb.WandbLogger
    lightning.pytorch.logging.TestTubeLogger
    lightning.pytorch.profiler.PyTorchProfiler
    lightning.pytorch.utilities.logger._flatten_dict
    lightning.pytorch.utilities.logger._sanitize_params
    lightning.pytorch.utilities.logger._scan_checkpoints
    """.split()
)


@pytest.mark.parametrize("name", sorted({name for _, name in counted()} - TO_COME))
def test_a_name_of_the_census_is_there_or_has_a_stated_reason(name: str) -> None:
    assert is_there(name) or reason_for(name)


def test_what_is_said_to_come_is_in_the_census() -> None:
    assert {name for _, name in counted()} >= TO_COME
