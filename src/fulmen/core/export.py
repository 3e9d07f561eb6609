"""A trained module in the formats of other programs: ONNX, TorchScript, TensorRT, and torch's own exported program."""

from __future__ import annotations

import importlib.util
import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal

import torch

from fulmen.plugins.io.torch_plugin import write_whole
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_deprecation

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from fulmen.core.module import LightningModule

#: stands in for a trainer that has no properties at all
_NO_TRAINER = object()


def to_exported_program(module: LightningModule, input_sample: Any = None, **kwargs: Any) -> ExportedProgram:
    """Export ``forward``, as it is for evaluation, with ``torch.export``.

    Args:
        module: the module; it is left as it was.
        input_sample: an input of ``forward``: a tensor, a tuple of positional arguments or a dict of keyword arguments.
            None: the module's ``example_input_array``.
        kwargs: further arguments of ``torch.export.export``, ``dynamic_shapes`` for one.

    Raises:
        ValueError: there is no sample.
    """
    args, keywords = _sample_call(module, input_sample, "to_exported_program(input_sample=...)")
    with _for_evaluation(module), torch.no_grad():
        return torch.export.export(module, args, keywords, **kwargs)


def to_onnx(
    module: LightningModule,
    file_path: str | os.PathLike[str] | IO[bytes] | None = None,
    input_sample: Any = None,
    **kwargs: Any,
) -> Any:
    """Save ``forward``, as it is for evaluation, as ONNX.

    Args:
        module: the module; it is left as it was.
        file_path: where to write the model: a path or an open binary file. None: nowhere, it is only returned.
        input_sample: an input of ``forward``: a tensor, a tuple of positional arguments or a dict of keyword arguments.
            None: the module's ``example_input_array``.
        kwargs: further arguments of ``torch.onnx.export``.

    Returns:
        What ``torch.onnx.export`` returns: a ``torch.onnx.ONNXProgram``, or None with ``dynamo=False``.

    Raises:
        ModuleNotFoundError: a package that is needed is not installed; the message has the line that installs it.
        ValueError: there is no sample.
    """
    _need("onnx", "to_onnx", "pip install onnx")
    parameters = inspect.signature(torch.onnx.export).parameters
    if kwargs.get("dynamo", parameters["dynamo"].default if "dynamo" in parameters else False):
        _need("onnxscript", "to_onnx", "pip install onnxscript", "or pass `dynamo=False`")
    args, keywords = _sample_call(module, input_sample, "to_onnx(path, input_sample=...)")
    if keywords:
        kwargs = {"kwargs": keywords, **kwargs}
    file = os.fspath(file_path) if isinstance(file_path, os.PathLike) else file_path
    with _for_evaluation(module), torch.no_grad():
        return torch.onnx.export(module, args, file, **kwargs)  # type: ignore[arg-type]


def to_torchscript(
    module: LightningModule,
    file_path: str | os.PathLike[str] | None = None,
    method: Literal["script", "trace"] = "script",
    example_inputs: Any = None,
    **kwargs: Any,
) -> Any:
    """Compile ``forward``, as it is for evaluation, to TorchScript. Torch advises against it for new work.

    Args:
        module: the module; it is left as it was.
        file_path: also save it there: a local path or an fsspec URL. None: do not.
        method: ``"script"`` reads the source of ``forward``; ``"trace"`` runs it once and records that.
        example_inputs: for ``"trace"`` an input of ``forward``: a tensor, a tuple of positional arguments or a dict of
            keyword arguments. None: the module's ``example_input_array``.
        kwargs: further arguments of ``torch.jit.script`` or ``torch.jit.trace``.

    Returns:
        The ``ScriptModule``.

    Raises:
        ValueError: another ``method``, or no sample for ``"trace"``.
    """
    if method not in ("script", "trace"):
        raise ValueError(f"`to_torchscript(method={method!r})`: there are only 'script' and 'trace'.")
    rank_zero_deprecation(
        "`to_torchscript` still works, but torch has given TorchScript up. Write"
        " `torch.export.save(module.to_exported_program(sample), path)` instead."
    )
    with _for_evaluation(module), _readable_by_torchscript(module), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)  # said already
        if method == "script":
            scripted = torch.jit.script(module, **kwargs)
        else:
            args, keywords = _sample_call(module, example_inputs, 'to_torchscript(method="trace", example_inputs=...)')
            inputs = {"example_kwarg_inputs": keywords} if keywords else {"example_inputs": args}
            scripted = torch.jit.trace(module, **inputs, **kwargs)
        if file_path is not None:
            write_whole(file_path, lambda file: torch.jit.save(scripted, file))
    return scripted


def to_tensorrt(
    module: LightningModule,
    file_path: str | os.PathLike[str] | IO[bytes] | None = None,
    input_sample: Any = None,
    ir: Literal["default", "dynamo", "ts"] = "default",
    output_format: Literal["exported_program", "torchscript"] = "exported_program",
    retrace: bool = False,
    default_device: str | torch.device = "cuda",
    **compile_kwargs: Any,
) -> Any:
    """Compile ``forward``, as it is for evaluation, for TensorRT on an NVIDIA GPU.

    Args:
        module: the module; it is left as it was, on the device where it was.
        file_path: where to save the compiled module: a path or an open binary file. None: nowhere, it is only returned.
        input_sample: an input of ``forward``: a tensor, a tuple of positional arguments or a dict of keyword arguments.
            None: the module's ``example_input_array``.
        ir: how ``torch_tensorrt.compile`` reads the module.
        output_format: the format of the file. ``ir="ts"`` has only ``"torchscript"``.
        retrace: export the compiled module anew to save it.
        default_device: where to compile if the module is not on a GPU.
        compile_kwargs: further arguments of ``torch_tensorrt.compile``.

    Raises:
        ModuleNotFoundError: torch_tensorrt is not installed.
        MisconfigurationException: neither the module's device nor ``default_device`` is a GPU.
        ValueError: there is no sample, or ``ir`` and ``output_format`` do not go together.
    """
    _need("torch_tensorrt", "to_tensorrt", "pip install torch-tensorrt")
    if ir not in ("default", "dynamo", "ts"):
        raise ValueError(f"`to_tensorrt(ir={ir!r})`: there are only 'default', 'dynamo' and 'ts'.")
    if ir == "ts" and output_format != "torchscript":
        raise ValueError(f"`to_tensorrt(ir='ts', output_format={output_format!r})`: it has only 'torchscript'.")
    before = module.device
    device = before if before.type == "cuda" else torch.device(default_device)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise MisconfigurationException(
            f"TensorRT needs an NVIDIA GPU, but the module is on {before} and `default_device` is {default_device}, and"
            f" torch finds {torch.cuda.device_count()} GPUs. Write `default_device='cuda'` on a machine that has one."
        )
    import torch_tensorrt  # type: ignore[import-not-found]

    try:
        module.to(device)
        args, keywords = _sample_call(module, input_sample, "to_tensorrt(path, input_sample=...)")
        with _for_evaluation(module), torch.no_grad():
            if ir == "ts":
                read: Any = torch.jit.trace(module, args)
                compiled = torch_tensorrt.compile(read, ir=ir, inputs=list(args), **compile_kwargs)
            else:
                compiled = torch_tensorrt.compile(
                    module, ir=ir, arg_inputs=args, kwarg_inputs=keywords, **compile_kwargs
                )
            if file_path is not None:
                torch_tensorrt.save(
                    compiled,
                    os.fspath(file_path) if isinstance(file_path, os.PathLike) else file_path,
                    output_format=output_format,
                    retrace=retrace,
                    arg_inputs=args,
                    kwarg_inputs=keywords,
                )
    finally:
        module.to(before)
    return compiled


def _sample_call(module: LightningModule, sample: Any, how: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``forward`` that ``sample`` stands for, moved to the module's device as a batch would be."""
    if sample is None:
        sample = module.example_input_array
    if sample is None:
        raise ValueError(
            f"An input is needed to export {type(module).__name__}. Write `{how}`, or set"
            " `self.example_input_array` in `__init__`."
        )
    sample = module.on_before_batch_transfer(sample, 0)
    sample = module.transfer_batch_to_device(sample, module.device, 0)
    sample = module.on_after_batch_transfer(sample, 0)
    if isinstance(sample, dict):
        return (), sample
    return (sample if isinstance(sample, tuple) else (sample,)), {}


@contextmanager
def _for_evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Put the module into evaluation mode, and each of its parts back into the mode it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _readable_by_torchscript(module: torch.nn.Module) -> Iterator[None]:
    """Let TorchScript look at every attribute of the module and its parts.

    Without a trainer those that ask it would raise, and the annotations of our own attributes are none that it knows.
    """
    parts = [part for part in module.modules() if hasattr(type(part), "_trainer")]
    before = [dict(part.__dict__) for part in parts]
    for part in parts:
        ours = {
            name
            for cls in type(part).__mro__
            if cls.__module__.startswith("fulmen.core")
            for name in inspect.get_annotations(cls)
        }
        ignored = [*getattr(part, "__jit_ignored_attributes__", ()), *ours]
        part.__dict__ |= {
            "__jit_ignored_attributes__": ignored,
            "_trainer": part.__dict__.get("_trainer") or _NO_TRAINER,
        }
    try:
        yield
    finally:
        for part, attributes in zip(parts, before):
            for name in ("__jit_ignored_attributes__", "_trainer"):
                del part.__dict__[name]
                if name in attributes:
                    part.__dict__[name] = attributes[name]


def _need(package: str, method: str, install: str, otherwise: str = "") -> None:
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"`{method}` needs the package {package}, which is not installed. Run `{install}`"
            f"{f', {otherwise}' if otherwise else ''}.",
            name=package,
        )
