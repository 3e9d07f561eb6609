"""What averages of weights are kept in, and how they take the place of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


def averaged_model(module: nn.Module, device: Any, **kwargs: Any) -> AveragedModel:
    """An AveragedModel that has copied the tensors of ``module`` as they are now.

    It has them under their names, and nothing else of the module: no data, no metrics, no trainer.

    Args:
        device: where it keeps them. None: where they are.
        **kwargs: of AveragedModel.
    """
    return AveragedModel(_tensors_alone(module), device, **kwargs)


def copy_of_tensors(module: nn.Module, device: Any) -> nn.Module:
    """The same without what counts and averages."""
    return deepcopy(_tensors_alone(module)).to(device)


def _tensors_alone(module: nn.Module) -> nn.Module:
    """A tree of empty modules with the tensors of ``module``, in the same memory; those that it shares are shared."""
    copies: dict[Any, Any] = {}

    def parameter_of(one: nn.Parameter | None) -> nn.Parameter | None:
        if one is not None and one not in copies:
            copies[one] = nn.Parameter(one.detach(), requires_grad=one.requires_grad)
        return copies[one] if one is not None else None

    def copy(one: nn.Module | None) -> nn.Module | None:
        if one is not None and one not in copies:
            copies[one] = made = nn.Module()
            made._parameters = {name: parameter_of(parameter) for name, parameter in one._parameters.items()}
            made._buffers = dict(one._buffers)
            made._non_persistent_buffers_set = set(one._non_persistent_buffers_set)
            made._modules = {name: copy(child) for name, child in one._modules.items()}
        return copies[one] if one is not None else None

    made = copy(module)
    assert made is not None
    return made


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """All parameters and buffers, in the order of AveragedModel."""
    return chain(module.parameters(), module.buffers())


def non_persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that no ``state_dict`` has, by name."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, child in module.named_modules()
        for name, buffer in child.named_buffers(recurse=False)
        if name in child._non_persistent_buffers_set
    }


@torch.no_grad()
def swap(average: nn.Module, module: LightningModule) -> None:
    """Exchange what the tensors of both hold, bit for bit."""
    module.trainer.strategy.settle_weights(module)
    check_alike(average, module)
    for averaged, current in zip(tensors_of(average), tensors_of(module), strict=True):
        averaged, current = averaged.detach(), current.detach()
        kept = averaged.clone()
        averaged.copy_(current)
        current.copy_(kept)


def check_alike(average: nn.Module, module: nn.Module) -> None:
    """Check that the averages are still those of the module.

    Raises:
        MisconfigurationException: its parameters have got other names, or come and gone.
    """
    ours, others = ({name for name, _ in one.named_parameters()} for one in (average, module))
    if ours != others:
        changed = sorted(ours ^ others)
        raise MisconfigurationException(
            f"the parameters of {type(module).__name__} have changed since their average began ({changed[0]!r} came or "
            "went), so that it is of no use any more. Make all layers before training begins, and do not average the "
            "weights in a run that prunes them."
        )


def state_of(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The weights that the module has now, as a checkpoint has them; later changes of the module do not reach them."""
    state = trainer.strategy.lightning_module_state_dict(module)
    copied = type(state)((name, _copied(value)) for name, value in state.items())
    if hasattr(state, "__dict__"):  # torch's versions of the layers
        copied.__dict__.update(vars(state))
    return copied


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
