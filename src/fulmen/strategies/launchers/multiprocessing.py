"""Runs a fit in new processes and brings back what it made, for notebooks and for programs that must run once."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.strategies.launchers.launcher import Launcher
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.strategies.launchers.launcher import Launched

_SECONDS_TO_END = 10.0  # that the others have when one has failed
_CTRL_C = "ctrl-c"  # a file that says that it came to the process that waits


class MultiProcessingLauncher(Launcher):
    """Runs each verb of the Trainer in new processes, and brings back the weights, the metrics, the state of callbacks
    and loops, and what the verb returned. What stands before ``fit`` in the program runs once.

    Args:
        cluster_environment: where the processes meet.
        num_processes: how many this machine has.
        num_nodes: how many machines there are.
        start_method: ``"spawn"`` or ``"forkserver"``: each process is a new interpreter that gets the Trainer and its
            arguments by cloudpickle, so no ``if __name__ == "__main__":`` is needed, and classes may be those of a
            notebook. ``"fork"``: each is a copy of this process, which must not have used CUDA, nor gone backward.
    """

    spawns = True
    is_interactive_compatible = True

    def __init__(
        self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int, start_method: str = "spawn"
    ) -> None:
        self.cluster_environment = cluster_environment
        self.num_processes, self.num_nodes, self.start_method = num_processes, num_nodes, start_method
        self._processes: list[Any] = []

    def run(self, owner: Launched, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function(*args)`` on all ranks of this machine.

        Raises:
            Exception: that of the process that failed first.
            MisconfigurationException: this process cannot be copied, or its objects cannot be sent.
        """
        environment = self.cluster_environment
        environment.validate_settings(self.num_processes, self.num_nodes)
        variables = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        with tempfile.TemporaryDirectory(prefix="fulmen-") as folder:
            start = self._fork if self.start_method == "fork" else self._spawn
            start(folder, variables, owner, function, args)
            try:
                self._wait(Path(folder))
            except KeyboardInterrupt:
                self._end_by_ctrl_c(Path(folder))
                sys.exit(1)
            finally:
                self.kill()
            answer = Path(folder, "answer")
            return owner.take_answer(pickle.loads(answer.read_bytes())) if answer.exists() else None

    def _spawn(
        self, folder: str, variables: dict[str, str], owner: Launched, function: Callable[..., Any], args: Any
    ) -> None:
        self.write_work(folder, owner, function, args)
        Path(folder, "path").write_bytes(pickle.dumps(sys.path))
        command = [sys.executable, "-m", "fulmen.strategies.launchers.worker", folder]
        for rank in range(self.num_processes):
            env = {**os.environ, **variables, "LOCAL_RANK": str(rank)}
            # so that this package is found, after what may have to do something when Python starts
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), *sys.path]))
            self._processes.append(subprocess.Popen(command, env=env))

    def write_work(self, folder: str, owner: Launched, function: Callable[..., Any], args: Any) -> None:
        """Leave in ``folder`` what the new processes do.

        Raises:
            MisconfigurationException: it cannot be sent.
        """
        import cloudpickle

        work = Path(folder, "work")
        try:
            work.write_bytes(cloudpickle.dumps((owner, function, args)))
        except Exception as error:
            raise MisconfigurationException(
                f"{type(owner).__name__} and its arguments cannot be sent to new processes: {type(error).__name__}: "
                f"{error}. Make what cannot be sent in `setup` or `train_dataloader`, or write `strategy='ddp'` in "
                "a program."
            ) from error

    def _fork(
        self, folder: str, variables: dict[str, str], owner: Launched, function: Callable[..., Any], args: Any
    ) -> None:
        if torch.cuda.is_initialized():
            raise MisconfigurationException(
                "this process has used CUDA already, so it cannot be copied (`start_method='fork'`). Write "
                "`DDPStrategy(start_method='spawn')` or `strategy='ddp_spawn'`, or use CUDA only in the module."
            )
        context = get_context("fork")
        for rank in range(self.num_processes):
            env = {**variables, "LOCAL_RANK": str(rank)}
            process = context.Process(target=_forked, args=(folder, env, owner, function, args))
            process.start()
            self._processes.append(process)

    def _wait(self, folder: Path) -> None:
        """Wait for all; when one fails, the others have a while to end."""
        while True:
            codes = [_exit_code(process) for process in self._processes]
            if all(code == 0 for code in codes):
                return
            if any(codes):
                break
            time.sleep(0.02)
        deadline = time.monotonic() + _SECONDS_TO_END
        while None in codes and time.monotonic() < deadline:
            codes = [_exit_code(process) for process in self._processes]
            time.sleep(0.02)
        self.kill()
        raise first_error(folder, codes)

    def _end_by_ctrl_c(self, folder: Path) -> None:
        """Let the processes save the run, and end by themselves. Ctrl-C once more kills them."""
        (folder / _CTRL_C).touch()  # a notebook may send it to them, too, or to this process alone
        while any(_exit_code(process) is None for process in self._processes):
            time.sleep(0.02)

    def check(self) -> None:
        pass  # `_wait` looks after them

    def kill(self) -> None:
        for process in self._processes:
            if _exit_code(process) is None:
                process.kill()
            process.wait() if isinstance(process, subprocess.Popen) else process.join()
        self._processes = []


def _exit_code(process: Any) -> int | None:
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode


def first_error(folder: Path, codes: list[int | None]) -> Exception:
    """What the process raised that failed first; those that end because another failed do so by themselves."""
    reports = [pickle.loads(path.read_bytes()) for path in folder.glob("error-*")]
    reports.sort(key=lambda report: (report["ends"], report["time"]))
    if not reports:
        how = [f"rank {rank}: {code}" for rank, code in enumerate(codes) if code]
        return RuntimeError(
            f"the processes ended without an error of their own (exit codes of {', '.join(how)}; -9: killed, perhaps "
            "for want of memory)."
        )
    first = reports[0]
    text = f"\nin the process of local rank {first['rank']}:\n{first['traceback']}"
    error = pickle.loads(first["exception"]) if first["exception"] is not None else RuntimeError(first["summary"])
    if "autograd's threading in combination with fork" in str(error):
        error = MisconfigurationException(
            "this process has gone backward on a device already, so it cannot be copied (`start_method='fork'`): the "
            "threads of autograd stay behind. Write `strategy='ddp_spawn'`, or in a notebook `'ddp_notebook'`, or "
            "call the Trainer first."
        )
    if isinstance(error, SystemExit):
        error = RuntimeError(f"the process of local rank {first['rank']} ended with {error.code!r}")
    error.add_note(text)
    return error


def _forked(folder: str, variables: dict[str, str], owner: Launched, function: Callable[..., Any], args: Any) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)  # the threads of OpenMP were not copied, and whoever waits for them waits for ever
    vars(owner.strategy).update(_launcher=None, _starts_processes=False, store=None)  # as in a copy by pickle
    code = work(folder, lambda: (owner, function, args))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def work(folder: str, read: Callable[[], tuple[Any, Callable[..., Any], Any]]) -> int:
    """What each of the new processes does; returns its exit code."""
    rank = int(os.environ["LOCAL_RANK"])
    threading.Thread(target=_end_with, args=(os.getppid(),), name="fulmen parent", daemon=True).start()
    try:
        owner, function, args = read()
        threading.Thread(target=_hear_of_ctrl_c, args=(folder, owner), name="fulmen ctrl-c", daemon=True).start()
        result = function(*args)
        if owner.is_global_zero:
            Path(folder, "answer").write_bytes(sendable(owner.answer_of(result)))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return 0
    except BaseException as error:
        report = {
            "rank": rank,
            "time": time.time(),
            "ends": isinstance(error, SystemExit),
            "traceback": traceback.format_exc(),
            "summary": f"{type(error).__name__}: {error}",
            "exception": None,
        }
        try:
            data = sendable(error)
            pickle.loads(data)  # some exceptions can be written and not read
            report["exception"] = data
        except Exception:
            pass
        Path(folder, f"error-{rank}").write_bytes(pickle.dumps(report))
        return 1


def _end_with(parent: int) -> None:
    """Whoever has asked for the run is gone, perhaps killed: nobody waits for it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _hear_of_ctrl_c(folder: str, owner: Launched) -> None:
    while not Path(folder, _CTRL_C).exists():
        time.sleep(0.2)
    time.sleep(0.5)  # the signal itself may be on its way
    owner.hear_of_ctrl_c()


def sendable(value: Any) -> bytes:
    """``value`` by cloudpickle, which takes classes and functions of a notebook, too."""
    import cloudpickle

    return cloudpickle.dumps(value)
