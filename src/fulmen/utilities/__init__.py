"""Tools that need nothing but torch and the standard library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.utilities.apply_func import move_data_to_device as move_data_to_device
    from fulmen.utilities.combined_loader import CombinedLoader as CombinedLoader
    from fulmen.utilities.data import suggested_max_num_workers as suggested_max_num_workers
    from fulmen.utilities.distributed import is_shared_filesystem as is_shared_filesystem
    from fulmen.utilities.enums import GradClipAlgorithmType as GradClipAlgorithmType
    from fulmen.utilities.enums import LightningEnum as LightningEnum
    from fulmen.utilities.epsilon import FLOAT16_EPSILON as FLOAT16_EPSILON
    from fulmen.utilities.epsilon import FLOAT32_EPSILON as FLOAT32_EPSILON
    from fulmen.utilities.epsilon import FLOAT64_EPSILON as FLOAT64_EPSILON
    from fulmen.utilities.grads import grad_norm as grad_norm
    from fulmen.utilities.parameter_tying import find_shared_parameters as find_shared_parameters
    from fulmen.utilities.parameter_tying import set_shared_parameters as set_shared_parameters
    from fulmen.utilities.parsing import AttributeDict as AttributeDict
    from fulmen.utilities.parsing import is_picklable as is_picklable
    from fulmen.utilities.rank_zero import rank_zero_debug as rank_zero_debug
    from fulmen.utilities.rank_zero import rank_zero_deprecation as rank_zero_deprecation
    from fulmen.utilities.rank_zero import rank_zero_info as rank_zero_info
    from fulmen.utilities.rank_zero import rank_zero_only as rank_zero_only
    from fulmen.utilities.rank_zero import rank_zero_warn as rank_zero_warn
    from fulmen.utilities.throughput import Throughput as Throughput
    from fulmen.utilities.throughput import ThroughputMonitor as ThroughputMonitor
    from fulmen.utilities.throughput import measure_flops as measure_flops
    from fulmen.utilities.warnings import disable_possible_user_warnings as disable_possible_user_warnings

__all__ = [
    "FLOAT16_EPSILON",
    "FLOAT32_EPSILON",
    "FLOAT64_EPSILON",
    "AttributeDict",
    "CombinedLoader",
    "GradClipAlgorithmType",
    "LightningEnum",
    "Throughput",
    "ThroughputMonitor",
    "disable_possible_user_warnings",
    "find_shared_parameters",
    "grad_norm",
    "is_picklable",
    "is_shared_filesystem",
    "measure_flops",
    "move_data_to_device",
    "rank_zero_debug",
    "rank_zero_deprecation",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
    "set_shared_parameters",
    "suggested_max_num_workers",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "FLOAT16_EPSILON": "epsilon",
        "FLOAT32_EPSILON": "epsilon",
        "FLOAT64_EPSILON": "epsilon",
        "AttributeDict": "parsing",
        "CombinedLoader": "combined_loader",
        "GradClipAlgorithmType": "enums",
        "LightningEnum": "enums",
        "Throughput": "throughput",
        "ThroughputMonitor": "throughput",
        "disable_possible_user_warnings": "warnings",
        "find_shared_parameters": "parameter_tying",
        "grad_norm": "grads",
        "is_picklable": "parsing",
        "is_shared_filesystem": "distributed",
        "measure_flops": "throughput",
        "move_data_to_device": "apply_func",
        "rank_zero_debug": "rank_zero",
        "rank_zero_deprecation": "rank_zero",
        "rank_zero_info": "rank_zero",
        "rank_zero_only": "rank_zero",
        "rank_zero_warn": "rank_zero",
        "set_shared_parameters": "parameter_tying",
        "suggested_max_num_workers": "data",
    },
)
