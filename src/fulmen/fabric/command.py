"""``fulmen run``: a script with Fabric, in as many processes as the command line says."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fulmen.fabric.arguments import STARTED

_OPTIONS = ("accelerator", "strategy", "devices", "num_nodes", "precision")


def add_program_parser(commands: Any) -> None:
    """Add ``run`` to the subparsers ``commands``."""
    parser = commands.add_parser(
        "run",
        help="run a script with Fabric in as many processes as devices are asked for",
        description="Start a script once for each device, by torchrun, and give its Fabric the options that follow. "
        "Everything after the script is the script's own. `fabric.launch()` may stand in it, and need not.",
    )
    parser.add_argument("--accelerator", metavar="NAME", help="the kind of device: cpu, gpu, cuda, mps (default: auto)")
    parser.add_argument("--strategy", metavar="NAME", help="ddp, fsdp and so on (default: auto)")
    parser.add_argument("--devices", default="1", metavar="N", help="of each machine: 2, -1 (all), 0,3 (default: 1)")
    parser.add_argument("--num-nodes", "--num_nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    parser.add_argument("--node-rank", "--node_rank", type=int, default=0, metavar="K", help="which one this is (0)")
    parser.add_argument("--main-address", "--main_address", metavar="HOST", help="the first machine")
    parser.add_argument("--main-port", "--main_port", type=int, metavar="PORT", help="where they meet (a free one)")
    parser.add_argument("--precision", metavar="NAME", help="32-true, bf16-mixed and so on (default: the script's)")
    parser.add_argument("script", help="the program, a file of Python")
    parser.add_argument("script_args", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace, script_args: list[str] | None = None) -> None:
    """Run ``args.script`` as ``fulmen run`` does.

    Args:
        args: the options of ``fulmen run`` by name.
        script_args: those of the script. None: ``args.script_args``.

    Raises:
        SystemExit: an option has no such value; or the script failed, with its exit code.
    """
    given = vars(args)
    words = script_args if script_args is not None else given.get("script_args") or []
    try:
        processes = _processes(given.get("accelerator") or "auto", given.get("devices") or "1")
    except Exception as error:
        raise SystemExit(f"fulmen run: {error}") from error
    if not os.path.isfile(args.script):
        raise SystemExit(f"fulmen run: there is no file {args.script!r}")
    nodes = given.get("num_nodes") or 1
    if nodes > 1 and (given.get("main_address") is None or given.get("main_port") is None):
        raise SystemExit("fulmen run: several machines need --main-address and --main-port, the same on all")
    os.environ[STARTED] = "1"
    for name in _OPTIONS:
        value = given.get(name)
        if value is not None and not (name == "num_nodes" and value == 1):
            os.environ[f"LT_{name.upper()}"] = str(value)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    from torch.distributed.run import get_args_parser, run

    where = [f"--nnodes={nodes}", f"--node-rank={given.get('node_rank') or 0}", f"--nproc-per-node={processes}"]
    if nodes == 1 and given.get("main_port") is None:
        where.append("--standalone")
    else:
        where += [f"--master-addr={given.get('main_address') or '127.0.0.1'}", f"--master-port={given['main_port']}"]
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run(get_args_parser().parse_args([*where, args.script, *words]))
    except ChildFailedError as error:  # the script has said why
        _, failure = error.get_first_failure()
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None


def _processes(accelerator: str, devices: str) -> int:
    from fulmen.trainer.hardware import accelerator as kind_of
    from fulmen.trainer.hardware import device_indices

    return len(device_indices(devices, kind_of(accelerator)))
