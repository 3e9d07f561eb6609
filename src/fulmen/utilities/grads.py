"""The size of gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module


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
    norms = {name: torch.linalg.vector_norm(gradient, p) for name, gradient in gradients.items()}
    device = next(iter(norms.values())).device
    total = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms.values()]), p)
    return {f"grad_{p}_norm{group_separator}{name}": norm for name, norm in norms.items()} | {
        f"grad_{p}_norm_total": total
    }
