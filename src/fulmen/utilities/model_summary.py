"""A model in a table: its layers, their parameters, what goes through them and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

UNKNOWN = "?"
NOT_APPLICABLE = "n/a"
LEFTOVER = "other params"

_FOOTER_WIDTH = 10


class LayerSummary:
    """One module of a model. The sizes of what goes in and out are noted when it is called for the first time.

    Args:
        module: the module to watch until :meth:`detach_hook`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._in_size: str | list[Any] = UNKNOWN
        self._out_size: str | list[Any] = UNKNOWN
        scripted = isinstance(module, torch.jit.ScriptModule)  # takes no such hooks
        self._hook = None if scripted else module.register_forward_hook(self._note_sizes, with_kwargs=True)

    def _note_sizes(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = [*args, *kwargs.values()]
        self._in_size = parse_batch_shape(inputs[0] if len(inputs) == 1 else inputs)
        self._out_size = parse_batch_shape(output)
        self.detach_hook()

    def detach_hook(self) -> None:
        """Watch the module no longer."""
        if self._hook is not None:
            self._hook.remove()

    @property
    def in_size(self) -> str | list[Any]:
        """The shape of the input as a list, one list for each of several inputs, or ``"?"`` if unknown."""
        return self._in_size

    @property
    def out_size(self) -> str | list[Any]:
        """The shape of the output, see :attr:`in_size`."""
        return self._out_size

    @property
    def layer_type(self) -> str:
        """The name of the module's class."""
        return type(self._module).__name__

    @property
    def num_parameters(self) -> int:
        """The numbers in all parameters of the module, each parameter once; those not initialised yet count as 0."""
        return _count(self._module.parameters())

    @property
    def training(self) -> bool:
        """Whether the module was in training mode when asked."""
        return self._module.training


class ModelSummary:
    """The layers of ``model``; ``str()`` gives the table.

    If the model has an ``example_input_array``, it is sent through the model once, in evaluation mode and without
    gradients, to find the sizes and to count the floating-point operations (of matrix products, convolutions and
    attention). A tuple or list is taken for the positional arguments of ``forward``, a dict for its keyword arguments.
    Modes and random generators stay as they were.

    Args:
        model: the module; a plain ``nn.Module`` will do.
        max_depth: how many levels of modules within modules to list: 1 for the model's own, -1 for all, 0 for none.

    Raises:
        ValueError: ``max_depth`` is not one of -1, 0, 1, 2 ...
    """

    def __init__(self, model: LightningModule | nn.Module, max_depth: int = 1) -> None:
        if not isinstance(max_depth, int) or max_depth < -1:
            raise ValueError(f"ModelSummary(max_depth={max_depth!r}): give -1 for all levels, or 0, 1, 2 ...")
        self._model = model
        self._max_depth = max_depth
        self._flops: dict[str, dict[Any, int]] = {}
        self._layer_summary = self.summarize()

    def summarize(self) -> dict[str, LayerSummary]:
        """Look at the model (again), and return a :class:`LayerSummary` for each listed module, by name."""
        layers = {name: LayerSummary(module) for name, module in self.named_modules}
        try:
            if self._example_input is not None:
                self._flops = _example_forward(self._model, self._example_input)
        finally:
            for layer in layers.values():
                layer.detach_hook()
        if any(is_lazy(parameter) for parameter in self._model.parameters()):
            rank_zero_warn(
                "Parameters that are not initialised yet count as 0 in the model summary. Set"
                " `self.example_input_array` in the module to have them initialised and counted."
            )
        return layers

    @property
    def named_modules(self) -> list[tuple[str, nn.Module]]:
        """The listed modules by name, outer ones first; a module that has several names is listed once."""
        listed: dict[nn.Module, str] = {}
        for name, module in self._model.named_modules(remove_duplicate=False):
            if name and (self._max_depth == -1 or name.count(".") < self._max_depth):
                listed.setdefault(module, name)
        return [(name, module) for module, name in listed.items()]

    @property
    def layer_names(self) -> list[str]:
        """The names of the listed modules. The lists below are in the same order."""
        return list(self._layer_summary)

    @property
    def layer_types(self) -> list[str]:
        return [layer.layer_type for layer in self._layer_summary.values()]

    @property
    def in_sizes(self) -> list[Any]:
        return [layer.in_size for layer in self._layer_summary.values()]

    @property
    def out_sizes(self) -> list[Any]:
        return [layer.out_size for layer in self._layer_summary.values()]

    @property
    def param_nums(self) -> list[int]:
        """The parameters of each listed module, those of the modules within it included."""
        return [layer.num_parameters for layer in self._layer_summary.values()]

    @property
    def training_modes(self) -> list[bool]:
        return [layer.training for layer in self._layer_summary.values()]

    @property
    def total_training_modes(self) -> dict[str, int]:
        """How many modules within the model, on all levels, are in ``"train"`` and in ``"eval"`` mode."""
        modes = [module.training for name, module in self._model.named_modules() if name]
        return {"train": sum(modes), "eval": len(modes) - sum(modes)}

    @property
    def total_parameters(self) -> int:
        """The numbers in all parameters of the model; a parameter that several modules share counts once."""
        return _count(self._model.parameters())

    @property
    def trainable_parameters(self) -> int:
        """Those of :attr:`total_parameters` that want gradients."""
        return _count(parameter for parameter in self._model.parameters() if parameter.requires_grad)

    @property
    def total_layer_params(self) -> int:
        """The sum of :attr:`param_nums`; parameters that several of the listed modules have count several times."""
        return sum(self.param_nums)

    @property
    def leftover_parameters(self) -> int:
        """The numbers in the parameters that belong to none of the listed modules."""
        listed = {parameter for _, module in self.named_modules for parameter in module.parameters()}
        return _count(parameter for parameter in self._model.parameters() if parameter not in listed)

    @property
    def model_size(self) -> float:
        """The size of all parameters in megabytes (10**6 bytes), in the types that they have now."""
        parameters = [parameter for parameter in self._model.parameters() if not is_lazy(parameter)]
        return sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 1e6

    @property
    def total_flops(self) -> int:
        """The floating-point operations of one forward of the example input; 0 if there is none."""
        return sum(self._flops.get("Global", {}).values())

    @property
    def flop_counts(self) -> dict[str, dict[Any, int]]:
        """The floating-point operations of each listed module, by operator."""
        root = type(self._model).__name__
        return {name: self._flops.get(f"{root}.{name}", {}) for name in self.layer_names}

    @property
    def _example_input(self) -> Any:
        return getattr(self._model, "example_input_array", None)

    def columns(self) -> list[tuple[str, list[str]]]:
        """The table as ``(heading, cells)``: index, Name, Type, Params, Mode, FLOPs, and In and Out sizes if seen."""
        layers = self._layer_summary.values()
        has_example = self._example_input is not None
        flops = [sum(counts.values()) for counts in self.flop_counts.values()]
        table: list[tuple[str, list[str]]] = [
            (" ", [str(index) for index in range(len(layers))]),
            ("Name", self.layer_names),
            ("Type", self.layer_types),
            ("Params", [get_human_readable_count(number) for number in self.param_nums]),
            ("Mode", ["train" if training else "eval" for training in self.training_modes]),
            ("FLOPs", [get_human_readable_count(number) if has_example else UNKNOWN for number in flops]),
        ]
        if has_example:
            table.append(("In sizes", [str(size) for size in self.in_sizes]))
            table.append(("Out sizes", [str(size) for size in self.out_sizes]))
        leftover = self.leftover_parameters
        if leftover:
            known = {" ": " ", "Name": LEFTOVER, "Params": get_human_readable_count(leftover)}
            for heading, cells in table:
                cells.append(known.get(heading, NOT_APPLICABLE))
        return table

    def __str__(self) -> str:
        return format_summary_table(
            self.columns(),
            total_parameters=self.total_parameters,
            trainable_parameters=self.trainable_parameters,
            model_size=self.model_size,
            total_training_modes=self.total_training_modes,
            total_flops=self.total_flops,
        )

    __repr__ = __str__


def summarize(lightning_module: LightningModule | nn.Module, max_depth: int = 1) -> ModelSummary:
    """The :class:`ModelSummary` of a module."""
    return ModelSummary(lightning_module, max_depth=max_depth)


# -- looking at the model ----------------------------------------------------------------------------------------------


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))


def _example_forward(model: Any, example_input: Any) -> dict[str, dict[Any, int]]:
    """Send the example through ``model``, and return the operations counted by torch, by module and operator."""
    from torch.utils.flop_counter import FlopCounterMode  # imports much

    example_input = _as_batch(model, example_input)
    try:
        precision_context = model.trainer.precision_plugin.forward_context()
    except (AttributeError, RuntimeError):  # no trainer
        precision_context = nullcontext()
    counter = FlopCounterMode(display=False)
    with _evaluation_mode(model), isolate_rng(), torch.no_grad(), precision_context, counter:
        if isinstance(example_input, (list, tuple)):
            model(*example_input)
        elif isinstance(example_input, Mapping):
            model(**example_input)
        else:
            model(example_input)
    return {str(name): dict(counts) for name, counts in counter.get_flop_counts().items()}


def _as_batch(model: Any, example_input: Any) -> Any:
    """The example as the model's own transfer hooks make it, on the device of the model's parameters."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if not hasattr(model, "transfer_batch_to_device"):
        return move_data_to_device(example_input, device)
    example_input = model.on_before_batch_transfer(example_input, 0)
    example_input = model.transfer_batch_to_device(example_input, device, 0)
    return model.on_after_batch_transfer(example_input, 0)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def parse_batch_shape(batch: Any) -> str | list[Any]:
    """The shape of a tensor as a list, a list of those for a list or tuple, and ``"?"`` for anything else."""
    if hasattr(batch, "shape"):
        return list(batch.shape)
    if isinstance(batch, (list, tuple)):
        return [parse_batch_shape(element) for element in batch]
    return UNKNOWN


# -- writing it down ---------------------------------------------------------------------------------------------------


def format_summary_table(
    columns: Sequence[tuple[str, Sequence[str]]],
    *,
    total_parameters: int,
    trainable_parameters: int,
    model_size: float,
    total_training_modes: Mapping[str, int],
    total_flops: int,
) -> str:
    """Write the columns of :meth:`ModelSummary.columns` and the totals below them as plain text."""
    widths = [max(map(len, [heading, *cells])) for heading, cells in columns]
    headings = [heading for heading, _ in columns]
    rows = list(zip(*(cells for _, cells in columns)))
    lines = [" | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in [headings, *rows]]
    rule = "-" * max(map(len, lines))
    footer = [
        (get_human_readable_count(trainable_parameters), "Trainable params"),
        (get_human_readable_count(total_parameters - trainable_parameters), "Non-trainable params"),
        (get_human_readable_count(total_parameters), "Total params"),
        (get_formatted_model_size(model_size), "Total estimated model params size (MB)"),
        (str(total_training_modes["train"]), "Modules in train mode"),
        (str(total_training_modes["eval"]), "Modules in eval mode"),
        (get_human_readable_count(total_flops), "Total FLOPs"),
    ]
    totals = [f"{number:<{_FOOTER_WIDTH}}{meaning}" for number, meaning in footer]
    return "\n".join([lines[0], rule, *lines[1:], rule, *totals])


def get_formatted_model_size(total_model_size: float) -> str:
    """A size in megabytes, with thousands separators and three decimals."""
    return f"{total_model_size:,.3f}"


def get_human_readable_count(number: int) -> str:
    """``number`` in units of K (thousand), M, B (10**9) or T (10**12), rounded to two or three digits.

    123 -> ``"123  "``, 1234 -> ``"1.2 K"``, 45_600_000 -> ``"45.6 M"``, 4 * 10**14 -> ``"400 T"``, 5 * 10**15 ->
    ``"5,000 T"``. The two blanks stand where the unit would.

    Raises:
        ValueError: ``number`` is negative.
    """
    if number < 0:
        raise ValueError(f"get_human_readable_count({number}): a count is not negative.")
    if number < 1000:
        return f"{int(number)}  "
    value = float(number)
    for unit in ("K", "M", "B", "T"):
        value /= 1000
        if round(value) < 1000 or unit == "T":
            break
    return f"{value:.1f} {unit}" if round(value, 1) < 100 else f"{round(value):,d} {unit}"
