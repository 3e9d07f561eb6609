from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .load import load_example

char_lm = load_example("char_lm")

BITS_OF_CHARACTER_FREQUENCIES = 4.63  # what knowing nothing but how often each character occurs would cost


def test_char_lm_text_is_the_same_every_time() -> None:
    names = char_lm.VALIDATION_MODULES
    assert torch.equal(char_lm.read_modules(names), char_lm.read_modules(names))


def test_char_lm_validates_on_modules_it_does_not_train_on() -> None:
    assert not set(char_lm.TRAIN_MODULES) & set(char_lm.VALIDATION_MODULES)


def test_char_lm_decodes_what_it_encoded() -> None:
    text = "def f(x):\n    return x + 1\n"
    assert char_lm.decode(char_lm.encode(text)) == text


def test_char_lm_never_looks_ahead() -> None:
    model = char_lm.CharacterModel(context=8, width=8, layers=2, heads=2).eval()
    codes = char_lm.encode("abcdefgh")[None]
    changed = char_lm.encode("abcdefgX")[None]
    assert torch.equal(model(codes)[:, :7], model(changed)[:, :7])
    assert not torch.equal(model(codes)[:, 7], model(changed)[:, 7])


def test_char_lm_learns_more_than_character_frequencies_in_100_steps(tmp_path: Path) -> None:
    arguments = "--max-steps 100 --val-every 50 --context 32 --width 32 --layers 1 --sample-length 10"
    bits = char_lm.main([*arguments.split(), "--learning-rate", "1e-2", "--dir", str(tmp_path)])
    assert bits < 4.2 < BITS_OF_CHARACTER_FREQUENCIES


@pytest.mark.slow
def test_char_lm_falls_below_3_6_bits_in_300_steps(tmp_path: Path) -> None:
    arguments = "--max-steps 300 --val-every 100 --context 64 --width 64 --layers 2 --sample-length 100"
    bits = char_lm.main([*arguments.split(), "--dir", str(tmp_path)])
    assert bits < 3.6


@pytest.mark.slow
def test_char_lm_resumed_ends_where_the_uninterrupted_run_ends(tmp_path: Path) -> None:
    arguments = "--max-steps 60 --context 32 --width 32 --layers 1 --sample-length 0 --val-every 20".split()
    straight = char_lm.main([*arguments, "--dir", str(tmp_path / "straight")])
    [halfway] = (tmp_path / "straight").rglob("*step=40*.ckpt")
    resumed = char_lm.main([*arguments, "--dir", str(tmp_path / "resumed"), "--resume", str(halfway)])
    assert resumed == straight
