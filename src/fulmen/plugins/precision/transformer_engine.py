"""8-bit floating point by NVIDIA's Transformer Engine, which is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import nn

from fulmen.plugins.precision.double import cast
from fulmen.plugins.precision.precision import DefaultDtype, Precision
from fulmen.utilities.imports import require
from fulmen.utilities.rank_zero import rank_zero_info


class TransformerEnginePrecision(Precision):
    """Linear layers and layer norms of the Transformer Engine, which multiply in 8 bits; needs a GPU that can.

    Args:
        weights_dtype: of the parameters, such as ``torch.bfloat16``.
        recipe: how numbers are scaled: a ``DelayedScaling``, or its arguments. None: the default.
        replace_layers: put the engine's layers in the place of torch's. None: if the module has none of them yet.
        fallback_compute_dtype: in what the other layers compute. None: ``weights_dtype``.

    Raises:
        ModuleNotFoundError: ``transformer_engine`` is not installed.
    """

    precision = "transformer-engine"

    def __init__(
        self,
        *,
        weights_dtype: torch.dtype,
        recipe: Mapping[str, Any] | Any | None = None,
        replace_layers: bool | None = None,
        fallback_compute_dtype: torch.dtype | None = None,
    ) -> None:
        require("transformer_engine", "TransformerEnginePrecision")
        from transformer_engine.common import recipe as recipes  # type: ignore[import-not-found]

        if isinstance(recipe, Mapping):
            options = dict(recipe)
            if isinstance(options.get("fp8_format"), str):
                options["fp8_format"] = getattr(recipes.Format, options["fp8_format"])
            recipe = recipes.DelayedScaling(**options)
        self.weights_dtype = weights_dtype
        self.recipe = recipe
        self.replace_layers = replace_layers
        self.fallback_compute_dtype = fallback_compute_dtype or weights_dtype

    def convert_module(self, module: nn.Module) -> nn.Module:
        import transformer_engine.pytorch as te  # type: ignore[import-not-found]

        has_own = any(type(layer).__module__.startswith("transformer_engine") for layer in module.modules())
        if self.replace_layers or (self.replace_layers is None and not has_own):
            _replace_layers(module, te)
        elif has_own and self.replace_layers is None:
            rank_zero_info("the module has layers of the Transformer Engine: none are replaced")
        return module.to(self.weights_dtype)

    def convert_input(self, data: Any) -> Any:
        return cast(data, self.weights_dtype)

    def convert_output(self, data: Any) -> Any:
        return cast(data, torch.get_default_dtype())

    def forward_context(self) -> AbstractContextManager[Any]:
        import transformer_engine.pytorch as te  # type: ignore[import-not-found]

        contexts = ExitStack()
        contexts.enter_context(DefaultDtype(self.weights_dtype))
        contexts.enter_context(torch.autocast("cuda", dtype=self.fallback_compute_dtype))
        contexts.enter_context(te.fp8_autocast(enabled=True, fp8_recipe=self.recipe))
        return contexts

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.weights_dtype)


def _replace_layers(module: nn.Module, te: Any) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.in_features % 8 == 0 and child.out_features % 16 == 0:
            new = te.Linear(child.in_features, child.out_features, bias=child.bias is not None)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            new = te.LayerNorm(child.normalized_shape[0], eps=child.eps)
        else:
            _replace_layers(child, te)
            continue
        with torch.no_grad():
            for own, parameter in child.named_parameters():
                getattr(new, own).copy_(parameter)
        new.train(child.training)
        setattr(module, name, new)
