"""What programs import of Lightning's Fabric is there, under both of its roots."""

from __future__ import annotations

import pytest
from tests.compat.census import is_there

from fulmen import Fabric
from fulmen.compat.table import home_of, missing_name
from fulmen.fabric.fabric import Fabric as AtHome

NAMES = """
    Fabric
    is_wrapped
    seed_everything
    cli.main
    connector._PRECISION_INPUT
    fabric.Fabric
    plugins.precision.bitsandbytes._BITSANDBYTES_AVAILABLE
    strategies.launchers.subprocess_script._SubprocessScriptLauncher
    strategies.strategy.TBroadcast
    strategies.strategy._Sharded
    strategies.strategy._apply_filter
    strategies.strategy._validate_keys_for_strict_loading
    utilities.distributed._get_default_process_group_backend_for_device
    utilities.init._materialize_meta_tensors
    utilities.load._METADATA_FILENAME
    utilities.load._NotYetLoadedTensor
    utilities.load._lazy_load
    utilities.load._move_state_into
    wrappers._FabricDataLoader
    wrappers._FabricModule
    wrappers._FabricOptimizer
    wrappers._unwrap_objects
""".split()


@pytest.mark.parametrize("root", ["lightning.fabric", "lightning_fabric"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_fabric_is_there(root: str, name: str) -> None:
    assert is_there(f"{root}.{name}")


def test_it_is_one_class_under_every_name() -> None:
    assert Fabric is AtHome
    assert home_of("lightning", "Fabric") == ("fulmen", "Fabric")


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        ("lightning.fabric.strategies", "XLAFSDPStrategy", "write XLAStrategy"),
        ("lightning.fabric.strategies.strategy", "_BackwardSyncControl", "their method `without_sync`"),
    ],
)
def test_what_is_left_out_says_what_to_write(module: str, name: str, advice: str) -> None:
    assert not is_there(f"{module}.{name}")
    assert advice in str(missing_name(module, name))
