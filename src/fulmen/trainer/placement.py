"""Where a run happens: from the Trainer's arguments to the strategy. What is for several processes is imported only
where there are several.
"""

from __future__ import annotations

import os
from typing import Any

from fulmen.accelerators.accelerator import Accelerator
from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.requeue import Requeue
from fulmen.plugins.environments.variables import whole
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.precision.precision import Precision
from fulmen.strategies.single_device import SingleDeviceStrategy
from fulmen.strategies.strategy import Strategy
from fulmen.trainer.flags import refuse_class
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.program import is_interactive
from fulmen.utilities.rank_zero import rank_zero_info

_NOT_THERE = {"xla_fsdp": "'xla', which has the whole model on each device"}


def environment(plugins: list[Any]) -> ClusterEnvironment:
    """Who the processes are and where they meet: the plugin that was passed, or what this process was started in."""
    passed = next((plugin for plugin in plugins if isinstance(plugin, ClusterEnvironment)), None)
    if passed is not None and not isinstance(passed, Requeue):  # SLURM's may be passed for its signal only
        return passed
    from fulmen.plugins.environments.lightning import LightningEnvironment
    from fulmen.plugins.environments.lsf import LSFEnvironment
    from fulmen.plugins.environments.mpi import MPIEnvironment
    from fulmen.plugins.environments.slurm import SLURMEnvironment
    from fulmen.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect() and (SLURMEnvironment.was_started_by_srun() or whole("SLURM_NTASKS", 1) > 1):
        return next((plugin for plugin in plugins if isinstance(plugin, SLURMEnvironment)), None) or SLURMEnvironment()
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


def strategy(
    value: Any, kind: Accelerator, indices: list[int], num_nodes: int, numbers: Precision, plugins: list[Any]
) -> Strategy:
    """The strategy: the one that was passed, or the one that ``strategy=`` names."""
    refuse_class("strategy", value, ValueError)
    files = next((plugin for plugin in plugins if isinstance(plugin, CheckpointIO)), None)
    several = len(indices) > 1 or num_nodes > 1
    if isinstance(value, Strategy):
        found = value
    else:
        name = value.lower() if isinstance(value, str) else value
        if name == "auto":
            name = _automatic(kind, indices, num_nodes) if several else "single_device"
        if name == "single_device":
            if several:
                raise MisconfigurationException(
                    f"`strategy={value!r}` runs on one device, and {len(indices)} on {num_nodes} machines were asked "
                    "for. Write `strategy='ddp'`, or `devices=1`."
                )
            if "TORCHELASTIC_RUN_ID" in os.environ:  # else each process would train alone, and write over the others
                environment(plugins).validate_settings(1, 1)
            device = kind.device(indices[0])
            if device.type == "xla":
                from fulmen.strategies.single_xla import SingleDeviceXLAStrategy

                return SingleDeviceXLAStrategy(device, kind, files, numbers)
            return SingleDeviceStrategy(device, kind, files, numbers)
        from fulmen.strategies.registry import StrategyRegistry

        name = value if isinstance(value, str) and value in StrategyRegistry else name
        if not isinstance(name, str) or name not in StrategyRegistry:
            if name in _NOT_THERE:
                raise MisconfigurationException(f"`strategy={value!r}` is not there. Write {_NOT_THERE[name]}.")
            short = [name for name in StrategyRegistry if "_find_unused" not in name]
            names = ", ".join(map(repr, ("auto", "single_device", *short)))
            raise ValueError(f"`strategy={value!r}`: must be one of {names}, or a Strategy.")
        found = StrategyRegistry.get(name)
    found.accelerator = found.accelerator or kind
    found.choose_precision(numbers)
    if files is not None:
        found.checkpoint_io = files
    if not isinstance(found, SingleDeviceStrategy):
        _place(found, kind, indices, num_nodes, plugins)
    return found


def _automatic(kind: Accelerator, indices: list[int], num_nodes: int) -> str:
    """The strategy for several processes."""
    where = f"{len(indices)} devices" + (f" on each of {num_nodes} machines" if num_nodes > 1 else "")
    name, why = "ddp", f"{where}, one process for each"
    if kind.name() in ("xla", "tpu"):
        name = "xla"
    elif is_interactive() and not environment([]).creates_processes_externally:
        name = "ddp_notebook"
        why += ", which get the model and the data from this interactive session, where no program can be started anew"
    rank_zero_info("`strategy='auto'` is %r: %s", name, why)
    return name


def _place(found: Strategy, kind: Accelerator, indices: list[int], num_nodes: int, plugins: list[Any]) -> None:
    from fulmen.strategies.parallel import ParallelStrategy

    if not isinstance(found, ParallelStrategy):
        return  # a user's, which knows its devices
    found.num_nodes = num_nodes
    found.parallel_devices = found.parallel_devices or [kind.device(index) for index in indices]
    found.cluster_environment = found.cluster_environment or environment(plugins)
