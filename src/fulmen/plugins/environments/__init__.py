"""Where a job runs: who its processes are, how it is asked to end, and how it comes back. Each is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment as ClusterEnvironment
    from fulmen.plugins.environments.kubeflow import KubeflowEnvironment as KubeflowEnvironment
    from fulmen.plugins.environments.lightning import LightningEnvironment as LightningEnvironment
    from fulmen.plugins.environments.lsf import LSFEnvironment as LSFEnvironment
    from fulmen.plugins.environments.mpi import MPIEnvironment as MPIEnvironment
    from fulmen.plugins.environments.requeue import ExitCodeRequeue as ExitCodeRequeue
    from fulmen.plugins.environments.requeue import Requeue as Requeue
    from fulmen.plugins.environments.slurm import SLURMEnvironment as SLURMEnvironment
    from fulmen.plugins.environments.torchelastic import TorchElasticEnvironment as TorchElasticEnvironment

__all__ = [
    "ClusterEnvironment",
    "ExitCodeRequeue",
    "KubeflowEnvironment",
    "LSFEnvironment",
    "LightningEnvironment",
    "MPIEnvironment",
    "Requeue",
    "SLURMEnvironment",
    "TorchElasticEnvironment",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "ClusterEnvironment": "cluster_environment",
        "ExitCodeRequeue": "requeue",
        "KubeflowEnvironment": "kubeflow",
        "LSFEnvironment": "lsf",
        "LightningEnvironment": "lightning",
        "MPIEnvironment": "mpi",
        "Requeue": "requeue",
        "SLURMEnvironment": "slurm",
        "TorchElasticEnvironment": "torchelastic",
    },
)
