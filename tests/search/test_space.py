"""A search space is written into a configuration, and what cannot be searched is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from fulmen.search.arguments import Template, monitor_in
from fulmen.search.space import SpaceError, dimension_of, dimensions_in


def chosen(value: object, **params: object) -> object:
    """What is written into the configuration if a trial chooses ``params``."""
    dimension = dimension_of(value, "x")
    assert dimension is not None
    return dimension.value_of(dimension.suggest(optuna.trial.FixedTrial(params)))


@pytest.mark.parametrize(
    ("written", "distribution"),
    [
        ({"uniform": [0, 0.5]}, optuna.distributions.FloatDistribution(0, 0.5)),
        ({"log_uniform": ["1e-5", "1e-1"]}, optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)),
        ({"int": [2, 6]}, optuna.distributions.IntDistribution(2, 6)),
        ({"int": [32, 250, 32]}, optuna.distributions.IntDistribution(32, 224, step=32)),
        ({"log_int": [16, 1024]}, optuna.distributions.IntDistribution(16, 1024, log=True)),
        ({"choice": ["relu", None, 3, True]}, optuna.distributions.CategoricalDistribution(("relu", None, 3, True))),
    ],
)
def test_each_kind_is_the_distribution_of_its_name(written: object, distribution: object) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    dimension = dimension_of(written, "x")
    assert dimension is not None

    dimension.suggest(trial)

    assert trial.distributions == {"x": distribution}


def test_a_choice_of_classes_writes_the_whole_class() -> None:
    classes = [{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}, {"class_path": "torch.optim.Adam"}]
    dimension = dimension_of({"choice": classes}, "x")
    assert dimension is not None

    assert chosen({"choice": classes}, x=dimension.labels[1]) == classes[1]


def test_true_and_one_are_two_choices() -> None:
    assert chosen({"choice": [1, True]}, x=True) is True


@pytest.mark.parametrize("value", [3, [1, 2], {"init": [1, 2]}, {"values": [1, 2]}, {"int": 1, "uniform": 2}, {}])
def test_ordinary_values_are_no_dimensions(value: object) -> None:
    assert dimension_of(value, "x") is None


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"uniform": [1, 1]}, r"x: the range \[1.0, 1.0\] is empty. Write 1.0 itself"),
        ({"int": [5, 2]}, r"x: the range \[5, 2\] is reversed. Write \{int: \[2, 5\]\}"),
        ({"log_uniform": [0, 1]}, r"has 0.0 in it, and log_uniform needs numbers above 0.*or take uniform"),
        ({"log_uniform": [1, -1]}, r"has -1.0 in it"),
        ({"log_int": [0, 10]}, r"has 0 in it, and log_int needs numbers above 0. Write a small one in its place, 1"),
        ({"uniform": [1]}, r"uniform has 1 numbers. Write \{uniform: \[low, high\]\}"),
        ({"uniform": [0, 1, 2]}, r"uniform has 3 numbers"),
        ({"uniform": 3}, r"uniform is 3, and must be a list"),
        ({"uniform": [0, "many"]}, r"'many' is no number"),
        ({"uniform": [0, float("inf")]}, r"inf is no number"),
        ({"int": [0, 2.5]}, r"int is of whole numbers, and 2.5 is none"),
        ({"int": [0, 4, 0]}, r"the step 0 does not fit between 0 and 4"),
        ({"int": [0, 4, 9]}, r"the step 9 does not fit"),
        ({"choice": []}, r"there is nothing to choose from"),
        ({"choice": [1, 2, 1]}, r"1 is twice among the choices"),
        ({"choice": [{"lr": {"uniform": [0, 1]}}]}, r"there is a dimension within a choice"),
        ({"loguniform": [1, 2]}, r"no kind of dimension 'loguniform'. Did you mean \{log_uniform: \[low, high\]\}"),
        ({"unifrom": [1, 2]}, r"Did you mean \{uniform"),
        ({"categorical": [1, 2]}, r"Did you mean \{choice"),
        ({"Choice": [1, 2]}, r"Did you mean \{choice"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_to_write(written: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        dimension_of(written, "x")


def test_a_mistake_in_a_file_names_the_file_and_the_path(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("trainer:\n  callbacks:\n  - init_args: {patience: {int: [9, 3]}}\n")

    with pytest.raises(SpaceError, match=r"config.yaml: trainer.callbacks.0.init_args.patience: the range"):
        Template.of(["--config", str(file)])


# -- arguments --------------------------------------------------------------------------------------------------------


def names(template: Template) -> list[str]:
    return list(template.dimensions)


def test_dimensions_are_found_in_files_in_inner_files_and_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text("init_args: {width: {int: [1, 9]}}\n")
    (tmp_path / "config.yaml").write_text("model: inner.yaml\ndata: {init_args: {size: {choice: [1, 2]}}}\n")

    template = Template.of(
        [
            "--config",
            str(tmp_path / "config.yaml"),
            "--model.lr",
            "{log_uniform: [1e-5, 1e-1]}",
            "--a={uniform: [0, 1]}",
        ]
    )

    assert names(template) == ["model.init_args.width", "data.init_args.size", "model.lr", "a"]


def test_the_other_arguments_stay_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("seed_everything: 3\n")
    words = [
        "--config",
        str(tmp_path / "plain.yaml"),
        "--trainer.max_epochs=2",
        "--x",
        "{uniform: [0, 1]}",
        "--y",
        "-1",
    ]

    template = Template.of(words)

    assert template.words({"x": 0.25}) == [*words[:4], "0.25", *words[5:]]


def test_a_file_that_is_named_beside_a_dimension_can_be_read_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("class_path: Some\n")
    (tmp_path / "config.yaml").write_text("data: data.yaml\nlr: {uniform: [0, 1]}\n")

    words = Template.of(["--config", str(tmp_path / "config.yaml")]).words({"lr": 0.5})

    assert words == ["--config", f'{{"data": "{tmp_path / "data.yaml"}", "lr": 0.5}}']


def test_without_a_dimension_there_is_nothing_to_search() -> None:
    with pytest.raises(SpaceError, match=r"there is nothing to search.*log_uniform"):
        Template.of(["--trainer.max_epochs", "3"])


def test_a_configuration_file_that_is_missing_is_told_of() -> None:
    with pytest.raises(SpaceError, match=r"--config nowhere.yaml: there is no such file"):
        Template.of(["--config", "nowhere.yaml", "--lr", "{uniform: [0, 1]}"])


def test_a_later_dimension_of_the_same_value_replaces_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {init_args: {lr: {uniform: [0, 1]}}}\n")

    template = Template.of(["--config", str(tmp_path / "config.yaml"), "--model.lr", "{choice: [1, 2]}"])

    assert names(template) == ["model.lr"]
    assert template.words({"model.lr": 2})[-1] == "2"


def test_a_dimension_is_called_by_its_whole_path() -> None:
    template = Template.of(["--model.lr", "{choice: [1, 2]}"])

    template.take_names({"model": {"init_args": {"lr": 1}}}, {"model": {"init_args": {"lr": 2}}})

    assert [one.name for one in template.dimensions.values()] == ["model.init_args.lr"]
    assert template.words({"model.init_args.lr": 2}) == ["--model.lr", "2"]


def test_a_dimension_that_a_later_argument_replaces_is_refused() -> None:
    template = Template.of(["--model.lr", "{choice: [1, 2]}", "--model.lr", "5"])

    with pytest.raises(SpaceError, match=r"model.lr: the dimension \{choice: \[1, 2\]\} has no effect"):
        template.take_names({"model": {"init_args": {"lr": 5}}}, {"model": {"init_args": {"lr": 5}}})


def test_dimensions_in_finds_them_in_the_order_in_which_they_are_written() -> None:
    tree = {"b": {"uniform": [0, 1]}, "a": [{"int": [0, 1]}, {"c": {"choice": [1]}}]}

    assert [one.name for one in dimensions_in(tree)] == ["b", "a.0", "a.1.c"]


# -- the metric -------------------------------------------------------------------------------------------------------


def with_callbacks(*arguments: dict[str, str]) -> dict[str, object]:
    return {"trainer": {"callbacks": [{"class_path": "Some", "init_args": one} for one in arguments]}}


def test_the_metric_is_that_of_the_callbacks_if_they_agree() -> None:
    config = with_callbacks({"monitor": "acc", "mode": "max"}, {"monitor": "acc", "mode": "max"}, {"patience": "3"})

    assert monitor_in(config) == ("acc", "maximize", ["acc"])


def test_callbacks_that_look_at_different_metrics_leave_the_choice_to_the_user() -> None:
    config = with_callbacks({"monitor": "acc", "mode": "max"}, {"monitor": "loss", "mode": "min"})

    assert monitor_in(config) == (None, None, ["acc", "loss"])
