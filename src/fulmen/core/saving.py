"""Make a module or datamodule again from a checkpoint; files of hyperparameters."""

from __future__ import annotations

import ast
import csv
import functools
import importlib.util
import inspect
import io
import os
import pathlib
import types
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fulmen.core.described import is_named, made_again
from fulmen.core.hparams import given_hyperparameters
from fulmen.core.plain import (
    LEFT_OUT,
    NoPlainForm,
    component,
    from_plain,
    plain_value,
    restore_container,
)
from fulmen.plugins.io.torch_plugin import open_remote, read_checkpoint, write_whole
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import plainly, shown

if TYPE_CHECKING:
    from fulmen.core.datamodule import LightningDataModule
    from fulmen.core.hparams import HyperparameterOwner
    from fulmen.core.module import LightningModule

    Owner = TypeVar("Owner", bound=HyperparameterOwner)
    Module = TypeVar("Module", bound=LightningModule)
    DataModule = TypeVar("DataModule", bound=LightningDataModule)

FilePath = str | os.PathLike[str]

#: what YAML's tags for Python types begin with
_PYTHON = "tag:yaml.org,2002:python/"

#: values of a YAML file, where those that aliases share count each time
_MAX_YAML_VALUES = 1_000_000

#: where files of long ago had the hyperparameters
_OLD_HPARAMS_KEYS = ("module_arguments", "hparams")

#: where the constructors are that a class has if its author wrote none
_NOT_WRITTEN_BY_USERS = ("fulmen.core.module", "fulmen.core.datamodule", "torch.nn.modules.module")


# -- load_from_checkpoint ---------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    class_only = classmethod
else:

    class class_only:
        """Like ``classmethod``, but a call on an instance raises, since its result would be lost there."""

        def __init__(self, function: Callable[..., Any]) -> None:
            self.function = function
            self.__doc__ = function.__doc__
            self.name = function.__name__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
            if instance is None:
                return types.MethodType(self.function, owner)
            # only the call raises: tools look at every attribute of an instance
            return functools.partial(_refuse, f"{owner.__name__}.{self.name}")


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    raise TypeError(
        f"`{name}` makes a new object and would leave the one it is called on as it is. Call it on the class and keep"
        f" what it returns: `it = {name}(path)`."
    )


def load_module(
    cls: type[Module],
    checkpoint_path: FilePath | IO[bytes],
    map_location: Any = None,
    hparams_file: FilePath | None = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> Module:
    """Make a module with the hyperparameters of a checkpoint, and load its weights.

    The module is in training mode, on the device of the checkpoint's first tensor.

    Args:
        checkpoint_path: a local path, a URL or an open file.
        map_location: where to put tensors, as in ``torch.load``. None: where they were when they were saved, or the CPU
            if this machine does not have that device.
        hparams_file: a ``.yaml``, ``.yml`` or ``.csv`` file with hyperparameters to take in place of the checkpoint's.
        strict: whether the checkpoint must have exactly the weights that the module has; if not, warnings tell what
            differs. None: as the module's ``strict_loading`` says.
        weights_only: None or True: nothing that the file names is imported or called. False: the file may hold any
            Python object, and loading it may run any code; only for files that you trust.
        kwargs: arguments of the constructor, in place of those in the checkpoint. If one argument takes all
            hyperparameters (``conf``, say), those that the constructor does not have itself go into it.

    Raises:
        TypeError: the constructor needs an argument that neither the checkpoint nor ``kwargs`` has.
        ValueError: ``strict`` contradicts the ``strict_loading`` that the module has set.
        KeyError: the file is not a checkpoint of a trainer.
        FileNotFoundError, RuntimeError, pickle.UnpicklingError: the file cannot be read; see
            :func:`~fulmen.plugins.io.torch_plugin.read_checkpoint`.
    """
    checkpoint = _read(checkpoint_path, map_location, weights_only)
    if "state_dict" not in checkpoint:
        raise KeyError(
            f"{_name(checkpoint_path)} has no `state_dict`, so it is not a checkpoint of a trainer (it has"
            f" {', '.join(map(repr, list(checkpoint)[:5])) or 'nothing'}). If these are weights alone, write"
            " `model.load_state_dict(torch.load(path))`."
        )
    weights = checkpoint["state_dict"]
    if not isinstance(weights, Mapping) or not all(type(key) is str for key in weights):
        raise ValueError(f"{_name(checkpoint_path)} has {plainly(weights)} as `state_dict`, not tensors by name.")
    module = _make(cls, checkpoint, _name(checkpoint_path), hparams_file, kwargs)
    if strict is not None and module._strict_loading is not None and strict != module._strict_loading:
        raise ValueError(
            f"`load_from_checkpoint(strict={strict})`, but {type(module).__name__} sets"
            f" `strict_loading = {module._strict_loading}` itself. Leave out one of them."
        )
    strict = module.strict_loading if strict is None else strict
    module.configure_model()
    module.on_load_checkpoint(checkpoint)
    state_dict = checkpoint["state_dict"]
    differences = load_weights(module, state_dict, strict, _name(checkpoint_path))
    if not strict and differences is not None:
        _warn_of_differences(type(module).__name__, differences.missing_keys, differences.unexpected_keys)
    device = next((value.device for value in state_dict.values() if isinstance(value, Tensor)), None)
    if device is None:
        rank_zero_warn(
            f"{_name(checkpoint_path)} has no weights; {cls.__name__} is as its constructor made it.", stacklevel=5
        )
        return module
    return module.to(device)


def load_weights(module: torch.nn.Module, state_dict: Mapping[str, Any], strict: bool, source: str) -> Any:
    """``module.load_state_dict``, with an error that says briefly what does not fit.

    Raises:
        RuntimeError: names or shapes differ.
        ValueError: the versions of the modules, which a state dict has beside the weights, are none.
    """
    _check_metadata(getattr(state_dict, "_metadata", None), source)
    try:
        return module.load_state_dict(state_dict, strict=strict)
    except RuntimeError as error:
        own = module.state_dict()
        kind = type(module).__name__
        missing, unexpected = (
            [key for key in own if key not in state_dict],
            [key for key in state_dict if key not in own],
        )
        shapes = [
            f"{key} is {tuple(value.shape)} in the file and {tuple(own[key].shape)} in the module"
            for key, value in state_dict.items()
            if isinstance(value, Tensor) and isinstance(own.get(key), Tensor) and value.shape != own[key].shape
        ]
        found = [
            f"{what}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes[:2]))
            if names
        ]
        if not found:
            raise RuntimeError(f"the weights in {source} do not fit {kind}: {error}") from error
        advice = "Make the module with the arguments of the one that was saved"
        if not shapes:
            advice += ", or set `self.strict_loading = False` to load what fits"
        raise RuntimeError(f"the weights in {source} do not fit {kind} ({'; '.join(found)}). {advice}.") from error


def _check_metadata(metadata: Any, source: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, Mapping) or not all(
        isinstance(of_one, Mapping) and isinstance(of_one.get("version"), (int, type(None)))
        for of_one in metadata.values()
    ):
        raise ValueError(f"{source} has {plainly(metadata)} as versions of modules (`state_dict._metadata`).")


def load_datamodule(
    cls: type[DataModule],
    checkpoint_path: FilePath | IO[bytes],
    map_location: Any = None,
    hparams_file: FilePath | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> DataModule:
    """Make a datamodule with the hyperparameters that a checkpoint has of it, and load its state.

    The arguments and errors are those of :func:`load_module`.
    """
    checkpoint = _read(checkpoint_path, map_location, weights_only)
    datamodule = _make(cls, checkpoint, _name(checkpoint_path), hparams_file, kwargs)
    state = checkpoint.get(type(datamodule).__qualname__)
    if state is not None:
        datamodule.load_state_dict(state)
    return datamodule


def _read(source: FilePath | IO[bytes], map_location: Any, weights_only: bool | None) -> dict[str, Any]:
    location = _cpu_if_missing if map_location is None else map_location
    checkpoint: Any = read_checkpoint(source, location, weights_only)
    if not isinstance(checkpoint, dict):
        raise KeyError(f"{_name(source)} is not a checkpoint of a trainer: it holds one {type(checkpoint).__name__}.")
    return checkpoint


def _name(source: Any) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the open file"


def _cpu_if_missing(storage: Any, location: str) -> Any:
    """Where to put a storage that was saved from ``location``; as a ``map_location`` of ``torch.load``."""
    device = torch.device(location)
    known = getattr(torch.backends if device.type == "mps" else torch, device.type, None)
    if device.type in ("cpu", "meta"):
        there = True
    elif known is None or not known.is_available():
        there = False
    else:
        there = device.type == "mps" or (device.index or 0) < known.device_count()
    return torch.serialization.default_restore_location(storage, location) if there else storage


def _warn_of_differences(name: str, missing: list[str], unexpected: list[str]) -> None:
    if missing:
        rank_zero_warn(
            f"The checkpoint has no {_listed(missing)}, which {name} keeps as its constructor made them.", stacklevel=6
        )
    if unexpected:
        rank_zero_warn(
            f"The checkpoint has {_listed(unexpected)}, which {name} does not have; they are not loaded.", stacklevel=6
        )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _call_with(names: list[str], cls: type[Any], source: str) -> str:
    """The line to write to give arguments that a checkpoint does not have."""
    given = ", ".join(f"{name}=..." for name in names)
    return f"`{cls.__name__}.load_from_checkpoint({source!r}, {given})`"


# -- the constructor's arguments --------------------------------------------------------------------------------------


def _make(
    cls: type[Owner], checkpoint: Mapping[str, Any], source: str, hparams_file: FilePath | None, given: dict[str, Any]
) -> Owner:
    """An object of ``cls`` (or of a subclass that the checkpoint names) from saved and given arguments."""
    saved, kinds = _saved_hparams(cls, checkpoint, source)
    name = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_NAME)
    if not isinstance(name, (str, type(None))):
        raise ValueError(
            f"{source} has {plainly(name)} as `{cls.CHECKPOINT_HYPER_PARAMS_NAME}`, which must be the name of an"
            " argument."
        )
    if hparams_file is not None:
        saved, kinds = _read_hparams_file(hparams_file), None
    path_of_class = saved.pop("_class_path", None)
    cls = _class_named(path_of_class, cls, source)
    instantiator = saved.pop("_instantiator", None)
    described: dict[str, Any] | None = None
    parameters = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])
    if name in parameters and name != "kwargs":
        arguments = _one_argument(name, parameters, saved, kinds, given, source)
    else:
        arguments = _from_plain(saved, kinds, source, cls)
        arguments = {key: value for key, value in arguments.items() if key not in given}
        if instantiator is not None:  # the command line had made objects of what it parsed
            described = {**arguments, **given, "_instantiator": instantiator}
            if path_of_class is not None:
                described["_class_path"] = path_of_class
            arguments = made_again(cls, arguments, source)
        arguments |= given
    if not _takes_anything(cls, parameters):
        ignored = [key for key in given if key in arguments and key not in parameters]
        if ignored:
            rank_zero_warn(f"{cls.__name__} has no argument {_listed(ignored)}; ignored.", stacklevel=6)
        arguments = {key: value for key, value in arguments.items() if key in parameters}
    _check_names(arguments, cls, source)
    left_out = {key for key, kind in (kinds or {}).items() if kind == LEFT_OUT} - given.keys()
    _check_complete(cls, parameters, arguments, source, left_out)
    defaults = sorted(left_out & parameters.keys())
    if defaults:
        rank_zero_warn(
            f"{source} has no {_listed(defaults)}, without a plain form: {cls.__name__} gets its default. Give it:"
            f" {_call_with(defaults, cls, source)}.",
            stacklevel=6,
        )
    only_positional = [key for key, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY]
    positional = [arguments.pop(key) for key in only_positional if key in arguments]
    try:
        # the new object remembers the descriptions, as the old one did
        with nullcontext() if described is None else given_hyperparameters(cls, described):
            return cls(*positional, **arguments)
    except Exception as error:
        if left_out:
            error.add_note(
                f"{source} has no {_listed(sorted(left_out))}: without a plain form, it was left out when the"
                f" checkpoint was written. Write {_call_with(sorted(left_out), cls, source)}."
            )
        raise


def _saved_hparams(
    cls: type[Any], checkpoint: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], dict[str, str] | None]:
    saved: dict[str, Any] = {}
    for key in (*_OLD_HPARAMS_KEYS, cls.CHECKPOINT_HYPER_PARAMS_KEY):
        values = checkpoint.get(key) or {}
        if isinstance(values, Namespace):
            values = vars(values)
        if not isinstance(values, Mapping):
            raise ValueError(f"{source} has {plainly(values)} as `{key}`, which must be a dict of hyperparameters.")
        saved |= values
    kinds = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KINDS)
    if kinds is not None and not (
        isinstance(kinds, Mapping) and all(type(text) is str for pair in kinds.items() for text in pair)
    ):
        raise ValueError(
            f"{source} has {plainly(kinds)} as `{cls.CHECKPOINT_HYPER_PARAMS_KINDS}`, which must be a dict of texts."
        )
    return saved, None if kinds is None else dict(kinds)


def _from_plain(
    saved: dict[str, Any], kinds: dict[str, str] | None, source: str, cls: type[Any] | None = None
) -> dict[str, Any]:
    try:
        return from_plain(saved, kinds, cls)
    except ValueError as error:
        raise ValueError(f"{source} cannot be read as hyperparameters. {error}") from error


def _check_names(arguments: Mapping[Any, Any], cls: type[Any], source: str) -> None:
    """Raise if a hyperparameter cannot be an argument of the constructor, whatever that takes."""
    first = next(iter(inspect.signature(cls.__init__).parameters), None)
    odd = [key for key in arguments if type(key) is not str or key == first]
    if odd:
        raise ValueError(
            f"{source} has hyperparameters that are no names of arguments: {', '.join(map(shown, odd[:5]))}. Give all"
            f" arguments by `hparams_file=`, or make the {cls.__name__} yourself and load only the weights."
        )


def _one_argument(
    name: str,
    parameters: Mapping[str, Any],
    saved: dict[str, Any],
    kinds: dict[str, str] | None,
    given: dict[str, Any],
    source: str,
) -> dict[str, Any]:
    """The arguments of a constructor whose parameter ``name`` takes all hyperparameters as one collection."""
    if name in given:
        return dict(given)
    values = _from_plain(saved, kinds, source)
    own = {key: value for key, value in given.items() if key in parameters and key not in values}
    values |= {key: value for key, value in given.items() if key not in own}
    # a file without kinds does not say which collection it was: this one can be used as a dict and as a namespace
    return {name: restore_container(values, "attribute_dict" if kinds is None else kinds.get("")), **own}


def _class_named(path: Any, cls: type[Owner], source: str) -> type[Owner]:
    """``cls`` or that one of its subclasses which ``path`` names. It must be imported already."""
    if path is None:
        return cls
    todo: list[type[Any]] = [cls]
    while todo:
        candidate = todo.pop()
        # what a script calls `__main__` has the script's name where another one imports it
        if path == f"__main__.{candidate.__qualname__}" or (isinstance(path, str) and is_named(candidate, path)):
            return candidate
        todo += type.__subclasses__(candidate)
    raise ValueError(
        f"{source} is of the class {shown(path)}, which is not {cls.__name__} nor an imported subclass of it, and a"
        " checkpoint makes nothing be imported. If you trust it, import that class first, or call its own"
        " `load_from_checkpoint`."
    )


def _takes_anything(cls: type[Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether the constructor has ``**kwargs``, and not only because nobody wrote one."""
    written = getattr(cls.__init__, "__module__", None) not in _NOT_WRITTEN_BY_USERS
    return written and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_complete(
    cls: type[Any],
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    source: str,
    left_out: set[str],
) -> None:
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in arguments
    ]
    if not missing:
        return
    if left_out & set(missing):
        why = f"{_listed(sorted(left_out & set(missing)))} had no plain form and was left out when it was written."
    else:
        why = f"Call `self.save_hyperparameters()` in `{cls.__name__}.__init__` to have it in checkpoints."
    raise TypeError(
        f"{cls.__name__} cannot be made from {source}: its constructor needs {_listed(missing)}, which the checkpoint"
        f" does not have. {why} Write {_call_with(missing, cls, source)}."
    )


# -- files of hyperparameters -----------------------------------------------------------------------------------------


def save_hparams_to_yaml(
    config_yaml: FilePath, hparams: Mapping[str, Any] | Namespace, use_omegaconf: bool = True
) -> None:
    """Write hyperparameters as YAML: enum members as their names, paths as text, dataclasses as mappings.

    What YAML cannot say (models, functions, large tensors) is left out, and a warning names it.

    Args:
        config_yaml: a local path or an fsspec URL; its folders are made.
        hparams: a dict, namespace or OmegaConf container.
        use_omegaconf: has no effect; OmegaConf containers are always understood.
    """
    import yaml

    text, left_out, dumper = [], [], _yaml_dumper()
    for name, value in _items(hparams):
        try:
            entry = {name: plain_value(value, component(name), {}, enums_by_name=True)}
            text.append(yaml.dump(entry, Dumper=dumper, sort_keys=False, allow_unicode=True))
        except (NoPlainForm, ValueError, yaml.YAMLError):
            left_out.append(str(name))
    if left_out:
        rank_zero_warn(f"{os.fspath(config_yaml)} is without {_listed(left_out)}: YAML cannot say what they are.")
    _write_text(config_yaml, "".join(text) or "{}\n")


def load_hparams_from_yaml(config_yaml: FilePath, use_omegaconf: bool = True) -> Any:
    """Read hyperparameters from YAML. Nothing that the file names is imported or called.

    Args:
        config_yaml: a local path or an fsspec URL.
        use_omegaconf: give an OmegaConf container if OmegaConf is installed, a dict otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, holds no mapping, or asks for Python objects beyond tuples, complex numbers, paths.
    """
    import yaml

    try:
        loader = _yaml_loader()(_read_text(config_yaml))
        node = loader.get_single_node()
        _check_size(node)
        hparams = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{os.fspath(config_yaml)} cannot be read as hyperparameters: {str(error) or type(error).__name__}"
        ) from error
    if not isinstance(hparams, dict):
        raise ValueError(f"{os.fspath(config_yaml)} holds no mapping of names to values, but {plainly(hparams)}.")
    if use_omegaconf and importlib.util.find_spec("omegaconf") is not None:
        import omegaconf  # type: ignore[import-not-found]

        with suppress(omegaconf.errors.OmegaConfBaseException):  # it does not know all types that YAML has
            return omegaconf.OmegaConf.create(hparams)
    return hparams


def save_hparams_to_tags_csv(tags_csv: FilePath, hparams: Mapping[str, Any] | Namespace) -> None:
    """Write hyperparameters as a table with the columns ``key`` and ``value``."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(("key", "value"))
    for name, value in _items(hparams):
        rows.writerow((name, str(value)))
    _write_text(tags_csv, table.getvalue())


def load_hparams_from_tags_csv(tags_csv: FilePath) -> dict[str, Any]:
    """Read what :func:`save_hparams_to_tags_csv` wrote; what looks like a Python literal becomes its value.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there are no columns ``key`` and ``value``, or it is no table.
    """
    try:
        rows = csv.DictReader(io.StringIO(_read_text(tags_csv), newline=""))
        if not {"key", "value"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{os.fspath(tags_csv)} has no columns `key` and `value`, but {rows.fieldnames}.")
        return {row["key"]: convert(row["value"] or "") for row in rows}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(tags_csv)} cannot be read as hyperparameters: {error}.") from error


def convert(val: str) -> Any:
    """The Python literal that ``val`` is, or ``val`` itself."""
    try:
        return ast.literal_eval(val)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two: nested too deeply
        return val


def _read_hparams_file(path: FilePath) -> dict[str, Any]:
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix == ".csv":
        return load_hparams_from_tags_csv(path)
    if suffix in (".yaml", ".yml"):
        return load_hparams_from_yaml(path, use_omegaconf=False)
    raise ValueError(
        f"`hparams_file={os.fspath(path)!r}` ends in {suffix!r}. Give a file that ends in `.yaml`, `.yml` or `.csv`."
    )


def _items(hparams: Any) -> Any:
    return (vars(hparams) if isinstance(hparams, Namespace) else hparams).items()


def _write_text(path: FilePath, text: str) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_whole(path, write)


def _read_text(path: FilePath) -> str:
    local = path_if_local(path)
    if local is not None:
        return local.read_text(encoding="utf-8")
    with open_remote(path) as file:
        return file.read().decode()


def _check_size(top: Any) -> None:
    """Refuse aliases that make a short file unfold to many values, or to a value that contains itself.

    Raises:
        ValueError: it does.
    """
    sizes: dict[int, int | None] = {}  # None while what is in a node is looked at
    todo = [(top, False)]
    while todo:
        node, is_done = todo.pop()
        children = getattr(node, "value", None)
        if not isinstance(children, list):
            continue
        if node.id == "mapping":
            children = [part for pair in children for part in pair]
        if is_done:
            sizes[id(node)] = size = 1 + sum(sizes.get(id(child)) or 1 for child in children)
            if size > _MAX_YAML_VALUES:
                raise ValueError(f"its aliases unfold to more than {_MAX_YAML_VALUES:,} values")
        elif id(node) not in sizes:
            sizes[id(node)] = None
            todo.append((node, True))
            todo.extend((child, False) for child in children)
        elif sizes[id(node)] is None:
            raise ValueError("it has a value that contains itself")


def _yaml_dumper() -> type[Any]:
    """A safe dumper that also knows tuples, complex numbers and what torch adds to simple values."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def dump_tensor(dumper: Any, tensor: Tensor) -> Any:
        if tensor.numel() > 1000 or tensor.is_meta:
            raise ValueError("nobody would read that")
        return dumper.represent_data(tensor.tolist())

    def dump_text(dumper: Any, value: Any) -> Any:
        return dumper.represent_str(str(value))

    def dump_size(dumper: Any, size: torch.Size) -> Any:
        return dumper.represent_list(list(size))

    def dump_tuple(dumper: Any, value: tuple[Any, ...]) -> Any:
        return dumper.represent_sequence(f"{_PYTHON}tuple", value)

    def dump_complex(dumper: Any, value: complex) -> Any:
        return dumper.represent_scalar(f"{_PYTHON}complex", str(value))

    Dumper.add_representer(tuple, dump_tuple)
    Dumper.add_representer(complex, dump_complex)
    Dumper.add_representer(torch.Size, dump_size)
    Dumper.add_representer(torch.dtype, dump_text)
    Dumper.add_representer(torch.device, dump_text)
    Dumper.add_multi_representer(Tensor, dump_tensor)
    return Dumper


def _yaml_loader() -> type[Any]:
    """A safe loader that also knows tuples, complex numbers and paths, as they are in files of Lightning."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def make_tuple(loader: Any, node: Any) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node, deep=True))

    def make_complex(loader: Any, node: Any) -> complex:
        return complex(loader.construct_scalar(node))

    def make_path(loader: Any, node: Any) -> pathlib.Path:
        return pathlib.Path(*loader.construct_sequence(node, deep=True))

    Loader.add_constructor(f"{_PYTHON}tuple", make_tuple)
    Loader.add_constructor(f"{_PYTHON}complex", make_complex)
    for name in ("PosixPath", "WindowsPath", "Path"):
        Loader.add_constructor(f"{_PYTHON}object/apply:pathlib.{name}", make_path)
    return Loader
