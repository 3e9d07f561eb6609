"""The size of gradients: measured, and limited. Plain tensors and sharded ones (``DTensor``) may stand side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm


def grad_norm(module: Module, norm_type: float | int | str, group_separator: str = "/") -> dict[str, Tensor]:
    """The norm of each parameter's gradient, and the norm of all of them together; nothing waits for the device.

    Args:
        module: its parameters without a gradient are left out.
        norm_type: the p of the p-norm, a positive number or ``"inf"`` for the largest absolute value.
        group_separator: stands between the kind of norm and the parameter's name, so that loggers group them.

    Returns:
        Scalar tensors under the keys ``grad_2.0_norm/<name of parameter>`` and ``grad_2.0_norm_total`` (for p = 2); an
        empty dict if there is no gradient.

    Raises:
        ValueError: ``norm_type`` is not positive, or not a number.
    """
    p = float(norm_type)
    if not p > 0:
        raise ValueError(f'grad_norm(norm_type={norm_type!r}): the norm needs a positive number, or "inf".')
    gradients = {
        name: parameter.grad.detach() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    if not gradients:
        return {}
    norms = {name: _whole(torch.linalg.vector_norm(gradient, p)) for name, gradient in gradients.items()}
    device = next(iter(norms.values())).device
    total = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms.values()]), p)
    return {f"grad_{p}_norm{group_separator}{name}": norm for name, norm in norms.items()} | {
        f"grad_{p}_norm_total": total
    }


def clip_grad_norm(
    parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients together so that their norm is at most ``max_norm``, as ``torch.nn.utils.clip_grad_norm_``
    does; sharded parameters, also of several device meshes, and plain ones beside them are measured as one vector.

    Args:
        parameters: those without a gradient are left out. To be called on all processes with the same ones; a plain
            parameter has the same gradient on each of them.
        norm_type: the p of the p-norm; ``float("inf")`` for the largest absolute value.
        error_if_nonfinite: raise if the norm is NaN or infinite.

    Returns:
        The norm before, as a plain tensor.

    Raises:
        RuntimeError: ``error_if_nonfinite``, and the norm is NaN or infinite.
    """
    groups = by_layout(parameters)
    if len(groups) <= 1:
        return _whole(clip_grad_norm_(next(iter(groups), []), max_norm, norm_type, error_if_nonfinite))
    gradients = [[parameter.grad.detach() for parameter in group if parameter.grad is not None] for group in groups]
    norms = [_whole(get_total_norm(group, norm_type)) for group in gradients]
    total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]), norm_type)
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(
            f"the norm of the gradients is {total.item()}, so they cannot be clipped. Find the loss that is not finite "
            "(`NonFiniteGuard` names it), or write `error_if_nonfinite=False`."
        )
    factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)  # as torch does it: nothing waits for the device
    for gradient in (gradient for group in gradients for gradient in group):
        own: Tensor = gradient.to_local() if is_sharded(gradient) else gradient  # type: ignore[attr-defined]
        own.mul_(factor.to(own.device))
    return total


def clip_grad_value(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Limit each element of the gradients to ``[-clip_value, clip_value]``."""
    for group in by_layout(parameters):
        clip_grad_value_(group, clip_value)


def by_layout(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """The parameters that have a gradient, grouped by how the gradient is spread over processes: over which device
    mesh, and in what way. Plain ones are a group of their own.
    """
    groups: dict[Any, list[Tensor]] = {}
    for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
        gradient: Any = parameter.grad
        if gradient is not None:
            layout = (gradient.device_mesh, gradient.placements) if is_sharded(gradient) else None
            groups.setdefault(layout, []).append(parameter)
    return list(groups.values())


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``; where nobody has imported them, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _whole(tensor: Tensor) -> Tensor:
    """The value of a tensor that may be spread over processes."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
