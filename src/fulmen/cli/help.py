"""``--help`` for people: no list of all options first, no markup, and a class by its name instead of its path."""

from __future__ import annotations

import argparse
import re
from typing import Any

from jsonargparse import DefaultHelpFormatter

_ROLE = re.compile(r":\w+:`(?:~(?:\w+\.)*)?([^`]*)`")
_UNION = re.compile(r"(?:Union|Optional)\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")
_KNOWN = re.compile(r"known subclasses: ([\w., \n]+)")


#: what the help of a whole command line ends with
HOW_TO_NAME_A_CLASS = (
    "A class is written by its name or its path, and its arguments behind it: --trainer.callbacks+ EarlyStopping "
    "--trainer.callbacks.monitor val_loss. `--trainer.callbacks.help EarlyStopping` explains a class and its arguments."
)


class ReadableHelp(DefaultHelpFormatter):
    """Formats the help of a parser: types and defaults are there, and nothing is that a reader has to skip."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """Say how the program is called, without the options: they are listed below."""
        subcommands = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
        if usage is None and any(action.option_strings for action in actions):
            # jsonargparse has the options of the parser above in the name of this one
            program = self._prog.replace(" [options]", "").replace("%", "%%")
            usage = " ".join([f"{program} [options]", *(f"{{{','.join(a.choices)}}} ..." for a in subcommands)])
            actions, groups = [], []
        super().add_usage(usage, actions, groups, prefix)

    def add_text(self, text: str | None) -> None:
        """Add a paragraph."""
        super().add_text(text if text is None or text is argparse.SUPPRESS else without_markup(text))

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options."""
        super().start_section(heading if heading is None else without_markup(heading).rstrip("."))

    def _format_action(self, action: argparse.Action) -> str:
        # each option that takes a class has one more that explains classes; the text after the options says so once
        if action.dest.endswith(".help") or any(option.endswith(".help") for option in action.option_strings):
            return ""
        return super()._format_action(action)

    def _expand_help(self, action: argparse.Action) -> str:
        text = without_markup(super()._expand_help(action))
        text = _UNION.sub(lambda found: " | ".join(_parts(found[1])), text)
        text = re.sub(r",? ?default: null", "", text).replace("()", "").replace("(, ", "(")
        return _KNOWN.sub(lambda found: f"classes: {', '.join(_names(found[1]))}", text)


def without_markup(text: str) -> str:
    """A docstring's text without the marks of reStructuredText."""
    return _ROLE.sub(r"\1", text).replace("``", "")


def _parts(text: str) -> list[str]:
    """The members of a union: split at commas that are not within brackets."""
    return re.split(r", (?![^\[]*\])", text)


def _names(paths: str) -> list[str]:
    return [path.strip().rpartition(".")[2] for path in paths.split(",")]
