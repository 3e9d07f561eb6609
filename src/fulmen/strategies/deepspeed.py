"""DeepSpeed, whose engine trains the module. The package is imported when it is used."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.plugins.precision.deepspeed import DeepSpeedPrecision
from fulmen.plugins.precision.precision import Precision
from fulmen.strategies.deepspeed_config import SCALER, filled_in, from_arguments, given
from fulmen.strategies.late import share_of
from fulmen.strategies.parallel import ParallelStrategy
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.durable import beside, make_folder, replace_folder, sync_folder
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import require
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.torch_files import load

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.trainer.trainer import Trainer

#: the folder in a checkpoint that the engine writes
_TAG = "checkpoint"


class DeepSpeedStrategy(ParallelStrategy):
    """The engine of DeepSpeed: it exchanges gradients, clips and steps, and spreads over the processes the optimizer's
    state (stage 1), the gradients (2) and the parameters (3).

    A checkpoint is a folder into which each process writes its part; it is read by as many processes as have written
    it. One optimizer is trained. ``training_step`` returns a mean loss for every batch.

    Args:
        zero_optimization: spread anything at all.
        stage: what to spread: 1, 2 or 3.
        remote_device: where the parameters of stage 3 are made: ``"cpu"`` or ``"nvme"``. None: on the device.
        offload_optimizer: keep the optimizer's state on ``offload_optimizer_device``.
        offload_parameters: with stage 3, keep parameters on ``offload_params_device``.
        nvme_path: where a device ``"nvme"`` is mounted.
        logging_batch_size_per_gpu: the batch size that DeepSpeed is told, for what it logs. ``"auto"``: that of the
            loader that ``fit`` was given, else 1.
        config: DeepSpeed's configuration, or the path of a JSON file with it; the arguments above and those that follow
            them are left out then. ``gradient_clipping``, ``train_micro_batch_size_per_gpu``, ``fp16`` and ``bf16`` are
            filled in as the Trainer was told, where they are missing. None: the file that the environment variable
            ``PL_DEEPSPEED_CONFIG_PATH`` names, else what the arguments say.
        logging_level: of DeepSpeed's own messages.
        loss_scale: for 16 bits. 0: found while training, as the four arguments after it say.
        load_full_weights: ``fit(ckpt_path=...)`` takes the weights of a file that another strategy has written, and
            makes optimizers anew.
        exclude_frozen_parameters: leave parameters that are not trained out of checkpoints.

    The other arguments are DeepSpeed's own, and those of :class:`ParallelStrategy`.

    Raises:
        ModuleNotFoundError: ``deepspeed`` is not installed.
        MisconfigurationException: the configuration contradicts the Trainer, or is none.
    """

    strategy_name = "deepspeed"
    DEEPSPEED_ENV_VAR = "PL_DEEPSPEED_CONFIG_PATH"
    forward_is_collective = True
    gradients_are_common = True
    allows_inference_mode = False  # what is gathered in it could not be trained with
    restores_optimizers = True
    saves_open_windows = False

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        zero_optimization: bool = True,
        stage: int = 2,
        remote_device: str | None = None,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        offload_params_device: str = "cpu",
        nvme_path: str = "/local_nvme",
        params_buffer_count: int = 5,
        params_buffer_size: int = 100_000_000,
        max_in_cpu: int = 1_000_000_000,
        offload_optimizer_device: str = "cpu",
        optimizer_buffer_count: int = 4,
        block_size: int = 1048576,
        queue_depth: int = 8,
        single_submit: bool = False,
        overlap_events: bool = True,
        thread_count: int = 1,
        pin_memory: bool = False,
        sub_group_size: int = 1_000_000_000_000,
        contiguous_gradients: bool = True,
        overlap_comm: bool = True,
        allgather_partitions: bool = True,
        reduce_scatter: bool = True,
        allgather_bucket_size: int = 200_000_000,
        reduce_bucket_size: int = 200_000_000,
        zero_allow_untested_optimizer: bool = True,
        logging_batch_size_per_gpu: str | int = "auto",
        config: str | os.PathLike[str] | dict[str, Any] | None = None,
        logging_level: int = logging.WARN,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        loss_scale: float = 0,
        initial_scale_power: int = 16,
        loss_scale_window: int = 1000,
        hysteresis: int = 2,
        min_loss_scale: int = 1,
        partition_activations: bool = False,
        cpu_checkpointing: bool = False,
        contiguous_memory_optimization: bool = False,
        synchronize_checkpoint_boundary: bool = False,
        load_full_weights: bool = False,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        exclude_frozen_parameters: bool = False,
    ) -> None:
        require("deepspeed", "DeepSpeedStrategy")
        values = locals()
        super().__init__(
            accelerator,
            parallel_devices,
            cluster_environment,
            None,
            precision_plugin,
            process_group_backend,
            timeout,
        )
        if type(stage) is not int or not 0 <= stage <= 3:
            raise MisconfigurationException(f"`DeepSpeedStrategy(stage={stage!r})`: write 1, 2 or 3.")
        found = os.environ.get(self.DEEPSPEED_ENV_VAR) if config is None else config
        self.config: dict[str, Any] = from_arguments(values) if found is None else given(found)
        self._full: dict[str, Any] = {}  # with what the Trainer was told
        self._scaler = {name: values[name] for name in SCALER}
        self._remote_device, self._batch_size = remote_device, logging_batch_size_per_gpu
        self._logging_level, self._load_full_weights = logging_level, load_full_weights
        self._saved = {"exclude_frozen_parameters": exclude_frozen_parameters}
        self.deepspeed_engine: Any = None  #: while ``fit`` runs
        self._module: LightningModule | None = None
        self._source: Path | None = None  # the checkpoint that the engine will go on from
        self._weights_only: bool | None = None
        self._failed = False

    @property
    def zero_stage_3(self) -> bool:
        """Whether the parameters are spread."""
        return self.config.get("zero_optimization", {}).get("stage") == 3

    def choose_precision(self, numbers: Precision) -> None:
        if isinstance(self.precision_plugin, DeepSpeedPrecision):
            super().choose_precision(numbers)
        else:
            self.precision_plugin = DeepSpeedPrecision(numbers.precision)

    # -- the module ---------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        if type(self.checkpoint_io) not in (TorchCheckpointIO, DistributedCheckpointIO):
            raise MisconfigurationException(
                f"the plugin {type(self.checkpoint_io).__name__}: DeepSpeed writes checkpoints itself. Leave it out."
            )
        super().setup_environment()
        self.checkpoint_io, self._failed = DistributedCheckpointIO(), False  # which knows of folders
        import deepspeed  # type: ignore[import-not-found]
        from deepspeed.utils import logger  # type: ignore[import-not-found]

        logger.setLevel(self._logging_level)
        with self._variables():
            deepspeed.init_distributed(dist_backend=self.process_group_backend, auto_mpi_discovery=False)

    @contextmanager
    def _variables(self) -> Generator[None, None, None]:
        """The environment as DeepSpeed reads it, for a moment: left there, it would tell a later Trainer that somebody
        else had started the processes.
        """
        own = {
            "MASTER_ADDR": self._environment.main_address,
            "MASTER_PORT": str(self._environment.main_port),
            "RANK": str(self.global_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
        }
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def connect(self, module: LightningModule) -> None:
        self._module = module
        if module.trainer.training:
            self._full = filled_in(self.config, module.trainer, self._scaler, self._batch_size)

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        if self._module is None or not self.zero_stage_3 or not self._module.trainer.training:
            return super().module_init_context(empty_init)
        import deepspeed  # type: ignore[import-not-found]

        return deepspeed.zero.Init(
            remote_device=self._remote_device,
            config_dict_or_path=self._full,
            dtype=getattr(self.precision_plugin, "dtype", None),
        )

    def wrap_module(self, module: nn.Module, move_to_device: bool = True) -> nn.Module:
        raise MisconfigurationException(
            "the engine of DeepSpeed is run by the Trainer only, which knows its optimizer, its clipping and its "
            "accumulation. Write `Fabric(strategy='fsdp')`, which spreads the same things, or `Trainer(strategy="
            "'deepspeed')`."
        )

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the engine, and let it go on from the checkpoint that there is."""
        module = trainer.lightning_module
        if len(trainer.optimizers) != 1 or not trainer.optimizers[0].param_groups:
            raise MisconfigurationException(
                f"DeepSpeed trains one optimizer, and `configure_optimizers` returned {len(trainer.optimizers)} that "
                "have parameters. Return one, or write `Trainer(strategy='ddp')`."
            )
        _explain_what_is_left_out(trainer)
        import deepspeed  # type: ignore[import-not-found]

        with self._variables():
            self.deepspeed_engine = deepspeed.initialize(
                args=SimpleNamespace(device_rank=self.root_device.index or 0, local_rank=self.local_rank),
                model=module,
                optimizer=trainer.optimizers[0],
                config=self._full,
                dist_init_required=False,
            )[0]
        engine, self.model = self.deepspeed_engine, self.deepspeed_engine
        engine.set_gradient_accumulation_boundary(True)
        assert isinstance(self.precision_plugin, DeepSpeedPrecision)
        self.precision_plugin.engine = engine
        if self._source is not None:
            engine.checkpoint_engine.load = _reading(self._weights_only)
            tag, strict = _tag_of(self._source), module.strict_loading
            engine.load_checkpoint(str(self._source), tag=tag, load_module_strict=strict)

    def teardown(self) -> None:
        engine, module = self.deepspeed_engine, self._module
        if engine is not None and module is not None:
            if self.zero_stage_3 and not self._failed:
                whole = _gathered(module)
                engine.destroy()
                _put_whole(module, whole)
            else:
                engine.destroy()
            for hook in (engine.module_forward_pre_hook, engine.module_forward_post_hook):
                hook.remove()
        self.model = module
        self.deepspeed_engine = self._module = self._source = None
        super().teardown()

    def on_exception(self, exception: BaseException) -> None:
        self._failed = True  # the other processes may not be there to gather with

    # -- steps --------------------------------------------------------------------------------------------------------

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        module = self._module

        def through_engine(*args: Any) -> Any:
            if self.deepspeed_engine is None or module is None:
                return step(*args)
            return _called_by(self.deepspeed_engine, module, step, args)

        return through_engine

    @contextmanager
    def no_backward_sync(self) -> Generator[None, None, None]:  # type: ignore[override]
        self.deepspeed_engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    def before_backward(self, loss: Tensor) -> Tensor:
        assert self._module is not None
        return loss * share_of(self._module.trainer.data.group_sizes, self.data_parallel_rank)

    def join_backward(self) -> None:
        raise MisconfigurationException(
            f"there is no loss on rank {self.global_rank}: `training_step` returned None, or the data has fewer "
            "batches than there are processes. DeepSpeed needs one for every batch; return a loss of zero, as "
            "`self(inputs).sum() * 0`."
        )

    # -- files --------------------------------------------------------------------------------------------------------

    def lightning_module_state_dict(self, module: LightningModule | None = None) -> dict[str, Any]:
        if self.deepspeed_engine is not None and self.zero_stage_3:
            return {}
        return self.the_module(module).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError(f"`save_checkpoint(..., storage_options={storage_options!r})`: DeepSpeed has no options.")
        engine, path = self.deepspeed_engine, path_if_local(self.broadcast(filepath))
        own = dict(checkpoint)
        if engine is None:  # the run is over: weights only
            for name in ("optimizer_states", "lr_schedulers"):
                own.pop(name, None)
            return super().save_checkpoint(own, filepath)
        if "window" in own.get("resume", {}):
            raise MisconfigurationException(
                "a checkpoint in the middle of an accumulation window: DeepSpeed cannot save its gradients. Save "
                "after a step, as `ModelCheckpoint(every_n_train_steps=...)` does."
            )
        if path is None:
            raise ValueError(f"DeepSpeed writes to folders that all processes see, and not to {os.fspath(filepath)}.")
        del own["state_dict"]
        path = path.absolute()
        part = Path(self.broadcast(str(path.with_name(beside(path.name)))))
        try:
            if self.is_global_zero:
                make_folder(path.parent)
            engine.save_checkpoint(str(part), tag=_TAG, client_state=own, **self._saved)
            if self.is_global_zero:
                _sync(part)
                replace_folder(part, path)
            self.barrier()
        except BaseException:
            if self.is_global_zero:
                with suppress(OSError):
                    shutil.rmtree(part)
            raise

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        path = path_if_local(checkpoint_path)
        trains = self._module is not None and self._module.trainer.training
        if path is None or not (path / "latest").is_file():
            if trains and not self._load_full_weights:
                raise MisconfigurationException(
                    f"{checkpoint_path} was not written by DeepSpeed, so its engine cannot go on from it. Write "
                    "`DeepSpeedStrategy(load_full_weights=True)` to begin anew with its weights."
                )
            found = super().load_checkpoint(checkpoint_path, weights_only)
            return {**found, "optimizer_states": []} if trains else found
        folder = path / _tag_of(path)
        mine = folder / f"zero_pp_rank_{self.global_rank}_mp_rank_00_model_states.pt"
        is_spread = mine.is_file()
        with (mine if is_spread else folder / "mp_rank_00_model_states.pt").open("rb") as file:
            state = load(file, file.name, "cpu", weights_only)
        if is_spread and not trains:
            raise MisconfigurationException(
                f"{path} has the parameters in parts, of stage 3. Make a file of it by `python {path}/zero_to_fp32.py "
                f"{path} FOLDER`, and load that by `model.load_state_dict`."
            )
        self._source, self._weights_only = path if trains else None, weights_only
        return {**state, "state_dict": {} if is_spread else state["module"], "optimizer_states": []}

    def load_model_state(self, module: LightningModule, state_dict: Any, strict: bool, source: str) -> None:
        if self._source is None:  # else the engine does it
            super().load_model_state(module, state_dict, strict, source)


def _called_by(engine: Any, module: nn.Module, step: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call ``step`` as the engine's forward pass, which prepares the parameters."""
    own = vars(module).get("forward")

    def put_back() -> None:
        if own is None:
            vars(module).pop("forward", None)
        else:
            module.forward = own

    def forward(*args: Any) -> Any:
        put_back()  # the step calls it
        return step(*args)

    module.forward = forward
    try:
        return engine(*args)
    finally:
        put_back()


def _explain_what_is_left_out(trainer: Trainer) -> None:
    module = trainer.lightning_module
    for name, why in (
        ("backward", "goes backward"),
        ("configure_gradient_clipping", "clips gradients, by `Trainer(gradient_clip_val=...)`,"),
    ):
        if getattr(module, name).__module__ != "fulmen.core.module":
            rank_zero_warn(f"`{type(module).__name__}.{name}`: the engine of DeepSpeed {why} itself, whatever it does.")
    kinds = {kind.__name__ for callback in trainer.callbacks for kind in type(callback).__mro__}
    if "GradientAccumulationScheduler" in kinds:
        raise RuntimeError(
            "GradientAccumulationScheduler and DeepSpeed: its engine has one number of batches for each step. Write "
            "`Trainer(accumulate_grad_batches=...)`."
        )


def _gathered(module: nn.Module) -> dict[int, Tensor]:
    """The whole value of each parameter, by its id."""
    import deepspeed  # type: ignore[import-not-found]

    found = {}
    for parameter in module.parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            found[id(parameter)] = parameter.detach().clone()
    return found


def _put_whole(module: nn.Module, values: dict[int, Tensor]) -> None:
    """Make parameters anew, of which the engine had parts."""
    fresh: dict[int, nn.Parameter] = {}
    for one in module.modules():
        own = dict(one._parameters)
        one._parameters = own  # the engine had put a dict of its own there
        for name, parameter in own.items():
            if parameter is not None:
                whole = nn.Parameter(values[id(parameter)], parameter.requires_grad)
                own[name] = fresh.setdefault(id(parameter), whole)


def _tag_of(path: Path) -> str:
    """The folder that was written last."""
    tag = (path / "latest").read_text().strip()
    if Path(tag).name != tag or not (path / tag).is_dir():
        raise RuntimeError(f"{path} is damaged: it names the folder {tag!r}, which is not there.")
    return tag


def _reading(weights_only: bool | None) -> Callable[..., Any]:
    """How the engine is to read files: without calling what they name, but for the few classes that it puts there."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler  # type: ignore[import-not-found]
    from deepspeed.runtime.zero.config import ZeroStageEnum  # type: ignore[import-not-found]
    from deepspeed.utils.tensor_fragment import fragment_address  # type: ignore[import-not-found]

    own = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]

    def read(path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals(own), open(path, "rb") as file:
            return load(file, path, map_location, weights_only)

    return read


def _sync(folder: Path) -> None:
    """Make what was written last through a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
