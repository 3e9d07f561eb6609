"""What :meth:`Fabric.setup` gives: a module, an optimizer and a loader that behave as those that they are made of."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

from fulmen.core.optimizer import LightningOptimizer
from fulmen.fabric.shares import Batches
from fulmen.plugins.precision.double import cast
from fulmen.plugins.precision.precision import Precision
from fulmen.utilities.apply_func import apply_to_collection, move_data_to_device
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class _Backward:
    """Whether it is Fabric that goes backward."""

    is_under_way = False


@contextmanager
def going_backward() -> Iterator[None]:
    """Within, a backward pass is Fabric's own."""
    before, _Backward.is_under_way = _Backward.is_under_way, True
    try:
        yield
    finally:
        _Backward.is_under_way = before


class _FabricModule(nn.Module):
    """A module whose calls go through the strategy and the precision; all its attributes are the module's.

    Args:
        forward_module: what the strategy made of the module.
        strategy: knows the precision.
        original_module: the module. None: ``forward_module``.
        compiled: ``forward_module`` as ``torch.compile`` made it, for calls of ``forward``. None: it is not compiled.
    """

    _is_made = False
    _has_run = False  #: it was called, so that its losses are known to the other processes

    def __init__(
        self,
        forward_module: nn.Module,
        strategy: Strategy,
        original_module: nn.Module | None = None,
        compiled: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        own = forward_module if original_module is None else original_module
        self._forward_module = forward_module
        # not sub-modules of this one: the module is in the other already
        self.__dict__["_original_module"], self.__dict__["_compiled"] = own, compiled
        self._strategy = strategy
        self._forward_methods: set[str] = set(_STEPS)
        self._is_made = True

    @property
    def module(self) -> nn.Module:
        """The module that was set up."""
        return self.__dict__["_original_module"]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module: floating-point inputs get the type of the precision, outputs torch's default type."""
        compiled = self.__dict__["_compiled"]
        return self._run(self._forward_module if compiled is None else compiled, args, kwargs)

    def _run(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self.__dict__["_has_run"] = True
        precision = self._strategy.precision_plugin
        if type(precision).convert_input is Precision.convert_input:
            args, kwargs = cast((args, kwargs), torch.float32)
        else:
            args, kwargs = precision.convert_input((args, kwargs))
        with precision.forward_context():
            output = call(*args, **kwargs)
        output = cast(precision.convert_output(output), torch.get_default_dtype())
        if not precision.goes_backward_alone:
            apply_to_collection(output, Tensor, _watch)
        return output

    # -- methods that run the module ----------------------------------------------------------------------------------

    def mark_forward_method(self, method: MethodType | str) -> None:
        """Let a method of the module go through the strategy and the precision, as ``forward`` does: one that calls
        ``forward``, or layers of the module. The ``*_step`` methods of a LightningModule do so.

        Raises:
            TypeError: it is neither a method nor a name.
            ValueError: it is ``forward``, which always does.
            AttributeError: the module has no such method.
        """
        if not isinstance(method, (MethodType, str)):
            raise TypeError(
                f"`mark_forward_method({shown(method)})`: give the name of a method, or the method itself, as "
                "`model.generate`."
            )
        name = method if isinstance(method, str) else method.__name__
        if name == "forward":
            raise ValueError("`mark_forward_method('forward')`: `forward` needs no mark. Leave the call out.")
        if not inspect.ismethod(getattr(self.module, name, None)):
            raise AttributeError(
                f"`mark_forward_method({name!r})`: {type(self.module).__name__} has no method of that name. Write the "
                "name of one that it has."
            )
        self._forward_methods.add(name)

    def _through_forward(self, name: str) -> Callable[..., Any]:
        """The method ``name``, called in place of ``forward`` by whatever is around the module."""
        module, attributes = self.module, self.module.__dict__

        def call(*args: Any, **kwargs: Any) -> Any:
            written = {"forward": attributes["forward"]} if "forward" in attributes else {}

            def put_back() -> None:
                attributes.pop("forward", None)
                attributes.update(written)

            def instead(*args: Any, **kwargs: Any) -> Any:
                put_back()  # the method may call the module
                return getattr(module, name)(*args, **kwargs)

            attributes["forward"] = instead
            try:
                return self._run(self._forward_module, args, kwargs)
            finally:
                put_back()

        return functools.wraps(getattr(module, name))(call)

    def _guarded(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """``method``, which must not run the module past what is around it."""
        inside = set(self.module.modules())

        def refuse(module: nn.Module, inputs: Any) -> None:
            if module in inside:
                raise RuntimeError(
                    f"`{type(self.module).__name__}.{name}` runs the module past its strategy, so that gradients would "
                    f"not be those of all processes. Write `model.mark_forward_method({name!r})` after "
                    "`fabric.setup(model)`."
                )

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            hook = register_module_forward_pre_hook(refuse)
            try:
                return method(*args, **kwargs)
            finally:
                hook.remove()

        return call

    # -- all else is the module's -------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.load_state_dict(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.named_parameters(*args, **kwargs)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.named_buffers(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_modules", {}):
            return self._modules[name]
        module = self.__dict__.get("_original_module")
        if module is None:
            raise AttributeError(name)
        try:
            value = getattr(module, name)
        except AttributeError:
            if name not in ("device", "dtype"):
                raise
            tensors = (*module.parameters(), *module.buffers())
            first = next((one for one in tensors if name == "device" or one.is_floating_point()), None)
            if first is None:
                return self._strategy.root_device if name == "device" else torch.get_default_dtype()
            return getattr(first, name)
        if name in self._forward_methods and inspect.ismethod(value):
            return self._through_forward(name)
        if self._forward_module is not module and inspect.ismethod(value):
            return self._guarded(value, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_made or name in self.__dict__ or name in self._modules:
            super().__setattr__(name, value)
        else:
            setattr(self.module, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__ or name in self._modules:
            super().__delattr__(name)
        else:
            delattr(self.module, name)


def _watch(tensor: Tensor) -> Tensor:
    """See to it that a backward pass from ``tensor`` is Fabric's."""
    if tensor.requires_grad:
        tensor.register_hook(_refuse_other_backward)
    return tensor


def _refuse_other_backward(gradient: Tensor) -> None:
    if not _Backward.is_under_way:
        raise RuntimeError(
            "`loss.backward()` leaves out what the precision does with a loss, such as to scale it. Write "
            "`fabric.backward(loss)`."
        )


class _FabricOptimizer(LightningOptimizer):
    """An optimizer whose step goes through the precision, and whose state is the whole one; all else is the
    optimizer's.

    Args:
        optimizer: the optimizer.
        strategy: knows the precision.
        callbacks: those with a method ``on_after_optimizer_step(strategy, optimizer)`` are told of steps.
    """

    _prefix = "Fabric"
    _own = LightningOptimizer._own | {"_callbacks", "load_state_dict", "state_dict"}

    def __init__(self, optimizer: Optimizer, strategy: Strategy, callbacks: list[Any] | None = None) -> None:
        super().__init__(optimizer)
        self._callbacks = [one for one in callbacks or [] if callable(getattr(one, "on_after_optimizer_step", None))]
        self.attach(None, strategy.precision_plugin, strategy)

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        result = LightningOptimizer.step(self, closure, **kwargs)
        for callback in self._callbacks:
            callback.on_after_optimizer_step(strategy=self._strategy, optimizer=self._optimizer)
        return result

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer, whole where processes have parts of it; to be called on all of them."""
        assert self._strategy is not None
        return self._strategy.gathered(self._optimizer.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the optimizer such a state."""
        assert self._strategy is not None
        self._optimizer.load_state_dict(self._strategy.own_state(self._optimizer, state_dict))

    def __reduce__(self) -> Any:
        return _FabricOptimizer, (self._optimizer, self._strategy, self._callbacks)


class _FabricDataLoader:
    """A loader whose batches are those of this process, on its device; all its attributes are the loader's.

    Args:
        dataloader: the loader.
        device: where batches go. None: they stay where they are.
        batches: knows which batches are this process's. None: all are.
    """

    def __init__(self, dataloader: Any, device: torch.device | None = None, batches: Batches | None = None) -> None:
        self._dataloader, self._device = dataloader, device
        self._batches = Batches(dataloader) if batches is None else batches

    @property
    def device(self) -> torch.device | None:
        """Where batches go; None: they stay where they are."""
        return self._device

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        if self._device is None:
            yield from self._batches
        else:
            for batch in self._batches:
                yield move_data_to_device(batch, self._device)

    def __getattr__(self, name: str) -> Any:
        if name in ("_dataloader", "_device", "_batches"):  # not there yet while being unpickled
            raise AttributeError(name)
        return getattr(self._dataloader, name)


def is_wrapped(obj: object) -> bool:
    """Whether ``obj`` is a module, an optimizer or a loader that Fabric has set up."""
    return isinstance(_uncompiled(obj), (_FabricModule, _FabricOptimizer, _FabricDataLoader))


def _uncompiled(obj: Any) -> Any:
    """The module inside of what ``torch.compile(module)`` returned; anything else as it is."""
    inner = obj.__dict__.get("_modules", {}).get("_orig_mod") if isinstance(obj, nn.Module) else None
    return obj if inner is None else inner


def _unwrap_objects(collection: Any) -> Any:
    """The same nest, with what Fabric was given in place of what it made: of a module, what the strategy made of it."""

    def unwrap(obj: Any) -> Any:
        plain = _uncompiled(obj)
        if isinstance(plain, _FabricModule):
            return plain._forward_module
        if isinstance(obj, _FabricOptimizer):
            return obj.optimizer
        return obj._dataloader if isinstance(obj, _FabricDataLoader) else obj

    return apply_to_collection(collection, (nn.Module, _FabricOptimizer, _FabricDataLoader), unwrap)
