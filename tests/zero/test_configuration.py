"""What DeepSpeed is told, and what is said where it is not installed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fulmen import Trainer
from fulmen.plugins.precision import DeepSpeedPrecision
from fulmen.strategies import StrategyRegistry
from fulmen.strategies.deepspeed_config import SCALER, filled_in, from_arguments, given
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

SCALE = dict(zip(SCALER, (0, 16, 1000, 2, 1)))


def told(config: dict[str, Any], loader: Any = None, precision: str = "32-true", **arguments: Any) -> dict[str, Any]:
    trainer: Any = Trainer(accelerator="cpu", devices=1, logger=False, max_epochs=1, **arguments)
    fields = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
    seen = SimpleNamespace(
        **{name: getattr(trainer, name) for name in fields},
        data=SimpleNamespace(given={"train": loader}),
        precision_plugin=DeepSpeedPrecision(precision),
    )
    return filled_in(config, seen, SCALE, "auto")  # type: ignore[arg-type]


def test_configuration_without_a_word_of_the_users_is_filled_in_as_the_trainer_was_told():
    full = told({}, SimpleNamespace(batch_size=6), "16-mixed", gradient_clip_val=0.5, accumulate_grad_batches=3)
    assert full == {
        "gradient_clipping": 0.5,
        "train_micro_batch_size_per_gpu": 6,
        "gradient_accumulation_steps": 3,
        "fp16": {"enabled": True, **SCALE},
    }


def test_configuration_of_the_users_is_kept_where_it_speaks():
    own = {"gradient_clipping": 2.0, "train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": True, "more": 1}}
    full = told(own, SimpleNamespace(batch_size=6), "bf16-mixed", gradient_clip_val=0.5)
    assert full == {**own, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize("name", ["gradient_accumulation_steps", "optimizer", "scheduler"])
def test_configuration_that_says_what_the_trainer_says_is_an_error(name):
    with pytest.raises(MisconfigurationException, match=f"configuration has '{name}'. Leave it out"):
        given({name: 2})


def test_clipping_by_value_is_an_error():
    with pytest.raises(MisconfigurationException, match="clips gradients by their norm"):
        told({}, gradient_clip_val=0.5, gradient_clip_algorithm="value")


def test_configuration_in_a_file_is_read(tmp_path):
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert given(tmp_path / "zero.json") == {"zero_optimization": {"stage": 3}}


def test_file_that_is_no_configuration_is_named(tmp_path):
    (tmp_path / "zero.json").write_text("{")
    with pytest.raises(MisconfigurationException, match=r"zero\.json'"):
        given(tmp_path / "zero.json")
    with pytest.raises(MisconfigurationException, match="is 3"):
        given(3)


def test_names_of_strategies_are_stages_and_what_is_offloaded():
    names = [name for name in StrategyRegistry if name.startswith("deepspeed")]
    offloads = ("_stage_2_offload", "_stage_3", "_stage_3_offload", "_stage_3_offload_nvme")
    assert names == ["deepspeed", *(f"deepspeed{one}" for one in ("_stage_1", "_stage_2", *offloads))]


@pytest.mark.skipif(package_available("deepspeed"), reason="it is about where deepspeed is not installed")
def test_strategy_without_deepspeed_says_how_to_install_it():
    with pytest.raises(ModuleNotFoundError, match="pip install 'deepspeed'"):
        Trainer(strategy="deepspeed_stage_3", accelerator="cpu", devices=2)


def test_precision_of_64_bits_is_an_error():
    with pytest.raises(ValueError, match="DeepSpeed knows no `precision='64-true'`"):
        DeepSpeedPrecision("64-true")


def test_offloading_is_part_of_what_is_spread():
    values = dict.fromkeys(
        "zero_allow_untested_optimizer partition_activations cpu_checkpointing contiguous_memory_optimization "
        "synchronize_checkpoint_boundary block_size queue_depth single_submit overlap_events thread_count "
        "contiguous_gradients overlap_comm allgather_partitions reduce_scatter allgather_bucket_size "
        "reduce_bucket_size sub_group_size".split(),
        1,
    )
    values |= {"zero_optimization": True, "stage": 3, "nvme_path": "/disk", "pin_memory": False}
    values |= {"offload_optimizer": True, "offload_optimizer_device": "nvme", "optimizer_buffer_count": 4}
    values |= {"offload_parameters": False}
    zero = from_arguments(values)["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_optimizer"] == {"device": "nvme", "buffer_count": 4, "nvme_path": "/disk", "pin_memory": False}
    assert "offload_param" not in zero
