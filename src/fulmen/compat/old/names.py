"""Names and modules that only Lightning 0.x and 1.x had: where Fulmen has what they were, or what to write."""

from __future__ import annotations

#: modules; "" where there is nothing but the entries of :data:`NAMES`
MODULES = {
    "pl.callbacks.lr_logger": "",
    "pl.core.decorators": "",
    "pl.logging": "fulmen.loggers",
    "pl.metrics": "fulmen.compat.old.metrics",
    "pl.metrics.classification": "fulmen.compat.old.metrics",
    "pl.metrics.functional": "fulmen.compat.old.metric_functions",
    "pl.metrics.functional.classification": "fulmen.compat.old.metric_functions",
    "pl.metrics.functional.regression": "fulmen.compat.old.metric_functions",
    "pl.metrics.metric": "fulmen.compat.old.metrics",
    "pl.metrics.regression": "fulmen.compat.old.metrics",
    "pl.plugins.training_type": "",
    "pl.plugins.training_type.ddp": "",
    "pl.plugins.training_type.ddp_spawn": "",
    "pl.plugins.training_type.deepspeed": "",
    "pl.plugins.training_type.parallel": "",
    "pl.plugins.training_type.single_device": "",
    "pl.plugins.training_type.training_type_plugin": "",
    "pl.utilities.model_utils": "fulmen.utilities.model_helpers",
}

_DDP = {"DDPPlugin": "fulmen.strategies.ddp:DDPStrategy"}
_SPAWN = {"DDPSpawnPlugin": "fulmen.compat.old.classes:DDPSpawnStrategy"}
_DEEPSPEED = {"DeepSpeedPlugin": "fulmen.strategies.deepspeed:DeepSpeedStrategy"}
_PARALLEL = {"ParallelPlugin": "fulmen.strategies.parallel:ParallelStrategy"}
_SINGLE = {"SingleDevicePlugin": "fulmen.strategies.single_device:SingleDeviceStrategy"}
_TRAINING_TYPE = {"TrainingTypePlugin": "fulmen.strategies.strategy:Strategy"}
_STRATEGIES = {**_DDP, **_SPAWN, **_DEEPSPEED, **_PARALLEL, **_SINGLE, **_TRAINING_TYPE}
_LR_LOGGER = {"LearningRateLogger": "fulmen.callbacks.lr_monitor:LearningRateMonitor"}
_DECORATORS = {
    "auto_move_data": "fulmen.compat.old.classes:auto_move_data",
    "data_loader": "fulmen.compat.old.classes:data_loader",
}

NAMES: dict[str, dict[str, str]] = {
    "pl": {"data_loader": _DECORATORS["data_loader"]},
    "pl.accelerators": {"GPUAccelerator": "fulmen.accelerators.cuda:CUDAAccelerator"},
    "pl.callbacks": _LR_LOGGER,
    "pl.callbacks.lr_logger": _LR_LOGGER,
    "pl.core.decorators": _DECORATORS,
    "pl.plugins": {**_STRATEGIES, "NativeMixedPrecisionPlugin": "fulmen.plugins.precision.amp:MixedPrecision"},
    "pl.plugins.training_type": _STRATEGIES,
    "pl.plugins.training_type.ddp": _DDP,
    "pl.plugins.training_type.ddp_spawn": _SPAWN,
    "pl.plugins.training_type.deepspeed": _DEEPSPEED,
    "pl.plugins.training_type.parallel": _PARALLEL,
    "pl.plugins.training_type.single_device": _SINGLE,
    "pl.plugins.training_type.training_type_plugin": _TRAINING_TYPE,
    "pl.strategies": {"DDPSpawnStrategy": _SPAWN["DDPSpawnPlugin"]},
    "pl.trainer": {"seed_everything": "fulmen:seed_everything"},
    "pl.utilities.types": {"EPOCH_OUTPUT": "fulmen.compat.old.classes:EPOCH_OUTPUT"},
}

_NO_PROCESS_FOR_ALL = 'write `Trainer(strategy="ddp")`, which has a process for each device'
LOOPS = (
    "the loops are functions, and hooks of the module, of callbacks and of the strategy are called around each thing "
    "they do: `print(trainer.plan)` shows which"
)
_RESULTS = "log by `self.log(name, value)`, and return the loss"
_WRAPPERS = "the strategy hands each step to what it wraps the module in: write `Strategy.wrap_step`"

#: names that will not come, and what to write
ADVICE = {
    "pl.EvalResult": _RESULTS,
    "pl.TrainResult": _RESULTS,
    "pl.accelerators.IPUAccelerator": "IPUs are not supported: use `Trainer(accelerator='auto')`",
    "pl.callbacks.GPUStatsMonitor": "DeviceStatsMonitor took its place",
    "pl.callbacks.QuantizationAwareTraining": "quantize by `torch.ao.quantization` in the module itself",
    "pl.callbacks.XLAStatsMonitor": "DeviceStatsMonitor took its place",
    "pl.core.step_result": _RESULTS,
    "pl.lite": "write `lightning.fabric.Fabric`, which took its place",
    "pl.loggers.TestTubeLogger": "write CSVLogger or TensorBoardLogger",
    "pl.logging.TestTubeLogger": "write CSVLogger or TensorBoardLogger",
    "pl.loops.EvaluationLoop": LOOPS,
    "pl.loops.FitLoop": LOOPS,
    "pl.loops.Loop": LOOPS,
    "pl.loops.base": LOOPS,
    "pl.loops.optimization": LOOPS,
    "pl.overrides": _WRAPPERS,
    "pl.plugins.ApexMixedPrecisionPlugin": "write `Trainer(precision='16-mixed')`",
    "pl.plugins.DDPShardedPlugin": "FSDPStrategy took its place",
    "pl.plugins.DataParallelPlugin": _NO_PROCESS_FOR_ALL,
    "pl.plugins.training_type.DDPShardedPlugin": "FSDPStrategy took its place",
    "pl.plugins.training_type.DataParallelPlugin": _NO_PROCESS_FOR_ALL,
    "pl.strategies.DDPFullyShardedStrategy": "FSDPStrategy took its place",
    "pl.strategies.DataParallelStrategy": _NO_PROCESS_FOR_ALL,
    "pl.trainer.progress": "`trainer.progress` has the counters: epoch, step, total_batches",
}
