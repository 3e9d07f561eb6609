"""The table of the model's layers that is printed when ``fit`` begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.utilities.model_summary import (
    NOT_APPLICABLE,
    UNKNOWN,
    get_formatted_model_size,
    get_human_readable_count,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

#: the columns whose cells are numbers, and so end at the same place
NUMBERS = (" ", "Params", "FLOPs")


class ModelSummary(Callback):
    """Prints the layers of the model, with their parameters, when ``fit`` begins (on the first rank).

    With an ``example_input_array`` on the module the table also has the sizes of what goes in and out of each layer,
    and the floating-point operations.

    Args:
        max_depth: how many levels of modules within modules to list: 1 for the model's own, -1 for all, 0 for no table.
        summarize_kwargs: passed on to :meth:`summarize`.

    Raises:
        ValueError: ``max_depth`` is not one of -1, 0, 1, 2 ...
    """

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        if not isinstance(max_depth, int) or max_depth < -1:
            raise ValueError(
                f"`{type(self).__name__}(max_depth={max_depth!r})`: write -1 for all levels, 0 for no table, 1, 2 ..."
            )
        self._max_depth = max_depth
        self._summarize_kwargs = summarize_kwargs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._max_depth:
            return
        summary = summarize(pl_module, max_depth=self._max_depth)  # on every rank: a sharded model's forward needs all
        if trainer.is_global_zero:
            self.summarize(
                summary.columns(),
                summary.total_parameters,
                summary.trainable_parameters,
                summary.model_size,
                summary.total_training_modes,
                summary.total_flops,
                **self._summarize_kwargs,
            )

    @staticmethod
    def summarize(
        summary_data: Sequence[tuple[str, Sequence[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: Mapping[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Print the table. Override this to show it your own way.

        Args:
            summary_data: the columns, each as its heading and its cells.
            total_parameters: the number of parameters of the model.
            trainable_parameters: how many of them are trained.
            model_size: in megabytes.
            total_training_modes: the number of modules in ``"train"`` and in ``"eval"`` mode.
            total_flops: the operations of one forward of the example; 0 without one.
            summarize_kwargs: what was given to the constructor beside ``max_depth``.
        """
        columns = [[heading, *cells] for heading, cells in aligned_columns(summary_data)]
        columns = [[cell.replace(", ", ",") for cell in column] for column in columns]  # sizes take less room so
        widths = [max(map(len, column)) for column in columns]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in zip(*columns)]
        rule = "-" * max(map(len, lines))
        totals = summary_totals(total_parameters, trainable_parameters, model_size, total_training_modes, total_flops)
        print("\n".join([lines[0], rule, *lines[1:], rule, *totals]), flush=True)


def aligned_columns(summary_data: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, list[str]]]:
    """The columns that say something (without an example there are no operations); numbers aligned to the right."""
    columns = []
    for heading, cells in summary_data:
        if heading == "FLOPs" and not set(cells) - {UNKNOWN, NOT_APPLICABLE}:
            continue
        width = max(map(len, [heading, *cells])) if heading in NUMBERS else 0
        columns.append((heading.rjust(width), [cell.rjust(width) for cell in cells]))
    return columns


def summary_totals(
    total_parameters: int,
    trainable_parameters: int,
    model_size: float,
    total_training_modes: Mapping[str, int],
    total_flops: int,
) -> list[str]:
    """The lines below the table."""
    total, trainable, fixed = (
        get_human_readable_count(number).strip()
        for number in (total_parameters, trainable_parameters, total_parameters - trainable_parameters)
    )
    train, evaluation = total_training_modes["train"], total_training_modes["eval"]
    lines = [
        f"Parameters: {total} ({trainable} trainable, {fixed} fixed), {get_formatted_model_size(model_size)} MB",
        f"Modules: {train} in train mode, {evaluation} in eval mode",
    ]
    if total_flops:
        lines.append(f"FLOPs: {get_human_readable_count(total_flops).strip()} in a forward of the example input")
    return lines
