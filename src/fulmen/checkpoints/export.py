"""``fulmen checkpoint export``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fulmen.checkpoints.command import CannotDo
from fulmen.checkpoints.output import as_json, size_in_words
from fulmen.checkpoints.reading import load, refuse_to_overwrite
from fulmen.checkpoints.show import contents
from fulmen.plugins.io.torch_plugin import write_whole

#: what the names of files of safetensors end in
SUFFIX = ".safetensors"


def export(source: str, target: str, prefix: str = "", force: bool = False) -> int:
    """Write the weights of a checkpoint to a safetensors file.

    Args:
        prefix: only weights whose names begin with this, without it.
        force: write over ``target`` if it is there.

    Returns:
        The exit code 0.

    Raises:
        CannotDo: the library is not installed, the checkpoint cannot be read, or ``target`` is there or
            has another suffix.
    """
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise CannotDo("this needs the library safetensors: `pip install 'fulmen[safetensors]'`") from None
    if Path(target).suffix.lower() != SUFFIX:
        raise CannotDo(
            f"{target} does not end in {SUFFIX}, by which programs know the format; write "
            f"{shlex.quote(str(Path(target).with_suffix(SUFFIX)))}"
        )
    refuse_to_overwrite(source, target, force)
    checkpoint = load(source)
    named = {name: value for name, value in checkpoint["state_dict"].items() if str(name).startswith(prefix)}
    if not named:
        raise CannotDo(
            f"no weight in {source} has a name that begins with {prefix!r}; the names begin with "
            f"{', '.join(sorted({str(name).partition('.')[0] + '.' for name in checkpoint['state_dict']})[:8])}"
            if prefix
            else f"{source} has no weights"
        )
    weights = {name.removeprefix(prefix): value for name, value in named.items() if isinstance(value, Tensor)}
    tensors, aliases = without_aliases(weights)
    metadata = _metadata(source, checkpoint, aliases)
    try:
        data = save(tensors, metadata)
    except (ValueError, KeyError, RuntimeError) as error:  # sparse tensors, types that the format does not have
        raise CannotDo(f"safetensors cannot hold a weight of {source}: {error}") from None
    write_whole(target, lambda file: _write(file, data))
    left_out = [name for name, value in named.items() if not isinstance(value, Tensor)]
    if left_out:
        print(f"left out, since they are no tensors: {', '.join(left_out)}")
    if len(named) < len(checkpoint["state_dict"]):
        print(f"left out {len(checkpoint['state_dict']) - len(named)} whose names do not begin with {prefix!r}")
    for alias, name in aliases.items():
        print(f"{alias} is the same tensor as {name}: written once, and named in the metadata `aliases`")
    size = size_in_words(Path(target).stat().st_size)
    print(f"{len(tensors)} {'tensor' if len(tensors) == 1 else 'tensors'} written to {target} ({size})")
    return 0


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def without_aliases(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no data, each contiguous, and the names of those left out, with the name of their equal.

    Of tensors that are the same view of the same data the first is kept; other views get data of their own.
    """
    first: dict[Any, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in weights.items():
        value = value.detach()
        if value.layout != torch.strided:
            tensors[name] = value  # the writer says what it cannot hold
            continue
        data = value.untyped_storage().data_ptr()
        view = (data, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype)
        if data and value.numel() and first.setdefault(view, name) != name:
            aliases[name] = first[view]
            continue
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        tensors[name] = value if whole and value.is_contiguous() else value.contiguous().clone()
    return tensors, aliases


def _metadata(source: str, checkpoint: dict[str, Any], aliases: dict[str, str]) -> dict[str, str]:
    content = contents(source, checkpoint)
    metadata = {"format": "pt", "written_by": content["written_by"]}
    for name in ("epoch", "step"):
        if content[name] is not None:
            metadata[name] = str(content[name])
    for name, values in (("hyper_parameters", content["hyperparameters"]), ("aliases", aliases)):
        if values:
            metadata[name] = json.dumps(as_json(values), ensure_ascii=False)
    return metadata
