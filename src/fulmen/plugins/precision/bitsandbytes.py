"""Linear layers with weights of 4 or 8 bits, by bitsandbytes, which is imported when it is used."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn

from fulmen.plugins.precision.double import cast
from fulmen.plugins.precision.precision import DefaultDtype, Precision
from fulmen.utilities.imports import require
from fulmen.utilities.text import shown

_MODES = ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "int8-training")


class BitsandbytesPrecision(Precision):
    """Linear layers of bitsandbytes in the place of torch's. But for ``"int8-training"`` their weights are not trained,
    so train others beside them, such as adapters.

    Args:
        mode: ``"nf4"`` and ``"fp4"`` (4 bits), also with ``"-dq"``, for which the constants are quantized too;
            ``"int8"`` and ``"int8-training"`` (8 bits).
        dtype: of all other numbers. None: for 4 bits ``torch.bfloat16`` where the GPU has it, for 8 ``torch.float16``.
        ignore_modules: names of modules, such as ``{"lm_head"}``, whose layers are left alone.

    Raises:
        ModuleNotFoundError: ``bitsandbytes`` is not installed.
        ValueError: ``mode`` is none of those, or 8 bits are to go with another ``dtype`` than ``torch.float16``.
    """

    def __init__(
        self,
        mode: Literal["nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "int8-training"],
        dtype: torch.dtype | None = None,
        ignore_modules: set[str] | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"BitsandbytesPrecision(mode={shown(mode)}): must be one of {list(_MODES)}.")
        require("bitsandbytes", "BitsandbytesPrecision")
        if dtype is None:
            small = mode.startswith("int8") or (torch.cuda.is_available() and not torch.cuda.is_bf16_supported())
            dtype = torch.float16 if small else torch.bfloat16
        if mode.startswith("int8") and dtype != torch.float16:
            raise ValueError(
                f"BitsandbytesPrecision({mode!r}, dtype={dtype}): its layers of 8 bits compute in torch.float16. "
                "Leave `dtype` out."
            )
        self.mode = mode
        self.precision = mode
        self.dtype = dtype
        self.ignore_modules = ignore_modules or set()

    def convert_module(self, module: nn.Module) -> nn.Module:
        import bitsandbytes as bnb  # type: ignore[import-not-found]

        for name, layer in list(module.named_modules()):
            if type(layer) is not nn.Linear or self._is_ignored(name):
                continue
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, self._replacement(layer, bnb))
        for parameter in (*module.parameters(), *module.buffers()):
            if parameter.is_floating_point() and not type(parameter).__module__.startswith("bitsandbytes"):
                parameter.data = parameter.data.to(self.dtype)
        return module

    def _is_ignored(self, name: str) -> bool:
        return any(name == ignored or name.startswith(f"{ignored}.") for ignored in self.ignore_modules)

    def _replacement(self, layer: nn.Linear, bnb: Any) -> nn.Module:
        weight, has_bias = layer.weight.data.to(self.dtype).contiguous(), layer.bias is not None
        shape = layer.in_features, layer.out_features
        if self.mode.startswith("int8"):
            trains = self.mode == "int8-training"
            new = bnb.nn.Linear8bitLt(*shape, bias=has_bias, has_fp16_weights=trains, threshold=0.0 if trains else 6.0)
            new.weight = bnb.nn.Int8Params(weight, requires_grad=trains, has_fp16_weights=trains)
        else:
            kind, twice = self.mode.partition("-")[0], self.mode.endswith("-dq")
            new = bnb.nn.Linear4bit(
                *shape, bias=has_bias, compute_dtype=self.dtype, compress_statistics=twice, quant_type=kind
            )
            new.weight = bnb.nn.Params4bit(
                weight, requires_grad=False, compress_statistics=twice, quant_type=kind, module=new
            )
        if has_bias:
            new.bias = layer.bias
        return new.train(layer.training)

    def convert_input(self, data: Any) -> Any:
        return cast(data, self.dtype)

    def convert_output(self, data: Any) -> Any:
        return cast(data, torch.get_default_dtype())

    def forward_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)
