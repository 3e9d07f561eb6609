"""The example of a search does what it says: it finds a better network than the one with the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.search.searching import states, trials

from fulmen.search.fit import run_fit

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "search" / "config.yaml"
DIGITS = "fulmen.demos.digits"


@pytest.mark.slow
def test_twenty_short_trials_on_the_digits_beat_the_defaults(tmp_path: Path, search_here) -> None:
    code, output = search_here("--config", str(CONFIG), "--trials=20", "--workers=2")

    assert code == 0, output
    assert len(states(tmp_path)) == 20
    assert set(states(tmp_path)) <= {"COMPLETE", "PRUNED"}
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    default = run_fit(
        [f"--model={DIGITS}.DigitsClassifier", f"--data={DIGITS}.DigitsDataModule", "--trainer.max_epochs=3", *quiet],
        [],
    ).callback_metrics["val_loss"]
    best = run_fit(["--config=search/best.yaml", "--trainer.default_root_dir=best", *quiet], []).callback_metrics[
        "val_loss"
    ]
    assert best < default
    assert best == pytest.approx(min(trial.value for trial in trials(tmp_path) if trial.state.name == "COMPLETE"))
