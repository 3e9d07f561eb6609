"""Facts and tables on the screen: drawn by rich in a terminal, plain and never cut off where the output is piped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

#: values longer than this are cut in the middle; JSON has them whole
_MOST_CHARACTERS = 200


def in_terminal() -> bool:
    return sys.stdout.isatty()


def title(text: str) -> None:
    """A heading with a line of space above."""
    print()
    if in_terminal():
        _console().print(text, style="bold", highlight=False, markup=False)
    else:
        print(text)


def warn(text: str) -> None:
    """A line that is not part of what was asked for."""
    sys.stdout.flush()  # the lines before it come first
    print(f"warning: {printable(text)}", file=sys.stderr)


def columns() -> int:
    """The width of the terminal."""
    return shutil.get_terminal_size().columns


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one under the other."""
    rows = [(printable(name), printable(value if isinstance(value, str) else brief(value))) for name, value in pairs]
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    if in_terminal():
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", max_width=48, overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(f"  {name}"), Text(value))
        _console().print(grid)
        return
    for name, value in rows:
        print(f"  {name:<{width}}  {value}".rstrip())


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[str] = ()) -> None:
    """Rows under headers; the columns named in ``right`` are numbers."""
    right, rows = set(right), [[printable(cell) for cell in row] for row in rows]
    if in_terminal():
        from rich import box
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for header in headers:
            if header in right:
                drawn.add_column(header, justify="right", no_wrap=True)
            else:
                drawn.add_column(header, overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        _console().print(drawn)
        return
    widths = [max(len(header), *(len(row[at]) for row in rows), 0) for at, header in enumerate(headers)]
    for row in [headers, *rows]:
        cells = [
            f"{cell:>{width}}" if header in right else f"{cell:<{width}}"
            for cell, width, header in zip(row, widths, headers)
        ]
        print(f"  {'  '.join(cells)}".rstrip())


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def brief(value: Any) -> str:
    """A value in one short line; of a large tensor its shape and type."""
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return f"{value.item()!r}"
        return f"tensor{tuple(value.shape)} of {kind_of(value)}"
    if isinstance(value, (dict, list, tuple, set)) and _size(value) > 40:
        names = {dict: "entries", set: "values"}
        return f"{len(value)} {names.get(type(value), 'values')}"
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key!r}: {brief(element)}" for key, element in value.items()) + "}"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(brief(element) for element in value)
        text = f"[{text}]" if isinstance(value, list) else f"({text}{',' * (len(value) == 1)})"
    else:
        text = repr(value)
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[: _MOST_CHARACTERS // 2]} ... {text[-_MOST_CHARACTERS // 3 :]}"
    return printable(text)


def printable(text: str) -> str:
    """``text`` without what a terminal would obey, such as colours and jumps of the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(1 + _size(element) for element in value.values())
    return sum(1 + _size(element) for element in value) if isinstance(value, (list, tuple, set)) else 0


def kind_of(tensor: Tensor) -> str:
    """``torch.float32`` -> ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def size_in_words(size: int) -> str:
    """``1536`` -> ``1.5 kB``; decimal, as disks are sold."""
    number, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{size:,} bytes" if unit == "bytes" else f"{number:.3g} {unit}"


def print_json(value: Any) -> None:
    """``value`` as JSON; tensors and other plain data become what JSON has."""
    print(json.dumps(as_json(value), indent=2, ensure_ascii=False, allow_nan=True))


def as_json(value: Any) -> Any:
    """Plain data in the types that JSON knows: a large tensor as its shape and type."""
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return as_json(value.item())
        return {"shape": list(value.shape), "dtype": kind_of(value)}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): as_json(element) for key, element in value.items()}
    if isinstance(value, (list, tuple, torch.Size)):
        return [as_json(element) for element in value]
    if isinstance(value, (set, frozenset)):
        return sorted((as_json(element) for element in value), key=str)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
