"""Which module and which name of Fulmen stands for one of Lightning: one table, for imports and for class paths.

Short for the roots, which have several spellings: ``pl`` is ``lightning.pytorch`` and ``pytorch_lightning``, ``fabric``
is ``lightning.fabric`` and ``lightning_fabric``.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from pkgutil import iter_modules

from fulmen.compat.old import names as old_names

#: the version of Lightning whose names and arguments are offered
VERSION = "2.6.6"

ROOTS = {
    "lightning": "lightning",
    "lightning.pytorch": "pl",
    "pytorch_lightning": "pl",
    "lightning.fabric": "fabric",
    "lightning_fabric": "fabric",
    "lightning_utilities": "lightning_utilities",
}

#: rooms: a module in one of these stands for the module of the same name in ours
_ROOMS = {
    **{f"pl.{room}": f"fulmen.{room}" for room in ("accelerators", "callbacks", "cli", "core", "demos", "loggers")},
    **{f"pl.{room}": f"fulmen.{room}" for room in ("loops", "plugins", "profilers", "strategies", "trainer", "tuner")},
    "pl.profiler": "fulmen.profilers",
    "pl.utilities": "fulmen.utilities",
    **{f"fabric.{room}": f"fulmen.{room}" for room in ("accelerators", "loggers", "plugins", "strategies")},
    "fabric.utilities": "fulmen.utilities",
}

#: modules whose home has another name; "" where there is nothing but the entries of ``_NAMES``
_MODULES = {
    "lightning": "",
    "pl": "fulmen",
    "pl.callbacks.base": "fulmen.callbacks.callback",
    "pl.core.lightning": "fulmen.core.module",
    "pl.core.memory": "fulmen.utilities.model_summary",
    "pl.core.mixins": "",
    "pl.core.mixins.hparams_mixin": "",
    "pl.loggers.base": "fulmen.loggers.logger",
    "pl.trainer.connectors": "",
    "pl.trainer.connectors.logger_connector": "",
    "pl.trainer.supporters": "",
    "pl.utilities.cli": "fulmen.cli",
    "pl.utilities.model_summary.model_summary": "fulmen.utilities.model_summary",
    "fabric": "fulmen.fabric",
    "fabric.cli": "",
    "fabric.connector": "",
    "fabric.fabric": "fulmen.fabric.fabric",
    "fabric.plugins.collectives": "",
    "fabric.plugins.collectives.torch_collective": "",
    "fabric.plugins.io.checkpoint_io": "fulmen.plugins.io.checkpoint_plugin",
    "fabric.plugins.io.torch_io": "fulmen.plugins.io.torch_plugin",
    "fabric.plugins.io.xla": "fulmen.plugins.io.xla_plugin",
    "fabric.utilities.init": "",
    "fabric.utilities.load": "",
    "fabric.utilities.logger": "",
    "fabric.wrappers": "fulmen.fabric.wrappers",
    "lightning_utilities": "",
    "lightning_utilities.core": "",
    "lightning_utilities.core.apply_func": "fulmen.utilities.apply_func",
    "lightning_utilities.core.enums": "",
    "lightning_utilities.core.imports": "fulmen.compat.lightning_utilities",
    "lightning_utilities.core.overrides": "fulmen.utilities.model_helpers",
    "lightning_utilities.core.rank_zero": "fulmen.utilities.rank_zero",
    "lightning_utilities.test": "",
    "lightning_utilities.test.warning": "",
}

_RANK_ZERO = {
    name: f"fulmen.utilities.rank_zero:{name}"
    for name in ("rank_zero_debug", "rank_zero_deprecation", "rank_zero_info", "rank_zero_only", "rank_zero_warn")
}
_OF_RANKS = {
    "WarningCache": "fulmen.compat.lightning_utilities:WarningCache",
    "_get_rank": "fulmen.utilities.rank_zero:rank_from_environment",
    "rank_prefixed_message": "fulmen.compat.lightning_utilities:rank_prefixed_message",
}
_FOR_PACKAGES = "fulmen.compat.for_packages"
_HYPERPARAMETERS = {"HyperparametersMixin": "fulmen.core.hparams:HyperparameterOwner"}
_LOGGER = {
    "DummyExperiment": "fulmen.loggers.logger:_Nothing",
    "LightningLoggerBase": "fulmen.loggers.logger:Logger",
    "LoggerCollection": "fulmen.compat.logger_collection:LoggerCollection",
    "_DummyExperiment": "fulmen.loggers.logger:_Nothing",
}
_PARAMS = {
    "_add_prefix": "fulmen.loggers.params:prefixed",
    "_convert_json_serializable": "fulmen.loggers.params:plain",
    "_convert_params": "fulmen.loggers.params:as_dict",
    "_flatten_dict": "fulmen.loggers.params:flattened",
    "_sanitize_callable_params": "fulmen.loggers.params:without_functions",
    "_sanitize_params": "fulmen.loggers.params:simple",
}
_SCAN = {"_scan_checkpoints": "fulmen.loggers.written_checkpoints:newly_written"}
_TPU = {"TPUAccelerator": "fulmen.accelerators.xla:XLAAccelerator"}
#: Fulmen needs a torch that is newer than all of these
_TORCH = {f"_TORCH_GREATER_EQUAL_2_{minor}": "builtins:True" for minor in ("0", "1", "2", "3", "4", "4_1", "5", "6")}
_PRECISION = {
    "DoublePrecisionPlugin": "fulmen.plugins.precision.double:DoublePrecision",
    "HalfPrecisionPlugin": "fulmen.plugins.precision.half:HalfPrecision",
    "MixedPrecisionPlugin": "fulmen.plugins.precision.amp:MixedPrecision",
    "PrecisionPlugin": "fulmen.plugins.precision.precision:Precision",
    "XLAPrecisionPlugin": "fulmen.plugins.precision.xla:XLAPrecision",
}

_INSIDE = "fulmen.compat.inside"
_NUMBERS = {
    "_check_data_type": "fulmen.compat.device_numbers:check_data_type",
    "_check_unique": "fulmen.compat.device_numbers:check_unique",
    "_normalize_parse_gpu_string_input": "fulmen.compat.device_numbers:numbers_in_text",
}
_ZERO = {
    name: f"fulmen.strategies.deepspeed_conversion:{name}" for name in ("convert_zero_checkpoint_to_fp32_state_dict",)
}
_SIGNALS = {name: f"{_INSIDE}:SignalNames" for name in ("SignalConnector", "_SignalConnector")}
_GROUPS = {
    "ReduceOp": "torch.distributed:ReduceOp",
    "_get_default_process_group_backend_for_device": "fulmen.compat.process_groups:backend_of",
    "_init_dist_connection": "fulmen.compat.process_groups:join_group",
    "_sync_ddp_if_available": "fulmen.compat.process_groups:reduced",
    "sync_ddp_if_available": "fulmen.compat.process_groups:reduced",
}

#: names whose home is not in the module that stands for theirs, among them those of 1.x that were only renamed
_NAMES: dict[str, dict[str, str]] = {
    "lightning": {
        name: f"fulmen:{name}"
        for name in ("Callback", "Fabric", "LightningDataModule", "LightningModule", "Trainer", "seed_everything")
    },
    "pl.accelerators": _TPU,
    "pl.callbacks": {"ProgressBarBase": "fulmen.callbacks.progress.progress_bar:ProgressBar"},
    "pl.callbacks.progress": {"ProgressBarBase": "fulmen.callbacks.progress.progress_bar:ProgressBar"},
    "pl.core.mixins": _HYPERPARAMETERS,
    "pl.core.mixins.hparams_mixin": _HYPERPARAMETERS,
    "pl.core.optimizer": {"_MockOptimizer": f"{_FOR_PACKAGES}:NoOptimizer"},
    "pl.core.saving": {"get_filesystem": "fulmen.utilities.cloud_io:get_filesystem"},
    "pl.loggers": _LOGGER,
    "pl.loggers.base": _LOGGER,
    "pl.loggers.logger": _LOGGER,
    "pl.loggers.utilities": _SCAN,
    "pl.plugins": _PRECISION,
    "pl.plugins.precision": _PRECISION,
    "pl.plugins.precision.precision_plugin": {"PrecisionPlugin": _PRECISION["PrecisionPlugin"]},
    "pl.profiler": {"BaseProfiler": "fulmen.profilers.profiler:Profiler"},
    "pl.strategies": {"SingleTPUStrategy": "fulmen.strategies.single_xla:SingleDeviceXLAStrategy"},
    "pl.trainer.connectors.checkpoint_connector": {"_CheckpointConnector": "fulmen.trainer.views:View"},
    "pl.trainer.connectors.logger_connector.result": {"_ResultMetric": f"{_FOR_PACKAGES}:EpochValue"},
    "pl.trainer.connectors.accelerator_connector": {"_AcceleratorConnector": f"{_INSIDE}:AcceleratorChoice"},
    "pl.trainer.connectors.logger_connector.fx_validator": {"_FxValidator": f"{_INSIDE}:HooksThatLog"},
    "pl.trainer.connectors.signal_connector": _SIGNALS,
    "pl.trainer.supporters": {"CombinedLoader": "fulmen.utilities.combined_loader:CombinedLoader"},
    "pl.utilities.deepspeed": _ZERO,
    "pl.utilities.device_parser": _NUMBERS,
    "pl.utilities": {"_get_rank": _OF_RANKS["_get_rank"]},
    "pl.utilities.distributed": {**_RANK_ZERO, **_GROUPS},
    "pl.utilities.imports": _TORCH,
    "pl.utilities.logger": {**_PARAMS, **_SCAN},
    "pl.utilities.parsing": {"get_init_args": f"{_FOR_PACKAGES}:get_init_args"},
    "pl.utilities.rank_zero": _OF_RANKS,
    "fabric": {"seed_everything": "fulmen:seed_everything"},
    "fabric.accelerators": {
        **_TPU,
        "ACCELERATOR_REGISTRY": "fulmen.accelerators.registry:AcceleratorRegistry",
    },
    "fabric.accelerators.cuda": {
        "is_cuda_available": "torch.cuda:is_available",
        "num_cuda_devices": "torch.cuda:device_count",
    },
    "fabric.loggers.logger": {"_DummyExperiment": "fulmen.loggers.logger:_Nothing"},
    "fabric.cli": {"main": "fulmen.fabric.command:main"},
    "fabric.connector": {"_PRECISION_INPUT": "fulmen.fabric.arguments:PrecisionName"},
    "fabric.plugins.precision.bitsandbytes": {"_BITSANDBYTES_AVAILABLE": "fulmen.compat.fabric_names:BITSANDBYTES"},
    "fabric.plugins.precision.precision": {"_PRECISION_INPUT": "fulmen.fabric.arguments:PrecisionName"},
    "fabric.plugins.collectives.torch_collective": {
        "default_pg_timeout": "torch.distributed.constants:default_pg_timeout"
    },
    "fabric.strategies": {"STRATEGY_REGISTRY": "fulmen.strategies.registry:StrategyRegistry"},
    "fabric.strategies.launchers.subprocess_script": {
        "_SubprocessScriptLauncher": "fulmen.strategies.launchers.subprocess_script:SubprocessScriptLauncher"
    },
    "fabric.strategies.strategy": {
        "TBroadcast": "fulmen.strategies.strategy:T",
        "_Sharded": "fulmen.strategies.sharded:ShardedStrategy",
        "_apply_filter": "fulmen.fabric.state:take_filtered",
        "_validate_keys_for_strict_loading": "fulmen.fabric.state:check_names",
    },
    "fabric.utilities.init": {"_materialize_meta_tensors": "fulmen.strategies.sharding:materialize"},
    "fabric.utilities.load": {
        "_METADATA_FILENAME": "fulmen.plugins.io.distributed_plugin:PLAIN_FILE",
        "_NotYetLoadedTensor": "fulmen.compat.fabric_names:NotYetLoadedTensor",
        "_lazy_load": "fulmen.plugins.io.torch_plugin:read_checkpoint",
        "_move_state_into": "fulmen.fabric.state:move_into",
    },
    "fabric.strategies.fsdp": {
        "_get_full_state_dict_context": f"{_FOR_PACKAGES}:refuse_older_sharding",
        "_setup_activation_checkpointing": f"{_FOR_PACKAGES}:refuse_older_sharding",
    },
    "fabric.utilities.cloud_io": {"_load": "fulmen.utilities.cloud_io:load"},
    "fabric.utilities.data": {"AttributeDict": "fulmen.utilities.parsing:AttributeDict"},
    "fabric.utilities.device_parser": _NUMBERS,
    "fabric.utilities.distributed": _GROUPS,
    "fabric.utilities.imports": _TORCH,
    "fabric.utilities.logger": _PARAMS,
    "fabric.utilities.rank_zero": _OF_RANKS,
    "fabric.utilities.registry": {"_register_classes": f"{_INSIDE}:register_classes"},
    "lightning_utilities": {
        "apply_to_collection": "fulmen.utilities.apply_func:apply_to_collection",
        "compare_version": "fulmen.compat.lightning_utilities:compare_version",
        "is_overridden": "fulmen.utilities.model_helpers:is_overridden",
        "module_available": "fulmen.compat.lightning_utilities:module_available",
    },
    "lightning_utilities.core.enums": {"StrEnum": "fulmen.utilities.enums:LightningEnum"},
    "lightning_utilities.core.rank_zero": _OF_RANKS,
    "lightning_utilities.test.warning": {"no_warning_call": "fulmen.compat.lightning_utilities:no_warning_call"},
}

_NOT_PATCHED = "pass the Strategy or the Precision itself: `Trainer(strategy=..., plugins=...)`"

#: names that will not come, and what to write
_ADVICE = {
    **old_names.ADVICE,
    "pl.LightningModule._LightningModule__to_tensor": "`self.log` takes numbers and tensors as they are",
    "pl.LightningModule.__orig_to_tensor__": "`self.log` takes numbers and tensors as they are",
    "pl.Trainer.default_attributes": "read the defaults by `inspect.signature(Trainer)`",
    "fabric.strategies.XLAFSDPStrategy": "write XLAStrategy, which has the whole model on each device",
    "fabric.strategies.strategy._BackwardSyncControl": "strategies have it as their method `without_sync`",
    "pl.strategies.XLAFSDPStrategy": "write XLAStrategy, which has the whole model on each device",
    "fabric.strategies.xla_fsdp": "write XLAStrategy, which has the whole model on each device",
    "pl.loops.fetchers": "batches come from `trainer.data`; write an iterable of your own as a loader",
    "pl.loops.fit_loop": old_names.LOOPS,
    "pl.loops.evaluation_loop": old_names.LOOPS,
    "pl.loops.training_epoch_loop": old_names.LOOPS,
    "pl.trainer.connectors.accelerator_connector._AcceleratorConnector._check_and_init_precision": _NOT_PATCHED,
    "pl.trainer.connectors.accelerator_connector._AcceleratorConnector._choose_strategy": _NOT_PATCHED,
    "fabric.utilities.testing": "write `pytest.mark.skipif(...)`: it is of the tests of Lightning itself",
    "lightning_utilities.docs": "install `lightning-utilities`: it is for building the pages of Lightning's packages",
    "lightning.app": "that is another product, and no part of training",
}


def is_old(path: str) -> bool:
    """Whether ``path`` is Lightning's: its first part is."""
    return path.partition(".")[0] in ROOTS


def target_of(old: str) -> str | None:
    """The module of Fulmen that stands for the module ``old`` of Lightning; None if nothing does.

    Returns "" for a module that has entries of its own only, see :func:`home_of`.
    """
    name = _short(old)
    if name in _MODULES or name in old_names.MODULES:
        target = _MODULES.get(name, old_names.MODULES.get(name, ""))
        return target if not target or _exists(target) else None
    room = name
    while room not in _ROOMS:
        room = room.rpartition(".")[0]
        if not room:
            return None
    target = _ROOMS[room] + name[len(room) :]
    return target if _exists(target) else ("" if name in _NAMES else None)


def home_of(old: str, name: str) -> tuple[str, str] | None:
    """The module of Fulmen that has what the module ``old`` of Lightning calls ``name``, and its name there; None if
    nothing can. That it is there is not looked up."""
    entry = _NAMES.get(_short(old), {}).get(name) or old_names.NAMES.get(_short(old), {}).get(name)
    if entry is not None:
        module, _, attribute = entry.partition(":")
        return module, attribute
    target = target_of(old)
    return (target, name) if target else None


def public_names(old: str) -> list[str]:
    """What ``from old import *`` takes."""
    target = target_of(old)
    names = set(_NAMES.get(_short(old), ()))
    if target:
        module = import_module(target)
        names |= set(getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")])
    return sorted(name for name in names if not name.startswith("_"))


def reason_for(path: str) -> str | None:
    """What to write in the place of what Lightning calls ``path``, where it will not come; None: nothing is said."""
    name = _short(path)
    while name and name not in _ADVICE:
        name = name.rpartition(".")[0]
    return _ADVICE.get(name)


def missing_name(old: str, name: str) -> ImportError:
    """The error that says that the module ``old`` has no ``name`` here."""
    return ImportError(_sorry(old, name, public_names(old)), name=old)


def missing_module(old: str) -> ModuleNotFoundError:
    """The error that says that there is no module ``old`` here."""
    above, _, name = old.rpartition(".")
    while above and target_of(above) is None:
        above, _, name = above.rpartition(".")
    target = target_of(above) if above else None
    near = [module.name for module in iter_modules(getattr(import_module(target), "__path__", []))] if target else []
    return ModuleNotFoundError(_sorry(above, name, near, f"module {old!r}"), name=old)


def _sorry(old: str, name: str, others: list[str], what: str = "") -> str:
    text = f"Fulmen has no {what or repr(name)}"
    if old and not what:
        text += f" in {old!r}"
    target = target_of(old) if old else None
    text += f" (it would be in {target!r}): " if target and not what else ": "
    asked = f"{_short(old)}.{name}"
    advice = reason_for(asked)
    nearest = get_close_matches(name, others, n=1)
    if advice is not None:
        text += advice
    elif nearest:
        text += f"did you mean {nearest[0]!r}? If not, take the import out"
    else:
        text += "take the import out, or put it into `try: ... except ImportError: ...` if the program can do without"
    return f"{text}. What is offered here is Lightning {VERSION}'s surface as far as Fulmen has it."


def _short(old: str) -> str:
    for root in (".".join(old.split(".")[:2]), old.partition(".")[0]):
        if root in ROOTS:
            return ROOTS[root] + old[len(root) :]
    return old


@cache
def _exists(module: str) -> bool:
    """Whether Fulmen has ``module``, found out without importing what is above it."""
    path, name = [str(Path(__file__).parents[1])], "fulmen"
    for part in module.split(".")[1:]:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations or []
    return True
