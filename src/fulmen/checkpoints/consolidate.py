"""``fulmen checkpoint consolidate`` and ``fulmen checkpoint shard``."""

from __future__ import annotations

from pathlib import Path

from fulmen.checkpoints.command import CannotDo
from fulmen.checkpoints.output import size_in_words
from fulmen.checkpoints.reading import load, refuse_to_overwrite
from fulmen.plugins.io.digest import digest_of
from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO, is_sharded
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO


def consolidate(source: str, target: str | None = None, force: bool = False) -> int:
    """Write the folder of shards ``source`` as the one file that one process would have written.

    Args:
        target: the file to write; None: ``source`` with ``.consolidated`` at its end.
        force: write over ``target`` if it is there.

    Returns:
        The exit code 0.

    Raises:
        CannotDo: ``source`` is no folder of shards, or ``target`` is there.
    """
    if not Path(source).exists():
        raise CannotDo(f"there is no folder {source}")
    if not is_sharded(source):
        raise CannotDo(f"{source} is no folder of shards: it has no `.metadata` and `meta.pt`")
    out = f"{source.rstrip('/')}.consolidated" if target is None else target
    refuse_to_overwrite(source, out, force)
    checkpoint = load(source)
    TorchCheckpointIO().save_checkpoint(checkpoint, out)
    print(f"written to {out} ({size_in_words(digest_of(out).size)})")
    return 0


def shard(source: str, target: str, force: bool = False) -> int:
    """Write the checkpoint ``source`` as a folder of shards, which many processes read faster.

    Args:
        force: write over ``target`` if it is there.

    Returns:
        The exit code 0.

    Raises:
        CannotDo: ``source`` is no file of a checkpoint, or ``target`` is there.
    """
    if is_sharded(source):
        raise CannotDo(f"{source} is a folder of shards already")
    if Path(target).exists():
        if Path(target).samefile(source):
            raise CannotDo(f"{target} is the file to read; give another name for the folder to write")
        if not force:
            raise CannotDo(f"{target} is there already; give another name, or `--force` to write over it")
        if not is_sharded(target):
            raise CannotDo(f"{target} is there, and is no folder of shards; give another name")
    checkpoint = load(source)
    DistributedCheckpointIO().save_checkpoint(checkpoint, target)
    print(f"written to {target} ({size_in_words(digest_of(target).size)})")
    return 0
