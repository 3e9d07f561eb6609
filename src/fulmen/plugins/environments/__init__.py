"""Where a job runs: how it is asked to end, and how it comes back."""

from fulmen.plugins.environments.requeue import ExitCodeRequeue, Requeue
from fulmen.plugins.environments.slurm import SLURMEnvironment

__all__ = ["ExitCodeRequeue", "Requeue", "SLURMEnvironment"]
