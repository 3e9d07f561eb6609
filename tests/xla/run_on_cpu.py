"""Run Fulmen's XLA path for real, without a TPU: in an environment of its own, on the CPU that PJRT drives.

    python tests/xla/run_on_cpu.py [FOLDER]

The environment is made in FOLDER (about 6 GB, a few minutes) unless it is there: ``torch_xla`` comes built for one
version of torch, so that it cannot live beside another. Without FOLDER it is ``$FULMEN_XLA_ENVIRONMENT``, or
``~/.cache/fulmen/xla``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("torch_xla==2.9.0", "torch==2.9.0", "numpy", "fsspec", "PyYAML", "rich", "matplotlib")


def environment() -> Path:
    """Where the environment is looked for."""
    return Path(os.environ.get("FULMEN_XLA_ENVIRONMENT") or Path.home() / ".cache" / "fulmen" / "xla")


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def make(folder: Path) -> None:
    """Make the environment, if it is not there."""
    if python_of(folder).exists():
        return
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python_of(folder), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)


def train(folder: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Train on PJRT's CPU, with files in ``directory``."""
    return subprocess.run(
        [python_of(folder), Path(__file__).with_name("train.py"), directory],
        env={
            **os.environ,
            "PJRT_DEVICE": "CPU",
            "CPU_NUM_DEVICES": "2",
            "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}",
        },
        capture_output=True,
        text=True,
    )


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else environment()
    make(folder)
    done = train(folder, folder / "run")
    print(done.stdout, done.stderr, sep="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
