"""Jobs of the SLURM scheduler."""

from __future__ import annotations

import os
import re
import signal
import subprocess

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.requeue import Requeue, checked_signal
from fulmen.plugins.environments.variables import port, rank_of, whole
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info


class SLURMEnvironment(ClusterEnvironment, Requeue):
    """A job of SLURM. Used by itself where :meth:`detect` finds one.

    Start the program by ``srun``, with as many tasks per machine as ``Trainer(devices=...)`` and as many machines as
    ``num_nodes``: ``srun python program.py`` under ``#SBATCH --nodes=2 --ntasks-per-node=4``. The processes meet at the
    first machine of the job, at ``MASTER_PORT`` if that is set, else at a port that depends on the number of the job.

    Ask SLURM for the signal some time before the limit (``#SBATCH --signal=SIGUSR1@90``) and allow the job to come back
    (``#SBATCH --requeue``). On the signal the run is saved and the job put back into the queue; when it starts again,
    ``fit`` goes on from there.

    Args:
        auto_requeue: put the job back into the queue on ``requeue_signal``. False: leave that signal alone.
        requeue_signal: None: SIGUSR1, where the system has it.

    Raises:
        MisconfigurationException: ``requeue_signal`` cannot be caught.
    """

    def __init__(self, auto_requeue: bool = True, requeue_signal: signal.Signals | None = None) -> None:
        self.auto_requeue = auto_requeue
        if requeue_signal is None:
            requeue_signal = getattr(signal, "SIGUSR1", None)
        self.requeue_signal = None if requeue_signal is None else checked_signal(requeue_signal)
        self.signals = (self.requeue_signal,) if auto_requeue and self.requeue_signal is not None else ()

    @staticmethod
    def detect() -> bool:
        """Whether this process belongs to a job of SLURM that runs by itself. One named ``bash`` or ``interactive`` is
        somebody's shell.
        """
        return "SLURM_JOB_ID" in os.environ and SLURMEnvironment.job_name() not in ("bash", "interactive")

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
        nodes = next((os.environ[name] for name in names if os.environ.get(name)), "127.0.0.1")
        return os.environ.get("MASTER_ADDR") or self.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        job = os.environ.get("SLURM_JOB_ID", "")
        return port("MASTER_PORT", 15000 + int(job[-4:]) if job.isdecimal() else 12910)

    @staticmethod
    def resolve_root_node_address(nodes: str) -> str:
        """The first machine of SLURM's list of them, such as ``"gpu[03-05,09],login1"``."""
        nodes = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", nodes)
        return re.split(r"[\s,]", nodes.strip(), maxsplit=1)[0]

    def world_size(self) -> int:
        return whole("SLURM_NTASKS", least=1)

    def set_world_size(self, size: int) -> None:
        pass  # SLURM knows

    def global_rank(self) -> int:
        return rank_of("SLURM_PROCID", "SLURM_NTASKS", self.world_size())

    def set_global_rank(self, rank: int) -> None:
        pass  # SLURM knows

    def local_rank(self) -> int:
        return whole("SLURM_LOCALID")

    def node_rank(self) -> int:
        return whole("SLURM_NODEID")

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check that SLURM was asked for as many processes as the Trainer.

        Raises:
            MisconfigurationException: it was not, or the program was not started by ``srun``.
        """
        tasks = self.world_size()
        if not self.was_started_by_srun() and tasks > 1:
            raise MisconfigurationException(
                f"the job has SLURM_NTASKS={tasks} tasks, but the program was started without `srun`, so there is one "
                "process. Write `srun python ...` in the job's script."
            )
        if tasks != num_devices * num_nodes:
            how = "write the numbers to match"
            raise MisconfigurationException(
                f"SLURM runs {tasks} tasks (SLURM_NTASKS), and the Trainer was asked for `devices={num_devices}` on "
                f"`num_nodes={num_nodes}`: {how}, `#SBATCH --nodes={num_nodes} --ntasks-per-node={num_devices}`."
            )
        nodes = whole("SLURM_NNODES", num_nodes, 1)
        if nodes != num_nodes:
            raise MisconfigurationException(
                f"SLURM runs the job on {nodes} machines (SLURM_NNODES), and the Trainer was asked for "
                f"`num_nodes={num_nodes}`. Write `num_nodes={nodes}`, or `#SBATCH --nodes={num_nodes}`."
            )
        if num_nodes > 1 and "SLURM_NTASKS_PER_NODE" in os.environ:
            each = whole("SLURM_NTASKS_PER_NODE", least=1)
            if each != num_devices:
                raise MisconfigurationException(
                    f"SLURM runs {each} tasks per machine (SLURM_NTASKS_PER_NODE), and the Trainer was asked for "
                    f"`devices={num_devices}`. Write `devices={each}`, or `#SBATCH --ntasks-per-node={num_devices}`."
                )

    @staticmethod
    def was_started_by_srun() -> bool:
        """Whether this process is a task of a job step; else it is the job's script, or was started by it."""
        return "SLURM_STEP_ID" in os.environ or "SLURM_STEPID" in os.environ

    @staticmethod
    def job_name() -> str | None:
        """The name of the job; None outside of SLURM."""
        return os.environ.get("SLURM_JOB_NAME")

    @staticmethod
    def job_id() -> int | None:
        """The number of the job; None outside of SLURM and in somebody's shell."""
        number = os.environ.get("SLURM_JOB_ID", "")
        return int(number) if number.isdigit() and SLURMEnvironment.detect() else None

    @property
    def is_restart(self) -> bool:
        """SLURM has started the job again, after a requeue of ours or its own."""
        count = os.environ.get("SLURM_RESTART_COUNT", "")
        return self.auto_requeue and count.isdigit() and int(count) > 0

    def requeue(self, number: signal.Signals) -> int:
        """Put the job back into the queue by ``scontrol``, once per job.

        Returns:
            128 + the number of the signal, as if it had ended the process. SLURM ends the job that it takes back, so
            nobody looks at it.

        Raises:
            RuntimeError: ``scontrol`` is not there, or failed.
        """
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return 128 + number  # the first task speaks for all
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array is not None and task is not None else os.environ.get("SLURM_JOB_ID", "")
        command = ["scontrol", "requeue", job]
        try:
            # in a session of its own: the signals that the requeue sends to the job must not end it half-way
            done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=120)
            why = "" if done.returncode == 0 else f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()}"
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            raise RuntimeError(
                f"the job could not be put back into the queue: `{' '.join(command)}` failed ({why}). "
                "What was saved is safe. Submit the job again, and it goes on from there."
            )
        rank_zero_info("put back into the queue: `%s`", " ".join(command))
        return 128 + number
