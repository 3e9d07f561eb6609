"""Every module can be imported by itself, and importing Fulmen costs little more than importing torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from .source import module_names

LIBRARIES_FOR_LATER = (
    "rich",
    "tqdm",
    "matplotlib",
    "tensorboard",
    "torchmetrics",
    "onnx",
    "jsonargparse",
    "psutil",
    "pandas",
)
MOST_MODULES_BEYOND_TORCH = 150

#: A fresh process per module would import torch a hundred times; a fork after that import is just as fresh.
IMPORT_EACH_ALONE = """
import importlib, json, os, sys, traceback
import torch, torch.distributed, torch.utils.data

def failure_of(name):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            importlib.import_module(name)
        except BaseException:
            os.write(writing, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text

names = json.loads(sys.argv[1])
print(json.dumps({name: text for name in names if (text := failure_of(name))}))
"""

COUNT_MODULES = """
import json, sys
import torch
before = set(sys.modules)
exec(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def run_python(code: str, argument: str) -> Any:
    """What ``code``, run in a new process with one argument, printed as JSON."""
    process = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def modules_loaded_by(statement: str) -> list[str]:
    """The modules that a statement loads in a process that has imported torch."""
    return run_python(COUNT_MODULES, statement)


def test_every_module_imports_alone() -> None:
    failures = run_python(IMPORT_EACH_ALONE, json.dumps(sorted(module_names())))
    assert not failures, "\n\n".join(f"{name}:\n{text}" for name, text in failures.items())


def test_import_of_fulmen_loads_next_to_nothing() -> None:
    loaded = modules_loaded_by("import fulmen")
    assert [name for name in loaded if name.startswith("fulmen.")] == []
    assert len(loaded) < 10, loaded


def test_import_of_the_trainer_loads_few_modules_and_no_library_for_later() -> None:
    loaded = modules_loaded_by(
        "from fulmen import Callback, LightningDataModule, LightningModule, Trainer, seed_everything"
    )
    assert not [name for name in loaded if name.partition(".")[0] in LIBRARIES_FOR_LATER]
    assert len(loaded) < MOST_MODULES_BEYOND_TORCH, loaded


def test_help_of_the_command_does_not_import_torch() -> None:
    code = """
import json, sys
from fulmen.__main__ import make_parser
make_parser().format_help()
print(json.dumps("torch" in sys.modules))
"""
    assert run_python(code, "") is False
