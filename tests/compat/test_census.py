"""The names that most packages take from Lightning are there."""

from __future__ import annotations

import pytest

from .census import counted, is_there

#: what three packages or more use and Fulmen has not; a name that has come may be taken off
NOT_THERE = frozenset(
    """
    lightning.fabric.Fabric
    lightning.pytorch.Trainer.add_argparse_args
    lightning.pytorch.Trainer.from_argparse_args
    lightning.pytorch.callbacks.DeviceStatsMonitor
    lightning.pytorch.strategies.DeepSpeedStrategy
    lightning.pytorch.trainer.connectors.accelerator_connector._AcceleratorConnector
    lightning.pytorch.utilities.deepspeed.convert_zero_checkpoint_to_fp32_state_dict
    """.split()
)


@pytest.mark.parametrize("name", sorted(name for count, name in counted() if count >= 3 and name not in NOT_THERE))
def test_a_name_that_three_packages_use_is_there(name: str) -> None:
    assert is_there(name)


def test_what_is_said_not_to_be_there_is_in_the_census() -> None:
    assert {name for _, name in counted()} >= NOT_THERE
