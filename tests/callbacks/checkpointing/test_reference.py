"""Whatever the settings, the files at the end are those that a short reference model names."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen.callbacks.model_checkpoint import ModelCheckpoint


@dataclass
class Settings:
    """A short run and a policy."""

    monitor: str | None
    mode: str
    save_top_k: int
    save_last: bool | Literal["link"] | None
    every_n_train_steps: int | None
    every_n_epochs: int | None
    save_on_train_epoch_end: bool | None
    epochs: int
    batches: int
    accumulate: int
    validate_every_batches: int  #: equal to ``batches``: at the end of the epoch
    validate_every_epochs: int
    values: list[float]


@st.composite
def runs(draw: st.DrawFn) -> Settings:
    monitor = draw(st.sampled_from(["v", "v", None]))
    by_steps = draw(st.booleans())
    batches = draw(st.integers(2, 4))
    return Settings(
        monitor=monitor,
        mode=draw(st.sampled_from(["min", "max"])),
        save_top_k=draw(st.sampled_from([-1, 0, 1] if monitor is None else [1, 2, 3, -1, 0])),
        save_last=draw(st.sampled_from([None, True, "link"])),
        every_n_train_steps=draw(st.integers(1, 4)) if by_steps else None,
        every_n_epochs=None if by_steps else draw(st.integers(1, 3)),
        save_on_train_epoch_end=draw(st.sampled_from([None, True, False])),
        epochs=draw(st.integers(2, 5)),
        batches=batches,
        accumulate=draw(st.integers(1, 2)),
        validate_every_batches=draw(st.integers(1, batches)),
        validate_every_epochs=draw(st.integers(1, 2)),
        values=draw(st.lists(st.sampled_from([1.0, 0.0, math.nan]), min_size=20, max_size=20)),
    )


def moments(s: Settings) -> list[tuple[int, int, float | None]]:
    """When a file may be written: the epoch, the step, and the value that belongs to them (None: there is none yet)."""
    found: list[tuple[int, int, float | None]] = []
    values, value, step, saved_step, waits = iter(s.values), None, 0, 0, False
    # val_check_interval=1, after every batch, counts as 1.0: after every epoch
    once_per_epoch = s.validate_every_epochs == 1 and s.validate_every_batches in (1, s.batches)
    after_validation = not once_per_epoch if s.save_on_train_epoch_end is None else not s.save_on_train_epoch_end
    for epoch in range(s.epochs):
        epoch_is_due = s.every_n_epochs is not None and (epoch + 1) % s.every_n_epochs == 0
        for batch in range(1, s.batches + 1):
            steps = batch % s.accumulate == 0 or batch == s.batches
            step += steps
            waits |= bool(steps and s.every_n_train_steps and step % s.every_n_train_steps == 0)
            validates = (epoch + 1) % s.validate_every_epochs == 0 and batch % s.validate_every_batches == 0
            value = next(values) if validates else value
            due = epoch_is_due and (validates if after_validation else batch == s.batches)
            if due or (waits and (value is not None or s.monitor is None or batch == s.batches)):
                if steps or step != saved_step:  # or the weights are those of the file before
                    found.append((epoch, step, value))
                saved_step, waits = step, False
    return found


def expected(s: Settings) -> dict[str, Any]:
    """The names of the files at the end; of ``last`` also what it holds or points to."""
    kept: dict[str, float] = {}
    newest = None
    end = math.ceil(s.batches / s.accumulate) * s.epochs
    due = moments(s)
    if s.monitor is None and s.save_last is None:  # the final state is one more file, if it is not there already
        due.append((s.epochs - 1, end, None))
    for epoch, step, value in due:
        if s.save_top_k == 0 or (s.monitor is not None and value is None):
            continue
        worst_first = math.inf if s.mode == "min" else -math.inf
        score = 0.0 if s.monitor is None else worst_first if math.isnan(value) else value
        rank = -score if s.mode == "min" else score
        if len(kept) == s.save_top_k:
            worst = min(kept, key=kept.__getitem__)
            if s.monitor is not None and rank <= kept[worst]:
                continue
            del kept[worst]
        newest = f"epoch={epoch}-step={step}"
        kept[newest] = rank
    files: dict[str, Any] = dict.fromkeys(kept)
    newest_is_end = newest is not None and newest.endswith(f"-step={end}")
    if s.save_last == "link" and newest_is_end:
        files["last"] = f"{newest}.ckpt"
    elif s.save_last or (s.save_top_k != 0 and not newest_is_end):
        files["last"] = (s.epochs, end)
    return files


_SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.mark.filterwarnings("ignore:ModelCheckpoint")  # a metric that is not there yet
@settings(max_examples=80, derandomize=True, **_SETTINGS)
@given(runs())
def test_policy_with_varied_settings_leaves_the_files_of_the_reference_model(fit, scored, left, s: Settings):
    _check(fit, scored, left, s)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ModelCheckpoint")
@settings(max_examples=2000, **_SETTINGS)
@given(runs())
def test_policy_with_random_settings_leaves_the_files_of_the_reference_model(fit, scored, left, s: Settings):
    _check(fit, scored, left, s)


def _check(fit: Any, scored: Any, left: Any, s: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = ModelCheckpoint(
            dirpath=folder,
            monitor=s.monitor,
            mode=s.mode,
            save_top_k=s.save_top_k,
            save_last=s.save_last,
            every_n_train_steps=s.every_n_train_steps,
            every_n_epochs=s.every_n_epochs,
            save_on_train_epoch_end=s.save_on_train_epoch_end,
        )
        fit(
            checkpoint,
            model=scored(s.values, s.batches),
            max_epochs=s.epochs,
            accumulate_grad_batches=s.accumulate,
            val_check_interval=1.0 if s.validate_every_batches == s.batches else s.validate_every_batches,
            check_val_every_n_epoch=s.validate_every_epochs,
        )
        files, names = left(Path(folder)), expected(s)

        assert files.keys() == names.keys()
        assert files.get("last") == names.get("last")
        if s.monitor is not None:
            assert {Path(path).stem for path in checkpoint.best_k_models} == names.keys() - {"last"}
