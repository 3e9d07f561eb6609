"""What strategies have in common that spread one module over several processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from fulmen.core.saving import load_weights
from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO, Promises
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.strategies.gathered_steps import Root, SpreadLate
from fulmen.strategies.late import share_of
from fulmen.strategies.parallel import ParallelStrategy
from fulmen.strategies.sharding import broadcast_from_first, spread_like, topmost_sharded, whole
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.memory import buffers_kept
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from torch import nn

    from fulmen.core.module import LightningModule

#: where a module that is spread over processes has what gathers it
_ROOT = "_gathered_by"


class ShardedStrategy(ParallelStrategy, ABC):
    """The parameters of the module are spread over the processes, which gather what they need when they need it.

    So all must run it equally often, whatever they have to run it on. The module itself stays of the user's class.
    After a run it is left as it is, spread over the processes; a later run of any verb goes on with it.
    """

    forward_is_collective = True
    gradients_are_common = True
    saves_open_windows = False  # a part that is exchanged early makes the sum round otherwise
    saves_shards: bool = False  #: checkpoints are folders into which each process writes what it has
    casts_batches: bool = False  #: steps get their batches in the type that parameters are gathered in

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._module: LightningModule | None = None
        self._root: Root | None = None  # None in manual optimization, where each part is called by itself
        self._weights: tuple[Any, bool, str] | None = None  # to be loaded when the module is sharded
        self._promises = Promises()
        self._last: tuple[Any, ...] | None = None  # what the last training step was given that gave a loss
        self._joining: Tensor | None = None  # what this process goes backward from, as its user has skipped the batch
        self._step: Callable[..., Any] = _nothing
        self._exchanges = True
        self._holds_back = False  # gradients were added up here that the other processes have not seen
        self._topmost: list[FSDPModule] = []

    # -- the module ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def shard_module(self, module: LightningModule, root: Root | None) -> None:
        """Spread the parameters of ``module`` that are not spread yet.

        Args:
            root: what is to be sharded as a whole, with the module in it. None: nothing, as the user goes backward
                within a step, so that each part must be gathered when it is called.
        """

    @abstractmethod
    def shard_whole(self, module: nn.Module) -> nn.Module:
        """Spread the parameters of ``module``, which is called by a loop that its user writes; returns it."""

    def setup_module(self, module: LightningModule) -> None:
        self._module = self.model = module
        if _ROOT not in module.__dict__:  # by a run before this one
            broadcast_from_first(module)
            root = Root(module, self.rows_of_carry, self.root_device) if self.needs_root(module) else None
            self.shard_module(module, root)
            module.__dict__[_ROOT] = root
        root = self._root = module.__dict__[_ROOT]
        if root is not None:
            self.model = root
        self._topmost = topmost_sharded(root if root is not None else module)
        if self._weights is not None:
            weights, self._weights = self._weights, None
            self.load_into(module, *weights)

    def needs_root(self, module: LightningModule) -> bool:
        """Whether the module is to be sharded as a whole."""
        return module.automatic_optimization and any(True for _ in module.parameters())

    def setup_training(self, module: LightningModule) -> None:
        if self._root is not None:
            self.late = self._root.late = SpreadLate(self._root.carrier.carry, self.global_rank)
            module.trainer.window.late = self.late

    def wrap_module(self, module: nn.Module, move_to_device: bool = True) -> nn.Module:
        """``module`` itself, spread over the processes, and always on their devices."""
        if not topmost_sharded(module):  # else its user has done it
            broadcast_from_first(module)
        return self.shard_whole(module)

    @contextmanager
    def without_sync(self, wrapped: nn.Module) -> Generator[None, None, None]:  # type: ignore[override]
        parts = topmost_sharded(wrapped)
        for part in parts:
            part.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for part in parts:
                part.set_requires_gradient_sync(True)

    @property
    def rows_of_carry(self) -> int:
        """Over how many processes a parameter is spread."""
        return self.data_parallel_size

    @property
    def has_weights_to_load(self) -> bool:
        """A checkpoint gives the values of the parameters."""
        return self._weights is not None

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        return torch.device("meta" if empty_init else "cpu")  # it is moved part by part, as it is sharded

    def teardown(self) -> None:
        if self._root is not None:
            self._root.late = None
        self.late = self._joining = self._weights = self._last = None
        self._step, self._holds_back = _nothing, False
        self._promises.forget()
        self._module = self._root = self.model = None  # it stays spread over the processes, and where it is
        self._topmost = []
        super().teardown()

    # -- steps --------------------------------------------------------------------------------------------------------

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        root, casts = self._root, self.casts_batches
        if root is None:
            return step

        if name != "training_step":
            return lambda *args: root.run(step, args, casts)

        self._step = step

        def training_step(*args: Any) -> Any:
            assert self.late is not None
            self.late.begin()
            self._holds_back = not self._exchanges
            output = root.run(step, args, casts, trains=True)
            self._joining = root.taken_joining()
            if self._joining is not None:
                return None
            if output is None:
                self._joining = self._ghost() * 0
            else:
                self._last = args
            return output

        return training_step

    def _ghost(self) -> Tensor:
        """Run the module on the last batch that gave a loss, so that nobody hears of it; what it gives now."""
        assert self._module is not None
        assert self._root is not None
        output = None
        if self._last is not None:
            with self._module.trainer.metrics.unheard(), buffers_kept(self._module):
                output = self._root.run(self._step, self._last, self.casts_batches, trains=True)
        loss = output.get("loss", output.get("loss_sum")) if isinstance(output, dict) else output
        if not isinstance(loss, Tensor):
            raise MisconfigurationException(
                f"`training_step` returned None on rank {self.global_rank} before it ran the module, and "
                f"{type(self).__name__} needs all processes to run it equally often. There is no earlier batch that it "
                "could be run on instead. Return a loss of zero, as `self(inputs).sum() * 0`."
            )
        return loss

    def join_backward(self) -> None:
        if self._joining is not None:
            loss, self._joining = self._joining, None
            assert self._root is not None
            self._root.join(loss)

    def before_backward(self, loss: Tensor) -> Tensor:
        """In manual optimization: let the loss count what this process's batch counts among those of all."""
        assert self._module is not None
        share = share_of(self._module.trainer.data.group_sizes, self.data_parallel_rank)
        return loss if share == 1 else loss * share

    @contextmanager
    def no_backward_sync(self) -> Generator[None, None, None]:  # type: ignore[override]
        self._exchange(False)
        try:
            yield
        finally:
            self._exchange(True)

    def _exchange(self, wanted: bool) -> None:
        self._exchanges = wanted
        for part in self._topmost:
            part.set_requires_gradient_sync(wanted)

    def settle_gradients(self) -> None:
        """Exchange what was added up within an accumulation window, by a backward pass without a gradient."""
        if not self._holds_back:
            return
        self._holds_back = False
        assert self._module is not None
        assert self._root is not None
        assert self.late is not None
        self.late.begin()
        with isolate_rng():
            loss = self._ghost()
        (loss * 0).backward()

    # -- its state ----------------------------------------------------------------------------------------------------

    def gathered(self, state: Any) -> Any:
        """``state`` as one process has it, on the first process; on the others its tensors have no memory. As it is
        where checkpoints are written shard by shard.
        """
        return state if self.saves_shards else whole(state, keep=self.is_global_zero)

    def lightning_module_state_dict(self, module: LightningModule | None = None) -> dict[str, Any]:
        return self.gathered(self.the_module(module).state_dict())

    def under_own_names(self, state: dict[str, Any]) -> dict[str, Any]:
        own = self.the_module().state_dict().keys()
        if self._root is None or own <= state.keys():
            return state
        return {name: state[f"module.{name}"] for name in own if f"module.{name}" in state}

    def load_model_state(self, module: LightningModule, state_dict: Any, strict: bool, source: str) -> None:
        """Keep the weights until the module is sharded, and load them then."""
        if self._module is None:
            self._weights = state_dict, strict, source
        else:
            self.settle_weights(module)
            self.load_into(module, state_dict, strict, source)

    def settle_weights(self, module: LightningModule) -> None:
        for part in module.modules() if self._root is None else self._root.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # what is gathered is a copy

    def load_into(self, module: nn.Module, state_dict: Any, strict: bool, source: str) -> None:
        own = module.state_dict()
        common = [name for name in state_dict if name in own]
        parts = dict(zip(common, self.own_parts([(state_dict[name], own[name]) for name in common])))
        loaded = type(state_dict)((name, parts.get(name, value)) for name, value in state_dict.items())
        if hasattr(state_dict, "__dict__"):
            loaded.__dict__.update(vars(state_dict))
        load_weights(module, loaded, strict, source)

    def own_parts(self, pairs: Sequence[tuple[Any, Tensor]]) -> list[Any]:
        return [spread_like(value, tensor) for value, tensor in self._promises.kept(pairs)]

    # -- files --------------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        super().setup_environment()
        if self.saves_shards:
            self.checkpoint_io = _sharded_io(self.checkpoint_io)
            _innermost(self.checkpoint_io).join()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.saves_shards:
            filepath = self.broadcast(filepath)
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        self.checkpoint_io.settle()
        found = self._promises.read(checkpoint_path, weights_only)
        return found if found is not None else super().load_checkpoint(checkpoint_path, weights_only)


def _nothing(*args: Any) -> None:
    """The training step while there is none."""


def _innermost(files: Any) -> DistributedCheckpointIO:
    return _innermost(files.checkpoint_io) if isinstance(files, AsyncCheckpointIO) else files


def _sharded_io(files: Any) -> Any:
    """``files``, or what writes shards in its place if it is the usual one."""
    if isinstance(files, AsyncCheckpointIO):
        files.checkpoint_io = _sharded_io(files.checkpoint_io)
        return files
    if isinstance(files, DistributedCheckpointIO):
        return files
    if type(files) is TorchCheckpointIO:
        return DistributedCheckpointIO()
    raise MisconfigurationException(
        f"{type(files).__name__} was given to write checkpoints, and the strategy writes sharded ones, by all "
        "processes. Derive it from DistributedCheckpointIO, or write whole files: `state_dict_type='full'` "
        "(`save_distributed_checkpoint=False` for ModelParallelStrategy)."
    )
