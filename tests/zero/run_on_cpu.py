"""Run the DeepSpeed strategy for real, without a GPU: in an environment of its own, on the CPU.

    python tests/zero/run_on_cpu.py [FOLDER]

The environment is made in FOLDER (about two minutes) unless it is there: over the packages of this one, with
``deepspeed`` beside them. At the first start DeepSpeed compiles a part of itself, for which it needs a C++ compiler.
Without FOLDER it is ``$FULMEN_DEEPSPEED_ENVIRONMENT``, or ``~/.cache/fulmen/deepspeed``.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

from fulmen.plugins.environments.lightning import find_free_network_port

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("deepspeed==0.19.8", "ninja")


def environment() -> Path:
    """Where the environment is looked for."""
    return Path(os.environ.get("FULMEN_DEEPSPEED_ENVIRONMENT") or Path.home() / ".cache" / "fulmen" / "deepspeed")


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def make(folder: Path) -> None:
    """Make the environment, if it is not there."""
    if python_of(folder).exists():
        return
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    own = subprocess.run(
        [python_of(folder), "-c", "import site; print(site.getsitepackages()[0])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(own, "packages_below.pth").write_text("\n".join(site.getsitepackages()))
    variables = {**os.environ, "DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu"}
    subprocess.run([python_of(folder), "-m", "pip", "install", "--quiet", *PACKAGES], check=True, env=variables)


def train(folder: Path, directory: Path, processes: int, *cases: str) -> subprocess.CompletedProcess[str]:
    """Train on the CPU, with files in ``directory``; all cases of ``train.py``, or these."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port"]
    started_by = [*torchrun, str(find_free_network_port())] if processes > 1 else []
    return subprocess.run(
        [python_of(folder), *started_by, Path(__file__).with_name("train.py"), directory, *cases],
        env={
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}",
            "TORCH_EXTENSIONS_DIR": str(folder / "compiled"),
        },
        capture_output=True,
        text=True,
    )


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else environment()
    make(folder)
    done = train(folder, folder / "run", 2)
    print(done.stdout, done.stderr, sep="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
