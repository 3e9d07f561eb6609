"""``fulmen checkpoint convert``."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from fulmen.checkpoints.command import CannotDo
from fulmen.checkpoints.conversion import Conversion, Note
from fulmen.checkpoints.output import printable, size_in_words, warn
from fulmen.checkpoints.reading import refuse_to_overwrite, warning_of
from fulmen.checkpoints.restricted import Damaged, opened
from fulmen.core.plain import LEFT_OUT
from fulmen.plugins.io.torch_plugin import write_whole
from fulmen.trainer.old_layouts import FORMAT_VERSION, migrate
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.durable import beside, sync_folder


def convert(source: str, target: str | None = None, force: bool = False) -> int:
    """Write the checkpoint ``source`` as plain data, and tell what was not plain.

    Args:
        target: the file to write; None: ``source`` with ``.plain`` before its suffix.
        force: write over ``target`` if it is there.

    Returns:
        The exit code 0.

    Raises:
        CannotDo: there is no such file, it is no checkpoint, or ``target`` is there.
    """
    local = path_if_local(source)
    if local is None:
        raise CannotDo(f"{source} is not on this machine; copy it here first")
    if local.is_dir():
        raise CannotDo(f"{source} is a folder; give the file of a checkpoint")
    if not local.exists():
        raise CannotDo(f"there is no file {source}")
    out = Path(target) if target is not None else local.with_name(f"{local.stem}.plain{local.suffix}")
    refuse_to_overwrite(source, str(out), force)
    try:
        with opened(local) as contents:
            walk = Conversion(contents)
            checkpoint, code, was_plain = walk.checkpoint(), contents.ways_to_run_code, contents.is_plain
    except Damaged as error:
        raise CannotDo(f"{source} {error}") from None
    written_by = migrate(checkpoint)
    _write(checkpoint, out)
    kept = [note for note in walk.notes if note.outcome is not None]
    left_out = [note for note in walk.notes if note.outcome is None]
    _tell("kept in a plain form", kept)
    _tell("left out", left_out)
    if written_by is not None:
        print(f"brought from the layout of Lightning {written_by} into that of {FORMAT_VERSION}")
    if was_plain and not walk.notes and written_by is None:
        warn(f"{source} is plain data already, and needs no conversion: {out} holds the same")
    elif not walk.notes and written_by is None:
        print("nothing was lost: all of it has a plain form")
    given = [name for name, kind in checkpoint.get("hparams_kinds", {}).items() if kind == LEFT_OUT]
    if given and left_out:
        arguments = ", ".join(f"{printable(name)}=..." for name in given)
        print(f"pass what was left out when you load it: `Model.load_from_checkpoint({str(out)!r}, {arguments})`")
    if code:
        warn(f"{source} {warning_of(code)}; {out} is written without that")
    print(f"written to {out} ({size_in_words(out.stat().st_size)})")
    return 0


def _write(checkpoint: dict[str, Any], out: Path) -> None:
    """Write ``out`` once it is certain that the strict reader takes what was written."""
    part = out.with_name(beside(out.name))
    try:
        write_whole(part, lambda file: torch.save(checkpoint, file))
        torch.load(part, map_location="cpu", weights_only=True, mmap=True)
        os.replace(part, out)
    except pickle.UnpicklingError as error:
        raise CannotDo(f"a value could not be made plain: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    sync_folder(out.parent)


def _tell(heading: str, notes: list[Note]) -> None:
    if not notes:
        return
    print(f"{heading}:")
    for note in notes:
        outcome = "" if note.outcome is None else f", as {note.outcome}"
        print(f"  {printable(note.place)}: {printable(note.what)}{printable(outcome)}")
