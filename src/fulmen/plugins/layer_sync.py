"""Layers whose statistics are shared between processes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class LayerSync(ABC):
    """Derive from this to share the statistics of layers between processes your own way, and pass it as
    ``Trainer(plugins=...)``. It is used in ``fit`` where there are several processes.
    """

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Put the layers in that share; called before the strategy wraps the model. Returns the model."""

    @abstractmethod
    def revert(self, model: nn.Module) -> nn.Module:
        """Put back what :meth:`apply` has replaced, at the end of the run. Returns the model."""


class TorchSyncBatchNorm(LayerSync):
    """Batch norms as ``torch.nn.SyncBatchNorm``, which works on accelerators only, not on the CPU."""

    def apply(self, model: nn.Module) -> nn.Module:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Make them batch norms again, for inputs of any number of dimensions, with the same parameters and buffers."""
        if isinstance(model, nn.SyncBatchNorm):
            return _without_sync(model)
        for name, child in model.named_children():
            new = self.revert(child)
            if new is not child:
                setattr(model, name, new)
        return model


class AnyBatchNorm(_BatchNorm):
    """A batch norm for inputs of any number of dimensions from 2: what it was before is not remembered."""

    def _check_input_dim(self, input: object) -> None:
        pass


def _without_sync(layer: nn.SyncBatchNorm) -> AnyBatchNorm:
    new = AnyBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    new._parameters.update(layer._parameters)
    new._buffers.update(layer._buffers)
    new.train(layer.training)
    if hasattr(layer, "qconfig"):
        new.qconfig = layer.qconfig
    return new
