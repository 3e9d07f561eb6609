"""Constructor arguments as options: what text means, what ``--help`` says, and what objects are made of it."""

from __future__ import annotations

import argparse
import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Any, List, Literal, Optional, Union  # noqa: UP035  # as users of that time write

import pytest

from fulmen import LightningDataModule, LightningModule, Trainer
from fulmen.utilities import argparse as options


class Kinds(LightningDataModule):
    """Arguments of all kinds.

    Args:
        text: any text,
            on two lines: at 100% of the width
        whole (int): a number
        lr: the ``lr`` of :class:`~torch.optim.Adam`

    Attributes:
        ratio: not what the argument is
    """

    def __init__(
        self,
        text: str = "a",
        whole: int = 1,
        lr: float = 1e-3,
        flag: bool = False,
        on: bool = True,
        maybe: Optional[bool] = None,  # noqa: UP045
        maybe_whole: int | None = None,
        whole_or_text: str | int = "auto",
        numbers: Union[List[int], str, int] = 1,  # noqa: UP006, UP007
        limit: int | float = 1.0,
        flag_or_whole: bool | int = False,
        flag_or_text: Union[bool, str] = False,  # noqa: UP007
        flag_or_ratio: bool | float = False,
        any_of_three: bool | int | float = False,
        mode: Literal["min", "max"] = "min",
        bits: Literal[16, "bf16"] | None = None,
        strict: bool | Literal["warn"] | None = None,
        quoted: "int" = 3,  # noqa: UP037
        words: list[str] | None = None,
        nothing_said=None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.given = {name: value for name, value in locals().items() if name not in ("self", "kwargs", "__class__")}


def parsed(cls: type[Any], line: str) -> Namespace:
    return cls.add_argparse_args(ArgumentParser()).parse_args(shlex.split(line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--text 3", "3"),
        ("--text ''", ""),
        ("--whole 2", 2),
        ("--whole -1", -1),
        ("--lr 3e-2", 0.03),
        ("--lr 1", 1.0),
        ("--flag", True),
        ("--flag no", False),
        ("--flag True", True),
        ("--on False", False),
        ("--on 0", False),
        ("--on OFF", False),
        ("--maybe", True),
        ("--maybe f", False),
        ("--maybe None", None),
        ("--maybe_whole 3", 3),
        ("--maybe_whole None", None),
        ("--whole_or_text 2", 2),
        ("--whole_or_text auto", "auto"),
        ("--whole_or_text 0.5", "0.5"),
        ("--numbers 2", 2),
        ("--numbers 0,2", "0,2"),
        ("--limit 2", 2),
        ("--limit 0.5", 0.5),
        ("--limit 3e-2", 0.03),
        ("--flag_or_whole", True),
        ("--flag_or_whole 3", 3),
        ("--flag_or_whole 1", True),
        ("--flag_or_text abc", "abc"),
        ("--flag_or_text yes", True),
        ("--flag_or_ratio 1", 1.0),
        ("--flag_or_ratio true", True),
        ("--any_of_three 1", 1),
        ("--any_of_three 0.5", 0.5),
        ("--mode max", "max"),
        ("--bits 16", 16),
        ("--bits bf16", "bf16"),
        ("--strict warn", "warn"),
        ("--strict", True),
        ("--quoted 4", 4),
    ],
)
def test_text_becomes_the_first_type_of_the_annotation_that_fits(line: str, expected: Any) -> None:
    name = line.split()[0].removeprefix("--")
    value = getattr(parsed(Kinds, line), name)

    assert (value, type(value)) == (expected, type(expected))
    assert Kinds.from_argparse_args(parsed(Kinds, line)).given[name] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--whole a", "argument --whole: 'a' is not a whole number"),
        ("--lr a", "argument --lr: 'a' is not a number"),
        ("--flag 2", "argument --flag: '2' is not true or false"),
        ("--flag_or_whole a", "'a' is not true or false or a whole number"),
        ("--mode middle", "'middle' is not 'min' or 'max'"),
        ("--strict often", "'often' is not true or false or 'warn'"),
        ("--words a", "unrecognized arguments: --words a"),
        ("--nothing_said 1", "unrecognized arguments: --nothing_said 1"),
    ],
)
def test_text_that_fits_no_type_is_an_error_of_the_parser(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(Kinds, line)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_options_that_are_not_written_are_the_defaults_of_the_constructor() -> None:
    made = Kinds.from_argparse_args(parsed(Kinds, ""))

    assert made.given == Kinds().given
    assert [type(value) for value in made.given.values()] == [type(value) for value in Kinds().given.values()]


def test_default_that_reads_like_another_type_stays_text() -> None:
    class Texts(LightningDataModule):
        def __init__(self, version: str | int = "1", switch: bool | str = "yes") -> None: ...

    args = parsed(Texts, "")

    assert (args.version, args.switch) == ("1", "yes")
    assert parsed(Texts, "--version 1").version == "1"


def test_help_says_type_choices_description_and_default() -> None:
    text = " ".join(Kinds.add_argparse_args(ArgumentParser()).format_help().split())

    assert "--text STR any text, on two lines: at 100% of the width (default: a)" in text
    assert "--whole INT a number (default: 1)" in text
    assert "--lr FLOAT the lr of Adam (default: 0.001)" in text
    assert "--flag [BOOL] (default: False)" in text
    assert "--limit INT|FLOAT" in text
    assert "--mode {min,max}" in text
    assert "--strict [BOOL|warn]" in text
    assert "not what the argument is" not in text


def test_help_of_a_subclass_describes_the_arguments_that_its_parent_documents() -> None:
    class Child(Kinds):
        """A child without a word on arguments."""

    assert "a number" in Child.add_argparse_args(ArgumentParser()).format_help()


def test_argument_without_a_default_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    class Needs(LightningDataModule):
        def __init__(self, folder: str) -> None:
            self.folder = folder

    assert Needs.from_argparse_args(parsed(Needs, "--folder a")).folder == "a"
    with pytest.raises(SystemExit):
        parsed(Needs, "")
    assert "the following arguments are required: --folder" in capsys.readouterr().err


# -- groups and parsers -----------------------------------------------------------------------------------------------


def test_options_stand_in_a_group_with_the_name_of_the_class_in_the_same_parser() -> None:
    parser = ArgumentParser()

    assert Kinds.add_argparse_args(parser) is parser
    assert Trainer.add_argparse_args(parser) is parser
    text = parser.format_help()
    assert f"\n{__name__}.Kinds:\n  --text" in text
    assert "\nfulmen.Trainer:\n  --accelerator" in text


def test_without_a_group_a_new_parser_has_the_options_of_both() -> None:
    parent = ArgumentParser()
    parent.add_argument("--seed", type=int)

    parser = Kinds.add_argparse_args(parent, use_argument_group=False)

    assert parser is not parent
    args = parser.parse_args(["--seed", "1", "--whole", "2"])
    assert (args.seed, args.whole) == (1, 2)
    assert "Kinds" not in parser.format_help()
    assert parent.parse_args([]) == Namespace(seed=None)


def test_group_in_place_of_a_parser_is_refused() -> None:
    group = ArgumentParser().add_argument_group("mine")

    with pytest.raises(RuntimeError, match="Pass the parser itself"):
        Trainer.add_argparse_args(group)  # type: ignore[arg-type]


def test_two_classes_with_an_argument_of_the_same_name_conflict_unless_the_parser_resolves_it() -> None:
    class Other(LightningDataModule):
        def __init__(self, whole: int = 7) -> None:
            self.whole = whole

    with pytest.raises(argparse.ArgumentError, match=r"--whole.*Other\(whole=...\).*conflict_handler='resolve'"):
        Other.add_argparse_args(Kinds.add_argparse_args(ArgumentParser()))
    parser = ArgumentParser(conflict_handler="resolve")
    args = Other.add_argparse_args(Kinds.add_argparse_args(parser)).parse_args(["--whole", "5"])
    assert (Other.from_argparse_args(args).whole, Kinds.from_argparse_args(args).given["whole"]) == (5, 5)


def test_class_without_arguments_of_its_own_adds_no_option() -> None:
    parser = LightningModule.add_argparse_args(LightningDataModule.add_argparse_args(ArgumentParser()))

    assert parser.parse_args([]) == Namespace()
    assert isinstance(LightningDataModule.from_argparse_args(Namespace(a=1)), LightningDataModule)


# -- making objects ---------------------------------------------------------------------------------------------------


def test_from_argparse_args_takes_what_the_constructor_knows_and_lets_keywords_win() -> None:
    made = Kinds.from_argparse_args(Namespace(whole=5, text="b", seed=3), text="c", lr=1.0)

    assert (made.given["whole"], made.given["text"], made.given["lr"]) == (5, "c", 1.0)


def test_from_argparse_args_takes_a_mapping() -> None:
    assert Kinds.from_argparse_args({"whole": 5, "seed": 3}).given["whole"] == 5


def test_from_argparse_args_of_a_parser_parses_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--whole", "5", "--flag"])

    made = Kinds.from_argparse_args(Kinds.add_argparse_args(ArgumentParser()))

    assert (made.given["whole"], made.given["flag"]) == (5, True)


def test_parse_argparser_takes_none_for_a_switch_as_written() -> None:
    args = Namespace(flag=None, on=None, maybe=None, whole=None, other=None)

    assert Kinds.parse_argparser(args) == Namespace(flag=True, on=True, maybe=None, whole=None, other=None)


def test_names_types_and_defaults_are_told() -> None:
    told = {name: (types, default) for name, types, default in Kinds.get_init_arguments_and_types()}

    assert told["whole"] == ((int,), 1)
    assert told["numbers"] == ((List[int], str, int), 1)  # noqa: UP006
    assert told["maybe"] == ((bool, type(None)), None)
    assert told["strict"] == ((bool, str, type(None)), None)
    assert told["nothing_said"] == ((options.inspect.Parameter.empty,), None)
    assert "kwargs" not in told


def test_functions_take_any_class() -> None:
    @dataclass
    class Settings:
        width: int = 3
        name: str = "a"

    parser = options.add_argparse_args(Settings, ArgumentParser())
    args = parser.parse_args(["--width", "4"])

    assert options.from_argparse_args(Settings, args) == Settings(4, "a")


# -- the environment --------------------------------------------------------------------------------------------------


def test_environment_is_read_as_python_where_it_is_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "WHOLE": "2",
        "TEXT": "b c",
        "FLAG": "1",
        "WORDS": "['a', 'b']",
        "LR": "",
        "ON": "false",
    }.items():
        monkeypatch.setenv(f"PL_KINDS_{name}", text)

    assert Kinds.match_env_arguments() == Namespace(text="b c", whole=2, flag=True, on=False, words=["a", "b"])
    assert options.parse_env_variables(Kinds, template="MY_%(cls_name)s_%(cls_argument)s") == Namespace()


def test_code_in_the_environment_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_KINDS_WHOLE", "__import__('os').getpid()")

    assert Kinds.match_env_arguments() == Namespace(whole="__import__('os').getpid()")


def test_option_that_is_not_written_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    monkeypatch.setenv("PL_KINDS_WHOLE", "7")
    parser = Kinds.add_argparse_args(Trainer.add_argparse_args(ArgumentParser()))

    args = parser.parse_args([])
    assert (args.max_epochs, args.whole) == (3, 7)
    assert parser.parse_args(["--max_epochs", "5"]).max_epochs == 5
    assert "(default: 7)" in parser.format_help()


# -- add_model_specific_args ------------------------------------------------------------------------------------------


class Convention(LightningModule):
    """As modules were written in 2021."""

    def __init__(self, hidden: int = 8, lr: float = 1e-3, num_classes: int = 10, **kwargs: Any) -> None:
        super().__init__()
        self.save_hyperparameters()

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        parser = parent_parser.add_argument_group("Convention")
        parser.add_argument("--hidden", type=int, default=16)
        parser.add_argument("--lr", type=float, default=1e-2)
        return parent_parser


def test_options_come_from_add_model_specific_args_where_a_class_has_it() -> None:
    args = parsed(Convention, "--hidden 4")

    assert args == Namespace(hidden=4, lr=1e-2)
    assert dict(Convention(**vars(args)).hparams) == {"hidden": 4, "lr": 1e-2, "num_classes": 10}


def test_parser_that_add_model_specific_args_makes_is_given_back() -> None:
    class OwnParser(LightningModule):
        @staticmethod
        def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
            parser = ArgumentParser(parents=[parent_parser], add_help=False)
            parser.add_argument("--hidden", type=int, default=16)
            return parser

    assert OwnParser.add_argparse_args(ArgumentParser()).parse_args([]) == Namespace(hidden=16)


def test_add_model_specific_args_that_returns_nothing_has_changed_the_parser() -> None:
    class Forgets(LightningModule):
        @staticmethod
        def add_model_specific_args(parent_parser: ArgumentParser) -> None:
            parent_parser.add_argument("--hidden", type=int, default=16)

    assert parsed(Forgets, "") == Namespace(hidden=16)


def test_subclass_with_a_constructor_of_its_own_gets_its_arguments_too_and_none_twice() -> None:
    class Child(Convention):
        def __init__(self, depth: int = 2, lr: float = 0.1, **kwargs: Any) -> None:
            super().__init__(lr=lr, **kwargs)

    assert parsed(Child, "--depth 3") == Namespace(hidden=16, lr=1e-2, depth=3)


def test_add_model_specific_args_may_ask_for_the_arguments_of_the_constructor() -> None:
    class Both(LightningModule):
        def __init__(self, width: int = 3) -> None:
            super().__init__()

        @classmethod
        def add_model_specific_args(cls, parent_parser: ArgumentParser) -> ArgumentParser:
            parser = cls.add_argparse_args(parent_parser)
            parser.add_argument("--warmup", type=int, default=0)
            return parser

    assert parsed(Both, "") == Namespace(width=3, warmup=0)
    assert Both.add_model_specific_args(ArgumentParser()).parse_args([]) == Namespace(width=3, warmup=0)


# -- the Trainer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "attribute", "expected"),
    [
        ("--max_epochs 3", "max_epochs", 3),
        ("--fast_dev_run", "fast_dev_run", True),
        ("--fast_dev_run 3", "fast_dev_run", 3),
        ("--limit_train_batches 0.1", "limit_train_batches", 0.1),
        ("--limit_train_batches 10", "limit_train_batches", 10),
        ("--val_check_interval 30min", "val_check_interval", "30min"),
        ("--precision bf16", "precision", "bf16-mixed"),
        ("--precision 64", "precision", "64-true"),
        ("--gradient_clip_val 0.5", "gradient_clip_val", 0.5),
        ("--logger False", "logger", None),
        ("--devices 1 --accelerator cpu", "num_devices", 1),
        ("--max_time 00:00:30:00", "max_epochs", -1),
        ("", "accumulate_grad_batches", 1),
    ],
)
def test_trainer_is_made_of_its_options(line: str, attribute: str, expected: Any, tmp_path: Any) -> None:
    trainer = Trainer.from_argparse_args(parsed(Trainer, line), accelerator="cpu", default_root_dir=tmp_path)

    assert getattr(trainer, attribute) == expected


def test_trainer_offers_an_option_for_each_argument_that_text_can_say() -> None:
    names = {name for name, _, _ in Trainer.get_init_arguments_and_types()}
    offered = set(vars(parsed(Trainer, "")))

    assert names - offered == {"callbacks", "plugins"}


def test_objects_are_given_beside_the_options(tmp_path: Any) -> None:
    from fulmen.callbacks import EarlyStopping

    stopping = EarlyStopping("loss")
    args = parsed(Trainer, f"--default_root_dir {tmp_path} --max_epochs 2")

    trainer = Trainer.from_argparse_args(args, callbacks=[stopping], max_epochs=3)

    assert stopping in trainer.callbacks
    assert (trainer.max_epochs, trainer.default_root_dir) == (3, str(tmp_path))
