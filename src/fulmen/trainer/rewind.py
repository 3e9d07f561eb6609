"""Back to the beginning of a step that failed in its middle, as if it had not been begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fulmen.trainer.attributes import generators_of
from fulmen.trainer.metric_objects import metrics_of
from fulmen.utilities.generators import restore_states, states_of
from fulmen.utilities.seed import collect_rng_states, restore_rng_states

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: attributes of a metric that no update changes
_CONSTANT = {*vars(nn.Module()), "_defaults", "_reductions", "_persistent"}


class Watched:
    """The objects in which a step leaves something, looked up once and not for each batch."""

    def __init__(self, trainer: Trainer) -> None:
        module = trainer.lightning_module
        self.epoch = trainer.progress.epoch
        self.parameters = list(module.parameters())
        self.buffers = [child._buffers for child in module.modules() if child._buffers]
        self.metrics = list(metrics_of(module).values())
        self.generators = generators_of(trainer)


class Moment:
    """The beginning of a step: what :meth:`go_back` brings back.

    These are gradients, buffers, the state of random number generators, what was logged, and what metric objects have
    seen. What else a step changes, such as a list that it appends to, is the user's.

    Args:
        keeps_gradients: those that there are are not about to be cleared.
    """

    def __init__(self, trainer: Trainer, watched: Watched, keeps_gradients: bool) -> None:
        self._watched = watched
        self._compiled_logs = trainer.lightning_module._compiled_logs
        self._window, self._window_state = trainer.window, trainer.window.state_dict()
        self._random = collect_rng_states()
        self._generators = states_of(watched.generators)
        self._buffers = [
            (owner, name, buffer, None if buffer is None else buffer.detach().clone())
            for owner in watched.buffers
            for name, buffer in owner.items()
        ]
        self._metrics = [(metric, _kept_attributes(metric)) for metric in watched.metrics]
        self._forget_logs: Callable[[], None] = trainer.metrics.moment()
        self.is_cleared = False  #: the gradients of the window before are gone
        self._gradients: list[tuple[Tensor, Tensor | None, Tensor | None]] | None = None
        if keeps_gradients:
            self._keep_gradients()

    def gradients_are_cleared(self) -> None:
        """The step has cleared its gradients: it goes back to this, and does not do it again."""
        self.is_cleared = True
        self._keep_gradients()

    def _keep_gradients(self) -> None:
        self._gradients = [
            (parameter, parameter.grad, None if parameter.grad is None else parameter.grad.clone())
            for parameter in self._watched.parameters
        ]

    @torch.no_grad()
    def go_back(self) -> None:
        """Bring everything back; to be called once."""
        if self._gradients is not None:
            for parameter, gradient, values in self._gradients:
                if gradient is not None and values is not None and not gradient.is_sparse:
                    parameter.grad = gradient.copy_(values)  # in its place, which others may know
                else:
                    parameter.grad = values
        for owner, name, buffer, values in self._buffers:
            owner[name] = buffer
            if buffer is not None and values is not None:
                buffer.copy_(values)
        for metric, attributes in self._metrics:
            vars(metric).update(attributes)
        self._forget_logs()
        if self._compiled_logs is not None:
            self._compiled_logs.clear()
        self._window.load_state_dict(self._window_state)
        restore_states(self._watched.generators, self._generators, "the module, a callback or the datamodule")
        restore_rng_states(self._random)


class _Other:
    """Stands for a value that cannot be kept."""


def _kept_attributes(metric: Any) -> dict[str, Any]:
    kept = {name: _kept(value) for name, value in vars(metric).items() if name not in _CONSTANT}
    return {name: value for name, value in kept.items() if value is not _Other}


def _kept(value: Any) -> Any:
    """``value``, so that it stays what it is when the metric goes on. Updates append to lists and do not change what is
    in them."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is list:
        return list(value)
    if type(value) is dict:
        return dict(value)
    return value if value is None or isinstance(value, (bool, int, float, str, tuple)) else _Other
