"""Make one file, which needs no DeepSpeed, of a checkpoint that DeepSpeed wrote as a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.imports import require
from fulmen.utilities.torch_files import load

#: what DeepSpeed itself puts into the file that holds the state of a run
_OF_DEEPSPEED = frozenset(
    """
    buffer_names csr_tensor_module_names data_sampler dp_world_size ds_config ds_version frozen_param_fragments
    frozen_param_shapes global_samples global_steps lr_scheduler module mp_world_size optimizer optimizer_states
    param_shapes random_ltd shared_params skipped_steps sparse_tensor_module_names
    """.split()
)


def convert_zero_checkpoint_to_fp32_state_dict(
    checkpoint_dir: str | os.PathLike[str], output_file: str | os.PathLike[str], tag: str | None = None
) -> dict[str, Any]:
    """Write the whole weights of a checkpoint of any ZeRO stage into one file, in 32 bits, with the hyperparameters and
    the state of callbacks. ``Model.load_from_checkpoint(output_file)`` reads it; training cannot go on from it.

    DeepSpeed reads its parts with pickle, so the folder must come from somebody you trust.

    Args:
        checkpoint_dir: the folder, in which the file ``latest`` lies.
        output_file: where to write.
        tag: the folder within it to take. None: the one that ``latest`` names.

    Returns:
        What was written.

    Raises:
        ModuleNotFoundError: DeepSpeed is not installed.
        FileNotFoundError: there is no such checkpoint.
    """
    require("deepspeed", "convert_zero_checkpoint_to_fp32_state_dict")
    from deepspeed.utils.zero_to_fp32 import (  # type: ignore[import-not-found]
        get_fp32_state_dict_from_zero_checkpoint,
    )

    folder = Path(checkpoint_dir)
    if tag is None:
        tag = (folder / "latest").read_text().strip()
    parts = sorted((folder / tag).glob("*mp_rank_00_model_states.pt"))
    if not parts:
        raise FileNotFoundError(f"{folder / tag} holds no state of a model that DeepSpeed wrote.")
    weights = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag)
    with parts[0].open("rb") as file:
        state = load(file, file.name, "cpu", weights_only=False)
    kept = {name: value for name, value in state.items() if name not in _OF_DEEPSPEED}
    checkpoint = {**kept, "state_dict": {name: tensor.clone() for name, tensor in weights.items()}}
    TorchCheckpointIO().save_checkpoint(checkpoint, output_file)
    return checkpoint
