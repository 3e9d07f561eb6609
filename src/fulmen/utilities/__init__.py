"""Tools that need nothing but torch and the standard library."""

from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.data import suggested_max_num_workers
from fulmen.utilities.distributed import is_shared_filesystem
from fulmen.utilities.enums import GradClipAlgorithmType, LightningEnum
from fulmen.utilities.epsilon import FLOAT16_EPSILON, FLOAT32_EPSILON, FLOAT64_EPSILON
from fulmen.utilities.grads import grad_norm
from fulmen.utilities.parameter_tying import find_shared_parameters, set_shared_parameters
from fulmen.utilities.parsing import AttributeDict, is_picklable
from fulmen.utilities.rank_zero import (
    rank_zero_debug,
    rank_zero_deprecation,
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)
from fulmen.utilities.throughput import measure_flops
from fulmen.utilities.warnings import disable_possible_user_warnings

__all__ = [
    "FLOAT16_EPSILON",
    "FLOAT32_EPSILON",
    "FLOAT64_EPSILON",
    "AttributeDict",
    "CombinedLoader",
    "GradClipAlgorithmType",
    "LightningEnum",
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
