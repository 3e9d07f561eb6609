"""Files of hyperparameters (YAML, CSV) that ask for more than values."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.core.saving import load_hparams_from_tags_csv, load_hparams_from_yaml

from .reading import Model

PYTHON = "!!python/"
#: what each would do or be, if it were read
HOSTILE: dict[str, str] = {
    "call": f"a: {PYTHON}object/apply:os.mkdir ['mark']",
    "call_with_keywords": f"a: {PYTHON}object/apply:os.mkdir {{kwds: {{path: mark}}}}",
    "call_of_a_shell": f"a: {PYTHON}object/apply:os.system ['mkdir mark']",
    "object": f"a: {PYTHON}object:antigravity.Geohash {{}}",
    "new_object": f"a: {PYTHON}object/new:os.mkdir ['mark']",
    "name": f"a: {PYTHON}name:os.mkdir",
    "name_of_what_is_not_imported": f"a: {PYTHON}name:antigravity.geohash",
    "module": f"a: {PYTHON}module:antigravity",
    "module_in_a_key": f"? {PYTHON}module:antigravity\n: 1",
    "module_in_a_merge": f"<<: {PYTHON}module:antigravity",
    "full_tag": "a: !<tag:yaml.org,2002:python/object/apply:os.mkdir> ['mark']",
    "alias_of_the_tag": "%TAG !x! tag:yaml.org,2002:python/\n---\na: !x!object/apply:os.mkdir ['mark']",
    "path_of_something_else": f"a: {PYTHON}object/apply:pathlib.Path.mkdir ['mark']",
    "path_of_numbers": f"a: {PYTHON}object/apply:pathlib.Path [1, 2]",
    "path_of_a_mapping": f"a: {PYTHON}object/apply:pathlib.Path {{a: 1}}",
    "complex_of_a_text": f"a: {PYTHON}complex 'x'",
    "tuple_of_a_text": f"a: {PYTHON}tuple 'x'",
    "unknown_tag": "a: !Unknown {x: 1}",
    "key_without_a_hash": "? [1, 2]\n: 1",
    "number_that_is_none": "a: !!int 'x'",
    "date_that_is_none": "a: 2024-13-45",
    "bytes_that_are_none": "a: !!binary '=x='",
    "two_documents": "a: 1\n---\nb: 2",
    "list_in_itself": "a: &a [*a]",
    "mapping_in_itself": "&a\na: *a",
    "a_billion_laughs": "a0: &a0 [x, x]\n" + "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]" for i in range(1, 30)),
    "a_billion_merges": "a0: &a0 {x: 1}\n"
    + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 30)),
    "a_million_brackets": "a: " + "[" * 1_000_000,
    "closed_brackets": "a: " + "[" * 50_000 + "]" * 50_000,
    "no_text": "a: \x00",
}


@pytest.fixture(autouse=True)
def _watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In a folder of its own: nothing is made there, nothing imported, and it takes no time."""
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    yield
    assert not (tmp_path / "mark").exists()
    assert "antigravity" not in sys.modules
    assert time.process_time() - began < 5


def from_module(path: Path) -> Any:
    torch.save({"state_dict": Model().state_dict()}, path.with_name("x.ckpt"))
    return Model.load_from_checkpoint(path.with_name("x.ckpt"), hparams_file=path)


@pytest.mark.parametrize("load", [load_hparams_from_yaml, from_module])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_with_a_clear_error(tmp_path, name, load: Callable[[Path], Any]) -> None:
    (tmp_path / "h.yaml").write_text(HOSTILE[name])

    with pytest.raises(ValueError, match=r"h\.yaml cannot be read as hyperparameters: \S"):
        load(tmp_path / "h.yaml")


@pytest.mark.parametrize(("name", "load"), [("h.yaml", load_hparams_from_yaml), ("h.csv", load_hparams_from_tags_csv)])
def test_bytes_that_are_no_text_are_refused_with_a_clear_error(tmp_path, name, load) -> None:
    (tmp_path / name).write_bytes(b"key: \xff\xfe")

    with pytest.raises(ValueError, match=rf"{name} cannot be read as hyperparameters: 'utf-8'"):
        load(tmp_path / name)


def test_aliases_and_merges_within_reason_are_read(tmp_path) -> None:
    (tmp_path / "h.yaml").write_text("base: &base {lr: 1, sizes: [1, 2]}\nother: {<<: *base, lr: 2}\nagain: *base\n")

    hparams = load_hparams_from_yaml(tmp_path / "h.yaml", use_omegaconf=False)

    assert hparams["other"] == {"lr": 2, "sizes": [1, 2]}
    assert hparams["again"] == {"lr": 1, "sizes": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('mark')",
        "[].__class__.__base__.__subclasses__()",
        "{[]: 1}",
        "{1, []}",
        "(" * 100_000,
        "[" * 1000 + "]" * 1000,
        "-" * 100_000 + "1",
        "1" + "+1j" * 20_000,
        "9" * 100_000,
        "f'{1}'",
        "\x00",
    ],
    ids=lambda text: text[:20],
)
def test_expression_in_a_csv_stays_a_text(tmp_path, text) -> None:
    (tmp_path / "h.csv").write_text(f'key,value\na,"{text}"\nb,2\n')

    assert load_hparams_from_tags_csv(tmp_path / "h.csv") == {"a": text, "b": 2}


def test_table_that_is_none_is_refused_with_a_clear_error(tmp_path) -> None:
    (tmp_path / "h.csv").write_text("key,value\na," + "x" * 200_000 + "\n")

    with pytest.raises(ValueError, match=r"h\.csv cannot be read as hyperparameters: field larger"):
        load_hparams_from_tags_csv(tmp_path / "h.csv")
