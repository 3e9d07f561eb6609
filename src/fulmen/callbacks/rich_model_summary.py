"""The table of the model's layers, for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.callbacks.model_summary import ModelSummary, aligned_columns, summary_totals
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WRAPPED_FROM = 32  # longer names and types may be broken; short ones only when nothing else helps


class RichModelSummary(ModelSummary):
    """A :class:`~fulmen.callbacks.model_summary.ModelSummary` drawn by rich; in files and pipes it is the plain one.

    Args:
        max_depth: how many levels of modules within modules to list: 1 for the model's own, -1 for all, 0 for no table.
        summarize_kwargs: arguments for ``rich.table.Table``, as ``header_style="bold magenta"``.

    Raises:
        ValueError: ``max_depth`` is not one of -1, 0, 1, 2 ...
    """

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
        with isolate_rng(include_cuda=False):  # rich draws a random number when it is imported
            from rich import box
            from rich.console import Console, Group
            from rich.table import Table
            from rich.text import Text

        totals = (total_parameters, trainable_parameters, model_size, total_training_modes, total_flops)
        console = Console()
        if not (console.is_terminal or console.is_jupyter):
            ModelSummary.summarize(summary_data, *totals)
            return
        looks = {"box": box.SIMPLE_HEAD, "header_style": "bold", "padding": (0, 1, 0, 0), "show_edge": False}
        table = Table(**(looks | summarize_kwargs))
        columns = aligned_columns(summary_data)
        for heading, cells in columns:
            table.add_column(
                heading,
                style="dim" if not heading.strip() else None,
                no_wrap=not heading.endswith("sizes") and max(map(len, cells), default=0) <= WRAPPED_FROM,
                overflow="fold",
            )
        for row in zip(*(cells for _, cells in columns)):
            table.add_row(*map(Text, row))  # as text: the brackets of sizes are no markup
        console.print(Group(table, *(Text(line, style="dim") for line in summary_totals(*totals))))
