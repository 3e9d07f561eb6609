"""Jobs of the SLURM scheduler."""

from __future__ import annotations

import os
import signal
import subprocess

from fulmen.plugins.environments.requeue import Requeue, checked_signal
from fulmen.utilities.rank_zero import rank_zero_info


class SLURMEnvironment(Requeue):
    """A job of SLURM. Used by itself where :meth:`detect` finds one.

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
