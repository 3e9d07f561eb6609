"""What is wrong in a configuration: in which file and line, which key, and the nearest that there is.

jsonargparse finds the mistake and says what it expects; here its words are brought together with what was written.
Words that are not known here are shown as they are.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_args, get_origin

from fulmen.cli.written import FILE_ENDINGS, Entry, config_files, text_of, twice_in_file, written
from fulmen.utilities.cloud_io import exists

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
    "Iterable": "a list",
    "collections.abc.Iterable": "a list",
}
_SPEC_KEYS = ("class_path", "init_args", "dict_kwargs")


def explain(message: str, parser: argparse.ArgumentParser, args: Sequence[str]) -> str:
    """The parser's ``message`` about the arguments ``args`` (those of the command line) as somebody would say it."""
    situation = _Situation.of(parser, args)
    for recognise in _RECOGNISED:
        found = recognise(message, situation)
        if found is not None:
            return found
    return message


def before_parsing(parser: argparse.ArgumentParser, args: Sequence[str]) -> str | None:
    """What jsonargparse does not notice: a key that stands twice in a file, a value where a group of keys is due."""
    for file in config_files(args):
        for twice in twice_in_file(file):
            first, second = twice.lines
            what = f"`{'.'.join(twice.path)}` stands here a second time"
            return f"{file}, line {second}: {what}; the first, in line {first}, would be lost. Keep one of them"
    situation = _Situation.of(parser, args)
    groups = {name.rpartition(".")[0] for name in situation.options()} - {""}
    for entry in situation.entries:
        name = ".".join(entry.path)
        if name not in groups or not entry.value or entry.value.endswith(FILE_ENDINGS) or exists(entry.value):
            continue
        first = next(option for option in situation.options() if option.startswith(f"{name}."))
        return f"{_at(entry)}`{name}` is a group of keys, such as `{first}`, or a file, and {entry.value!r} is neither"
    return None


def error_of_module(error: BaseException | None) -> BaseException | None:
    """What was raised in a module of the user while a parser imported it, with the traceback from there on."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        imported, frame = False, current.__traceback__
        while frame is not None:
            name = frame.tb_frame.f_code.co_name
            if imported and name == "<module>":
                return current.with_traceback(frame)
            imported = imported or name in ("import_object", "import_module")
            frame = frame.tb_next
        waiting += [current.__cause__, current.__context__]
    return None


def place(message: str, parser: argparse.ArgumentParser, args: Sequence[str]) -> str:
    """Where the argument of the Trainer was written that ``message`` speaks of; an empty text if it is not known."""
    situation = _Situation.of(parser, args)
    for word in re.findall(r"\w+", message):
        entry = situation.find(f"trainer.{word}")
        if entry is not None:
            return _at(entry)
    return ""


@dataclass(slots=True)
class _Situation:
    """The parser of the subcommand that was chosen, and what was written for it."""

    parser: argparse.ArgumentParser
    subcommand: str | None
    subcommands: dict[str, argparse.ArgumentParser]
    args: list[str]
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, args: Sequence[str]) -> _Situation:
        choices: dict[str, argparse.ArgumentParser] = {}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                choices = dict(action.choices)
        chosen = next((word for word in args if word in choices), None)
        entries = written(args, str(getattr(parser, "env_prefix", "")) if getattr(parser, "default_env", False) else "")
        within = [
            Entry(entry.path[1:], entry.value, entry.where, entry.file)
            if len(entry.path) > 1 and entry.path[0] == chosen
            else entry
            for entry in entries
        ]
        return cls(choices[chosen] if chosen else parser, chosen, choices, list(args), within)

    def options(self, parser: argparse.ArgumentParser | None = None) -> list[str]:
        """The names of all options, dotted."""
        hidden = ("help", "print_config", "print_shtab")
        actions = (parser or self.parser)._actions
        return [a.dest for a in actions if a.dest not in hidden and not a.dest.endswith(".help")]

    def find(self, key: str, ending: Sequence[str] = (), value: str | None = None) -> Entry | None:
        """The last that was written below ``key`` whose path ends with ``ending`` and whose text is ``value``."""
        start = tuple(key.split(".")) if key else ()
        for entry in reversed(self.entries):
            if (
                entry.path[: len(start)] == start
                and (not ending or entry.path[-len(ending) :] == tuple(ending))
                and (value is None or entry.value == value)
            ):
                return entry
        return None

    def type_of(self, key: str) -> Any:
        """The annotation of an option, None where there is none."""
        return next((getattr(a, "_typehint", None) for a in self.parser._actions if a.dest == key), None)


def _at(entry: Entry | None) -> str:
    return "" if entry is None else f"{entry.where}: "


def _written_as(entry: Entry | None, key: str) -> str:
    """``key`` in the form in which it was written: as an option on the command line, as a key in a file."""
    return f"--{key}" if entry is not None and entry.where.startswith("-") else key


def _did_you_mean(wrong: str, names: Iterable[str], otherwise: str = "") -> str:
    """The nearest name; without one what there is, if it is little."""
    names = list(dict.fromkeys(names))
    nearest = get_close_matches(wrong, names, n=1, cutoff=0.6) or _by_letters(wrong, names)
    if nearest:
        return f"Did you mean `{nearest[0]}`?"
    if otherwise:
        return otherwise
    return f"There are: {', '.join(names)}" if 0 < len(names) <= 12 else "See --help"


def _by_letters(wrong: str, names: list[str]) -> list[str]:
    """``names`` that differ from ``wrong`` only in capitals, dots and dashes."""

    def letters(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    return [name for name in names if letters(name) == letters(wrong)]


def _not_yaml(message: str, situation: _Situation) -> str | None:
    if "Problems parsing config" not in message and not message.startswith("Unexpected config"):
        return None
    import yaml

    for file in config_files(situation.args):
        text = text_of(file)
        if text is None:
            continue
        try:
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark is not None else ""
            tab = mark is not None and "\t" in text.splitlines()[min(mark.line, text.count("\n"))]
            advice = ". Indent with spaces: there is a tab" if tab else ""
            return f"{file}{line}: this is not YAML: {error.problem}{advice}"
        if not isinstance(content, dict):
            kind = type(content).__name__
            holds = "nothing" if content is None else _KINDS.get(kind, kind)
            return f"{file}: a configuration maps keys to values (`trainer:`, `model:`), and this file holds {holds}"
    return None


def _no_file(message: str, situation: _Situation) -> str | None:
    match = re.search(r"File does not exist: '?(.*?)'?$", message, re.MULTILINE) or re.search(
        r"Expected a path but (.*?) either not accessible or invalid$(?!.*Subtypes)", message, re.MULTILINE | re.DOTALL
    )
    if match is None:
        return None
    from pathlib import Path

    path = Path(match[1])
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    there = {p.stem: p.name for p in beside if p.suffix in FILE_ENDINGS}
    nearest = [there[stem] for stem in get_close_matches(path.stem, there, n=1)]
    if not path.parent.is_dir():
        advice = f"There is no folder {path.parent} either"
    elif nearest:
        advice = f"Did you mean `{nearest[0]}`?"
    else:
        advice = f"The folder has: {', '.join(list(there.values())[:8]) or 'no configuration'}"
    written_as = next((file for file in config_files(situation.args) if match[1].endswith(file)), match[1])
    return f"there is no file {written_as}. {advice}"


def _unknown_option(message: str, situation: _Situation) -> str | None:
    match = re.match(
        r"(?:Subcommand '(?P<sub>\w+)' does not accept option|Group '(?P<group>[\w.]+)' does not accept option|Option) "
        r"'(?P<key>[^']+)'",
        message,
    )
    if match is None:
        return None
    key = f"{match['group']}.{match['key']}" if match["group"] else match["key"]
    first = key.split(".")[0]
    entry = situation.find(key) or situation.find(first)
    chosen = situation.subcommand
    if chosen is not None and first == chosen and entry is None:
        entry = next((e for e in situation.entries if e.path[0] == key.split(".")[1]), None)
    if chosen is not None and first in situation.subcommands:
        if first == chosen:
            return (
                f"{_at(entry)}a section `{chosen}:` belongs to a file that is named before the subcommand: "
                f"write `--config FILE {chosen}`, or take the line `{chosen}:` away"
            )
        return f"{_at(entry)}`{first}` is a section for another subcommand, and this is `{chosen}`"
    if "not accepted before subcommand" in message and chosen is not None and key in situation.options():
        return (
            f"{_at(entry)}before the subcommand each option stands in the section of a subcommand, and `{first}` is in "
            f"none. Write it behind the subcommand (`{chosen} --config FILE`), or below a line `{chosen}:`"
        )
    others = [
        name for name, parser in situation.subcommands.items() if name != chosen and key in situation.options(parser)
    ]
    if others:
        return (
            f"{_at(entry)}`{chosen}` has no option `{key}`; {' and '.join(f'`{name}`' for name in others)} "
            f"{'has' if len(others) == 1 else 'have'} it. Take it away, or give this file to that subcommand only"
        )
    return f"{_at(entry)}there is no option `{_written_as(entry, key)}`. {_nearest_key(key, situation, entry)}"


def _nearest_key(key: str, situation: _Situation, entry: Entry | None) -> str:
    """The nearest option; where the group is right the nearest within it, else the nearest group."""
    names = situation.options()
    groups = list(dict.fromkeys(name.split(".")[0] for name in names))
    first, _, rest = key.partition(".")
    if first not in groups:
        nearest = get_close_matches(first, groups, n=1)
        if nearest and rest:
            return f"Did you mean `{_written_as(entry, f'{nearest[0]}.{rest}')}`?"
        if not rest:
            ends = [name for name in names if name.split(".")[-1] == first]
            if ends:
                return f"Did you mean `{_written_as(entry, ends[0])}`?"
        return _did_you_mean(first, groups)
    within = [name.removeprefix(f"{first}.") for name in names if name.startswith(f"{first}.")]
    nearest = get_close_matches(rest, within, n=1) or _by_letters(rest, within)
    if nearest:
        return f"Did you mean `{_written_as(entry, f'{first}.{nearest[0]}')}`?"
    return f"`--help` lists what `{first}` has"


def _unrecognized(message: str, situation: _Situation) -> str | None:
    match = re.match(r"unrecognized arguments: (.*)", message, re.IGNORECASE | re.DOTALL)
    if match is None:
        return None
    word = match[1].split()[0]
    option = word.partition("=")[0]
    if not option.startswith("-"):
        sub = "" if situation.subcommand is None else f" of `{situation.subcommand}`"
        return (
            f"{word!r} is neither an option{sub} nor the value of one. Options begin with `--`: --trainer.max_epochs=3"
        )
    key = option.lstrip("-").removesuffix("+")
    entry = Entry(tuple(key.split(".")), None, word)
    if situation.subcommand is None and situation.subcommands:
        return f"{word}: an option of a subcommand stands behind it: {', '.join(situation.subcommands)}"
    return f"{word}: there is no option `{option}`. {_nearest_key(key, situation, entry)}"


def _no_subcommand(message: str, situation: _Situation) -> str | None:
    wrong = re.search(r"subcommand: invalid choice: '(.*?)'", message)
    if wrong is not None and situation.args[0].startswith("--"):
        return f"write the subcommand before its options: one of {', '.join(situation.subcommands)}"
    if wrong is not None:
        return f"there is no subcommand {wrong[1]!r}. {_did_you_mean(wrong[1], situation.subcommands)}"
    if 'expected "subcommand"' in message:
        return f"a subcommand is missing: write one of {', '.join(situation.subcommands)} first, such as `fit --help`"
    return None


def _required(message: str, situation: _Situation) -> str | None:
    match = re.match(r"the following arguments are required: (.*)", message)
    if match is None:
        return None
    keys = [key.strip().removeprefix(f"{situation.subcommand}.") for key in match[1].split(",")]
    lines = []
    for key in keys:
        hint = situation.type_of(key)
        value = "my_module.MyModel" if key == "model" else "my_module.MyData" if key == "data" else "VALUE"
        as_config = (
            f"{key}: {{class_path: {value}}}"
            if isinstance(hint, type) or key in ("model", "data")
            else f"{key}: {value}"
        )
        lines.append(f"`{key}` is missing: write `--{key} {value}`, or `{as_config}` in the configuration")
    near = [
        entry
        for key in keys
        for entry in situation.entries
        if len(entry.path) == 1 and entry.path[0] != key and get_close_matches(entry.path[0], [key])
    ]
    if near:
        lines.append(f"{near[0].where}: did you mean `{keys[0]}` by `{near[0].path[0]}`?")
    return "\n".join(lines)


def _misspelt_part(message: str, situation: _Situation) -> str | None:
    """``class_path`` or ``init_args``, almost."""
    key = _parser_key(message)
    for entry in situation.entries if key is not None else ():
        last = entry.path[-1]
        if ".".join(entry.path).startswith(f"{key}.") and "init_args" not in entry.path and last not in _SPEC_KEYS:
            nearest = get_close_matches(last, _SPEC_KEYS, n=1, cutoff=0.75)
            if nearest:
                return f"{_at(entry)}`{last}` is no part of a class. Did you mean `{nearest[0]}`?"
    return None


def _class_argument(message: str, situation: _Situation) -> str | None:
    """A mistake in the arguments of a class that the configuration names."""
    key = _parser_key(message)
    problem = re.search(
        r"Problem with given class_path '(?P<path>.*?)':\n(?P<what>.*?)(?=\n    - |\n  Given|\Z)", message, re.DOTALL
    )
    if key is None or problem is None:
        return None
    path, what = problem["path"], problem["what"]
    name = path.rpartition(".")[2]
    option = re.search(r"Option '(.*?)' is not accepted", what)
    if option is not None:
        return _unknown_argument(key, path, option[1], situation)
    deeper = re.search(r'Parser key "(.*?)":\s*(.*)', what, re.DOTALL)
    if deeper is not None and "Problem with given class_path" in deeper[2]:
        inner = re.sub(r"^ {8,10}", "  ", what, flags=re.MULTILINE)
        found = _class_argument(inner.replace(deeper[1], f"{key}.{deeper[1]}", 1), situation)
        if found is not None:
            return found
    unknown = re.search(r"Expected a dot import path string: (.*)", deeper[2]) if deeper is not None else None
    if deeper is not None and unknown is not None:
        return _unknown_name(unknown[1].strip(), key, _hint_of(path, deeper[1]), situation)
    if deeper is not None:
        return _wrong_value(key, deeper[1].split("."), deeper[2], situation, f" of {name}")
    missing = re.search(r"the following arguments are required: (.*)", what)
    if missing is not None:
        entry = situation.find(key, value=path) or situation.find(key, value=name) or situation.find(key)
        names = missing[1].split(", ")
        lines = "\n".join(f"    {argument}: VALUE" for argument in names)
        needed = ", ".join(f"`{argument}`" for argument in names)
        if entry is not None and entry.where.startswith("-"):
            options = " ".join(f"--{key}.{argument} VALUE" for argument in names)
            return f"{_at(entry)}{name} cannot be made without {needed}: write `{options}` behind it"
        return f"{_at(entry)}{name} cannot be made without {needed}: write\n  init_args:\n{lines}"
    return _unknown_class(key, path, what.strip(), situation)


def _unknown_argument(key: str, path: str, option: str, situation: _Situation) -> str:
    name = path.rpartition(".")[2]
    wrong = option.split(".")
    entry = situation.find(key, wrong)
    if wrong[0] in _SPEC_KEYS and entry is not None:
        beside = [
            other
            for other in situation.entries
            if other.path[:-1] == entry.path[:-1] and other.path[-1] not in _SPEC_KEYS
        ]
        if beside:
            return f"{_at(beside[-1])}arguments of a class stand under `init_args:`; put `{beside[-1].path[-1]}` there"
    if situation.find(key, ("class_path",)) is None and path.endswith((".LightningModule", ".LightningDataModule")):
        how = f"write `--{key} my_module.MyClass`, or `class_path:` in the file"
        return f"{_at(entry)}it is not said which class `{key}` is: {how}"
    advice = _did_you_mean(option, _arguments_of(path), f"`--{key}.help {path}` lists what it takes")
    return f"{_at(entry)}{name} takes no `{option}`. {advice}"


def _parser_of(path: str) -> argparse.ArgumentParser | None:
    """A parser with what the class at ``path`` takes, arguments of its bases included where it passes them on."""
    module, _, name = path.rpartition(".")
    from jsonargparse import ArgumentParser

    reading = ArgumentParser(exit_on_error=False)
    try:
        reading.add_class_arguments(getattr(import_module(module), name))
    except Exception:  # the class is not there, or has an annotation that nothing can read
        return None
    return reading


def _arguments_of(path: str) -> list[str]:
    reading = _parser_of(path)
    return [] if reading is None else [action.dest for action in reading._actions if action.dest != "help"]


def _hint_of(path: str, argument: str) -> Any:
    reading = _parser_of(path)
    actions = () if reading is None else reading._actions
    return next((getattr(action, "_typehint", None) for action in actions if action.dest == argument), None)


def _unknown_class(key: str, path: str, what: str, situation: _Situation) -> str:
    """A class that is not there: a name, a module, or a module that cannot be imported."""
    name = path.rpartition(".")[2]
    entry = situation.find(key, value=path) or situation.find(key, value=name) or situation.find(key)
    no_name = re.search(r"module '(.*?)' has no attribute '(.*?)'", what)
    if no_name is not None:
        module = import_module(no_name[1])
        names = [n for n in dir(module) if not n.startswith("_") and isinstance(getattr(module, n, None), type)]
        if kind := class_in(situation.type_of(key)):
            names = [n for n in names if issubclass(getattr(module, n), kind)] or names
        nearest = get_close_matches(no_name[2], names, n=1)
        advice = (
            f"Did you mean `{no_name[1]}.{nearest[0]}`?" if nearest else f"It has: {', '.join(names[:8]) or 'no class'}"
        )
        return f"{_at(entry)}the module {no_name[1]} has no {no_name[2]}. {advice}"
    no_module = re.search(r"No module named '(.*?)'", what)
    if no_module is not None:
        known = names_of(situation.type_of(key))
        nearest = get_close_matches(name, known, n=1)
        advice = (
            f"Did you mean `{nearest[0]}`?"
            if nearest
            else "Is it written as in Python's `import`, and does the command run in the folder that it lies in?"
        )
        return f"{_at(entry)}`{path}` cannot be imported: there is no module {no_module[1]}. {advice}"
    return f"{_at(entry)}`{path}` cannot be used: {what}"


def _short_name(message: str, situation: _Situation) -> str | None:
    match = re.search(r"Expected a dot import path string: (.*)", message)
    key = _parser_key(message)
    if match is None or key is None:
        return None
    return _unknown_name(match[1].strip(), key, situation.type_of(key), situation)


def _unknown_name(name: str, key: str, hint: Any, situation: _Situation) -> str:
    entry = situation.find(key, value=name) or situation.find(key)
    kind = class_in(hint)
    advice = _did_you_mean(name, names_of(hint), f"Write where it is: `my_module.{name}`")
    return f"{_at(entry)}there is no {kind.__name__ if kind else 'class'} with the name {name}. {advice}"


def _wrong_class(message: str, situation: _Situation) -> str | None:
    match = re.search(r"Import path ?(\S*) does not correspond to a subclass of (\S+)", message)
    key = _parser_key(message)
    if match is None or key is None:
        return None
    given = re.search(r"Given value: (\S+)$", message)
    path = match[1] or (given[1] if given is not None else "this")
    entry = situation.find(key, value=path) or situation.find(key)
    known = names_of(situation.type_of(key))
    nearest = get_close_matches(path.rpartition(".")[2], known, n=1)
    advice = f" Did you mean `{nearest[0]}`?" if nearest else ""
    for other in ("model", "data"):
        kind = class_in(situation.type_of(other))
        if other != key and kind is not None and _is_class(path, kind):
            advice = f" It is a {kind.__name__}: write `{_written_as(entry, other)}`"
    return f"{_at(entry)}`{key}` takes a {match[2]}, and {path} is none.{advice}"


def _is_class(path: str, kind: type) -> bool:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name, None) if module else None
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, kind)


def _file_of_python(message: str, situation: _Situation) -> str | None:
    """A class that is written as the file it lies in, or with a colon."""
    key = _parser_key(message)
    given = re.search(r"Given value: (\S+)$", message)
    if key is None or given is None or class_in(situation.type_of(key)) is None:
        return None
    if given[1].endswith(".py"):
        right = f"{given[1].removesuffix('.py').replace('/', '.').strip('.')}.MyClass"
    elif re.fullmatch(r"[\w.]+:\w+", given[1]):
        right = given[1].replace(":", ".")
    else:
        return None
    entry = situation.find(key, value=given[1]) or situation.find(key)
    return f"{_at(entry)}a class is written as Python's `import` has it: `{right}`"


def class_in(hint: Any) -> type | None:
    """The class that an annotation asks an instance of: ``Callback`` in ``list[Callback] | Callback | None``."""
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and get_origin(part) is None and part.__module__ not in ("builtins", "datetime"):
            return part
        if part is not hint and get_args(part):
            found = class_in(part)
            if found is not None:
                return found
    return None


def names_of(hint: Any) -> list[str]:
    """The short names of the classes that fit an annotation, as far as they are imported or in our own rooms."""
    kind = class_in(hint)
    if kind is None:
        return []
    room = kind.__module__.rpartition(".")[0]
    front = import_module(room) if room.startswith("fulmen.") else None
    public = [getattr(front, name) for name in getattr(front, "__all__", ())]
    names = [cls.__name__ for cls in public if isinstance(cls, type) and issubclass(cls, kind) and cls is not kind]
    found: list[type] = [kind]
    for cls in found:
        found += [sub for sub in cls.__subclasses__() if sub not in found]
    names += [cls.__name__ for cls in found if not cls.__name__.startswith("_") and not inspect.isabstract(cls)]
    return list(dict.fromkeys(names))


def _value(message: str, situation: _Situation) -> str | None:
    """A value of the wrong type, directly under a key of ours."""
    key = _parser_key(message)
    if key is None:
        return None
    body = message.partition("\n")[2] or message.partition(":")[2]
    return _wrong_value(key, [], body, situation)


def _parser_key(message: str) -> str | None:
    match = re.search(r'Parser key "(.*?)"', message)
    return None if match is None else match[1]


def _wrong_value(key: str, deeper: list[str], body: str, situation: _Situation, owner: str = "") -> str | None:
    subcommand = f"{situation.subcommand}."
    key = key.removeprefix(subcommand)
    given = re.search(r"(?:Given value|Got value): (.*)", body)
    expected = list(dict.fromkeys(re.findall(r"Expected an? (.*?)(?:\. Got value.*|, got .*)?$", body, re.MULTILINE)))
    subclass = re.search(r"Not a valid subclass of (\w+)", body)
    if subclass is not None:
        expected.insert(0, f"a {subclass[1]} (its name, or `class_path:` and `init_args:`)")
    if not expected:
        return None
    value = given[1].strip() if given else None
    entry = situation.find(key, deeper, value) or situation.find(key, deeper) or situation.find(key)
    name = ".".join(deeper) if deeper else key
    shown = entry.value if entry is not None and entry.value is not None else value
    what = "" if shown is None else f", and {shown!r} is not"
    return f"{_at(entry)}`{_written_as(entry, name) if not deeper else name}`{owner} takes {_in_words(expected)}{what}"


def _in_words(expected: list[str]) -> str:
    words = []
    for kind in expected:
        plain = re.sub(r"^<class '(.*)'>$", r"\1", kind.strip())
        literal = re.match(r"typing\.Literal\[(.*)\]", plain)
        words.append(f"one of {literal[1]}" if literal else _KINDS.get(plain, plain))
    if "null" in words:
        words = [word for word in words if word != "null"] + ["null"]
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_RECOGNISED: tuple[Callable[[str, _Situation], str | None], ...] = (
    _not_yaml,
    _no_subcommand,
    _required,
    _unrecognized,
    _misspelt_part,
    _file_of_python,
    _class_argument,
    _short_name,
    _wrong_class,
    _no_file,
    _unknown_option,
    _value,
)
