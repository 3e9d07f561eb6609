"""Run a function in several real processes, as those of one job."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fulmen.plugins.environments.lightning import find_free_network_port

#: imported once, by the server that the processes are forked from
PRELOADED = [
    "torch",
    "torch.distributed",
    "torch._dynamo",
    "fulmen",
    "fulmen.trainer.trainer",
    "tests.distributed.processes",
]


class Failed(AssertionError):
    """A process failed or hung. ``outputs`` has what each wrote, by rank."""

    def __init__(self, message: str, outputs: list[str], codes: list[int | None]) -> None:
        super().__init__(message)
        self.outputs, self.codes = outputs, codes


def run(
    world: int,
    function: Callable[..., Any],
    *args: Any,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Any = None,
) -> list[Any]:
    """Call ``function(*args)`` in ``world`` processes, which are a job of the Trainer's: ``Trainer(accelerator="cpu",
    devices=world, strategy=...)``.

    Args:
        function: of a module, so that it can be found there; it may ask for its rank by ``LOCAL_RANK``.
        timeout: seconds for all together.
        env: further variables.
        cwd: the working directory.

    Returns:
        What each returned, by rank.

    Raises:
        Failed: one of them failed, or the time was over.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    where = inspect.getsourcefile(function) or ""
    port = find_free_network_port()
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(world):
            Path(folder, f"{rank}.txt").touch()
        started = []
        for rank in range(world):
            variables = {
                "LOCAL_RANK": str(rank),
                "NODE_RANK": "0",
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                **(env or {}),
            }
            process = context.Process(
                target=_process,
                args=(folder, rank, variables, str(cwd or os.getcwd()), where, function.__qualname__, args, timeout),
            )
            process.start()
            started.append(process)
        deadline = time.monotonic() + timeout
        for process in started:
            process.join(max(0.0, deadline - time.monotonic()))
        hung = [rank for rank, process in enumerate(started) if process.is_alive()]
        for process in started:
            if process.is_alive():
                process.kill()
            process.join()
        outputs = [Path(folder, f"{rank}.txt").read_text() for rank in range(world)]
        codes = [process.exitcode for process in started]
        if hung or any(codes):
            what = f"ranks {hung} did not end in {timeout:g} s" if hung else f"exit codes {codes}"
            shown = "\n".join(f"--- rank {rank}\n{output}" for rank, output in enumerate(outputs))
            raise Failed(f"{what}\n{shown}", outputs, codes)
        return [pickle.loads(Path(folder, f"{rank}.pkl").read_bytes()) for rank in range(world)]


def _process(
    folder: str, rank: int, env: dict[str, str], cwd: str, where: str, name: str, args: Any, timeout: float
) -> None:
    output = os.open(Path(folder, f"{rank}.txt"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.dump_traceback_later(max(1.0, timeout - 2))  # where it hangs
    os.environ.update(env)
    os.chdir(cwd)
    import torch

    from fulmen.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # as a process that is started anew finds it
    code = 0
    try:
        result = getattr(_module(where), name)(*args)
        Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(result))
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    faulthandler.cancel_dump_traceback_later()
    with contextlib.suppress(Exception):
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(code)


def _module(file: str) -> Any:
    """A module by its file, since a test module's name means nothing to another process."""
    name = f"in_process_{Path(file).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
