"""``fulmen checkpoint`` as it is typed: what it prints, its exit codes, and what it leaves as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fulmen import Callback, LightningModule, Trainer
from fulmen.__main__ import main
from fulmen.callbacks import EarlyStopping, ModelCheckpoint

STOPPING = "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"


class Net(LightningModule):
    def __init__(self, width: int = 3, name: str = "net", parts: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(width, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.net(batch).pow(2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class SaveAt(Callback):
    """Writes a checkpoint after the batch of this number, counted from 1 over all epochs."""

    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: trainer.save_checkpoint(self.path))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of a run, a file from the middle of an epoch, and one of weights alone."""
    folder = tmp_path_factory.mktemp("run")
    data = [torch.randn(2, 3, generator=torch.Generator().manual_seed(batch)) for batch in range(4)]
    torch.manual_seed(1)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(folder / "kept", monitor="val_loss", save_top_k=2),
            EarlyStopping(monitor="val_loss"),
            SaveAt(folder / "middle.ckpt", 3),
        ],
    )
    trainer.fit(Net(), data, data)
    trainer.save_checkpoint(folder / "last.ckpt")
    trainer.save_checkpoint(folder / "weights.ckpt", weights_only=True)
    return folder


@pytest.fixture
def run(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(run_folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def fulmen(*words: Any) -> int:
    return main(["checkpoint", *map(str, words)])


def facts(text: str) -> dict[str, str]:
    """The lines of ``show``, by their name."""
    rows = (line.strip().partition("  ") for line in text.splitlines())
    return {name: value.strip() for name, _, value in rows}


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_tells_who_wrote_a_file_and_how_far_the_run_was(run, capsys):
    assert fulmen("show", "middle.ckpt") == 0

    shown = facts(capsys.readouterr().out)
    assert shown["written by"].startswith("Fulmen ")
    assert shown["step"] == "3"
    assert shown["epoch"] == "0, 3 batches of it done"
    assert shown["a run goes on"] == "in epoch 0, with batch 3"
    assert shown["exactly"] == "yes"
    assert shown["weights"] == "4 numbers in 2 tensors (16 bytes)"
    assert shown["width"] == "3"
    assert shown["parts"] == "(1, 2)"
    assert shown["wait_count"] == "0"


def test_show_tells_the_state_of_model_checkpoint_in_terms_of_a_person(run, run_folder, capsys):
    best = json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"][-1]
    fulmen("show", "last.ckpt")

    printed = capsys.readouterr().out
    of_callback = printed.partition("  ModelCheckpoint\n")[2].partition("\n\n")[0]
    assert facts(of_callback) == {
        "folder": str(run_folder / "kept"),
        "monitor": "val_loss, the lowest is the best",
        "best": best["path"],
        "score": str(best["metric"]["value"]),
        "last": "none",
    }


def test_show_of_the_end_of_training_goes_on_with_the_next_epoch(run, capsys):
    fulmen("show", "last.ckpt")

    assert facts(capsys.readouterr().out)["a run goes on"] == "with epoch 2"


def test_show_of_weights_alone_says_that_no_run_goes_on(run, capsys):
    assert fulmen("show", "weights.ckpt") == 0

    shown = facts(capsys.readouterr().out)
    assert shown["exactly"] == "no: it holds weights alone"
    assert shown["a run goes on"] == "not at all"


def test_show_of_a_file_that_the_index_names_has_its_checksum_and_reason(run, capsys):
    entry = json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"][0]
    fulmen("show", Path("kept") / entry["path"])

    shown = facts(capsys.readouterr().out)
    assert (shown["checksum"], shown["reason"]) == (entry["checksum"], entry["reason"])


def test_show_with_checksum_reads_the_file(run, capsys):
    import hashlib

    fulmen("show", "--checksum", "last.ckpt")

    digest = hashlib.sha256((run / "last.ckpt").read_bytes()).hexdigest()
    assert facts(capsys.readouterr().out)["checksum"] == f"sha256:{digest}"


def test_show_with_tensors_lists_every_weight(run, capsys):
    fulmen("show", "--tensors", "last.ckpt")

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["net.weight", "1x3", "float32", "12"] in rows
    assert ["net.bias", "1", "float32", "4"] in rows


def test_show_as_json_holds_the_same(run, capsys):
    assert fulmen("show", "--json", "--tensors", "middle.ckpt") == 0

    content = json.loads(capsys.readouterr().out)
    assert (content["epoch"], content["step"], content["batch"]) == (0, 3, 3)
    assert content["exact_resume"] == "yes"
    assert content["hyperparameters"] == {"width": 3, "name": "net", "parts": [1, 2]}
    assert content["tensors"]["net.weight"] == {"shape": [1, 3], "dtype": "float32", "bytes": 12}
    assert content["optimizers"][0]["groups"][0]["lr"] == 0.01
    assert content["schedulers"][0]["step_size"] == 2
    assert content["callbacks"][STOPPING]["patience"] == 3


def test_show_of_a_folder_lists_what_its_index_names(run, capsys):
    assert fulmen("show", "kept") == 0

    entries = json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"]
    printed = capsys.readouterr().out
    assert len(entries) >= 2
    for entry in entries:
        (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith(entry["path"])]
        assert row[:3] == [entry["path"], str(entry["epoch"]), str(entry["step"])]
        assert f"val_loss={entry['metric']['value']:.5g}" in row
        assert entry["reason"] in row


def test_show_of_a_folder_as_json_is_its_index(run, capsys):
    fulmen("show", "--json", "kept")

    entries = json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"]
    assert [each["checksum"] for each in json.loads(capsys.readouterr().out)] == [each["checksum"] for each in entries]


def test_show_of_the_directory_of_a_run_lists_its_folder_of_checkpoints(run, capsys):
    (run / "version_0").mkdir()
    shutil.move("kept", "version_0/checkpoints")
    entries = json.loads(Path("version_0/checkpoints/checkpoints.json").read_text())["checkpoints"]

    assert fulmen("show", "version_0") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("version_0/checkpoints")
    rows = [line.split() for line in printed.splitlines()]
    for entry in entries:
        assert [entry["path"], str(entry["epoch"]), str(entry["step"])] in [row[:3] for row in rows]
    command = printed.partition("fulmen checkpoint show ")[2].splitlines()[0]
    assert fulmen("show", command) == 0
    assert facts(capsys.readouterr().out)["step"] == "8"


def test_show_of_a_folder_of_many_runs_lists_each_in_the_order_of_their_numbers(run, capsys):
    for number in (10, 2):
        shutil.copytree("kept", f"logs/version_{number}/checkpoints")

    assert fulmen("show", "logs") == 0
    titles = [line.partition(" ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("logs")]
    assert titles == ["logs/version_2/checkpoints", "logs/version_10/checkpoints"]


def test_show_of_a_folder_says_which_files_are_not_whole(run, capsys):
    entries = json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"]
    short, gone = (run / "kept" / entry["path"] for entry in entries[:2])
    short.write_bytes(short.read_bytes()[:1000])
    gone.unlink()

    assert fulmen("show", "kept") == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  epoch")}
    assert "no: 1 kB of it" in rows[short.name]
    assert "no: gone" in rows[gone.name]


def test_show_of_a_folder_without_an_index_names_its_files(run, capsys):
    assert fulmen("show", ".") == 0  # there is one in `kept`
    shutil.rmtree("kept")

    assert fulmen("show", ".") == 2
    assert "give one of its files: last.ckpt, middle.ckpt, weights.ckpt" in capsys.readouterr().err


def test_show_prints_no_characters_that_a_terminal_obeys(tmp_path, capsys):
    torch.save({"state_dict": {}, "hyper_parameters": {"a\x1b[2J": "b\x1b]0;c\x07"}}, tmp_path / "evil.ckpt")
    fulmen("show", tmp_path / "evil.ckpt")

    assert "\x1b" not in capsys.readouterr().out


def test_show_of_a_remote_file_reads_it_through_fsspec(run, capsys):
    import fsspec

    with fsspec.open("memory://shown/last.ckpt", "wb") as file:
        file.write((run / "last.ckpt").read_bytes())

    assert fulmen("show", "memory://shown/last.ckpt") == 0
    assert facts(capsys.readouterr().out)["step"] == "8"


@pytest.mark.slow
def test_show_does_not_read_the_data_of_a_large_file(tmp_path):
    path, script = tmp_path / "large.ckpt", tmp_path / "look.py"
    torch.save({"state_dict": {"weight": torch.zeros(300_000_000, dtype=torch.uint8)}}, path)
    script.write_text(
        "import resource, sys\n"
        "from fulmen.__main__ import main\n"
        "import fulmen.checkpoints.show\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert main(['checkpoint', 'show', sys.argv[1]]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True, check=True)

    assert int(done.stdout.splitlines()[-1]) < 100_000, "kilobytes more in memory"


# -- diff -------------------------------------------------------------------------------------------------------------


def test_diff_of_equal_files_is_0(run, capsys):
    shutil.copy("last.ckpt", "copy.ckpt")

    assert fulmen("diff", "last.ckpt", "copy.ckpt") == 0
    assert capsys.readouterr().out == "equal\n"


def changed(source: str, change: Any) -> str:
    """A copy of ``source`` in which ``change`` has changed the checkpoint."""
    checkpoint = torch.load(source, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, "changed.ckpt")
    return "changed.ckpt"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c.update(epoch=7), "  epoch: 2 -> 7"),
        (lambda c: c["hyper_parameters"].update(name="other"), "  hyper_parameters.name: 'net' -> 'other'"),
        (lambda c: c["hyper_parameters"].update(parts=(1, 2, 3)), "parts: (1, 2) -> (1, 2, 3) (2 and 3 values)"),
        (lambda c: c["state_dict"].pop("net.bias"), "  net.bias: only in A"),
        (lambda c: c["state_dict"].update(extra=torch.ones(2)), "  extra: only in B (tensor(2,) of float32)"),
        (lambda c: c["state_dict"].update({"net.weight": torch.ones(3, 1)}), "net.weight: of shape (1, 3) -> (3, 1)"),
        (lambda c: c["state_dict"].update({"net.bias": c["state_dict"]["net.bias"].double()}), "with the same values"),
        (lambda c: c["state_dict"]["net.weight"][0, :2].add_(0.5), "2 of 3 elements differ, by at most 0.5"),
        (lambda c: c["state_dict"]["net.weight"].fill_(torch.nan), "3 of 3 elements differ (3 not finite in one)"),
        (lambda c: c["optimizer_states"][0]["param_groups"][0].update(lr=1.0), "  0.param_groups.0.lr: 0.001 -> 1.0"),
        (lambda c: c["lr_schedulers"][0].update(last_epoch=9), "  0.last_epoch: 2 -> 9"),
        (lambda c: c["callbacks"][STOPPING].update(patience=9), "  EarlyStopping.patience: 3 -> 9"),
        (lambda c: c.pop("resume"), "  resume: only in A"),
        (lambda c: c.update(memory=[1]), "  memory: only in B"),
    ],
)
def test_diff_names_what_was_changed_and_is_1(run, capsys, change, line):
    assert fulmen("diff", "last.ckpt", changed("last.ckpt", change)) == 1

    assert line in capsys.readouterr().out


def test_diff_within_the_tolerance_is_0(run, capsys):
    other = changed("last.ckpt", lambda c: c["state_dict"]["net.weight"].add_(1e-4))

    assert fulmen("diff", "last.ckpt", other) == 1
    assert fulmen("diff", "--tolerance", "1e-3", "last.ckpt", other) == 0
    assert fulmen("diff", "--tolerance", "1e-5", "last.ckpt", other) == 1


def one_run(folder: Path, seed: int = 1, **given: Any) -> Path:
    """The newest checkpoint of a run in ``folder``, with all that it writes there by default."""
    torch.manual_seed(seed)
    data = [torch.ones(2, 3) * batch for batch in range(3)]
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=2,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(monitor="val_loss", save_top_k=2)],
    )
    trainer.fit(Net(**given), data, data)
    assert trainer.log_dir is not None
    return newest(Path(trainer.log_dir) / "checkpoints")


def test_diff_of_equal_runs_in_other_folders_is_0_and_sums_up_their_paths(tmp_path, capsys):
    first, second, third = one_run(tmp_path / "a"), one_run(tmp_path / "b"), one_run(tmp_path / "a")
    assert third.parts[-3] == "version_1"
    capsys.readouterr()

    for other in (second, third):
        assert fulmen("diff", first, other) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"equal \(\d paths differ only by the folder of the run\)", line)


def test_diff_of_runs_in_other_folders_shows_what_differs_besides_them(tmp_path, capsys):
    files = [one_run(tmp_path / "a", name="/data/one/x"), one_run(tmp_path / "b", seed=2, name="/data/two/x")]
    capsys.readouterr()

    assert fulmen("diff", "--all", *files) == 1
    printed = capsys.readouterr().out
    assert "  hyper_parameters.name: '/data/one/x' -> '/data/two/x'" in printed
    assert "net.weight: 3 of 3 elements differ" in printed
    assert "ModelCheckpoint.best_model_score" in printed
    assert "dirpath" not in printed
    assert "only in" not in printed
    assert str(tmp_path) not in printed.partition("\n\n")[2]
    assert "paths differ only by the folder of the run" in printed.splitlines()[-1]


def test_diff_of_runs_in_other_folders_shows_a_best_file_of_another_name(run, capsys):
    def moved(checkpoint: dict[str, Any]) -> None:
        (state,) = (value for key, value in checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))
        state.update(dirpath="/other/kept", best_model_path="/other/kept/another.ckpt")

    assert fulmen("diff", "last.ckpt", changed("last.ckpt", moved)) == 1
    printed = capsys.readouterr().out
    assert "ModelCheckpoint.best_model_path" in printed
    assert "ModelCheckpoint.dirpath" not in printed


def test_diff_of_a_file_that_cannot_be_read_is_2(run, capsys):
    Path("short.ckpt").write_bytes(Path("last.ckpt").read_bytes()[:-500])

    assert fulmen("diff", "last.ckpt", "short.ckpt") == 2
    assert capsys.readouterr().out == ""


def test_diff_finds_long_integers_that_equal_each_other_only_as_floats(run, capsys):
    one = changed("last.ckpt", lambda c: c["state_dict"].update(count=torch.tensor([2**53, 0])))
    shutil.move(one, "one.ckpt")
    other = changed("last.ckpt", lambda c: c["state_dict"].update(count=torch.tensor([2**53 + 1, 0])))

    assert fulmen("diff", "one.ckpt", other) == 1
    assert "count: 1 of 2 elements differ" in capsys.readouterr().out


def test_diff_takes_nan_for_equal_to_itself(run):
    one = changed("last.ckpt", lambda c: c["state_dict"]["net.weight"].fill_(torch.nan))
    shutil.copy(one, "other.ckpt")

    assert fulmen("diff", one, "other.ckpt") == 0


def test_diff_of_weights_alone_looks_at_nothing_else(run):
    assert fulmen("diff", "last.ckpt", "weights.ckpt") == 1
    assert fulmen("diff", "--weights", "last.ckpt", "weights.ckpt") == 0


def test_diff_shows_the_first_of_many_differences_and_with_all_every_one(run, capsys):
    other = changed("last.ckpt", lambda c: c["state_dict"].update({f"w{i}": torch.ones(1) for i in range(30)}))

    fulmen("diff", "last.ckpt", other)
    assert "and 18 more; `--all` shows them" in capsys.readouterr().out
    fulmen("diff", "--all", "last.ckpt", other)
    assert "  w29: only in B" in capsys.readouterr().out


# -- verify -----------------------------------------------------------------------------------------------------------


def lines_of(capsys: Any) -> dict[str, tuple[str, str]]:
    """Each file's name, with its word and what follows."""
    printed = {}
    for line in capsys.readouterr().out.splitlines():
        word, rest = line[:9].strip(), line[9:].strip()
        path, _, why = rest.partition(": ")
        printed[Path(path).name] = (word, why)
    return printed


def test_verify_of_a_sound_folder_is_0_and_names_each_file(run, capsys):
    assert fulmen("verify", "kept", "last.ckpt") == 0

    names = {entry["path"] for entry in json.loads((run / "kept" / "checkpoints.json").read_text())["checkpoints"]}
    printed = lines_of(capsys)
    assert printed.keys() == names | {"last.ckpt"}
    assert {word for word, _ in printed.values()} == {"sound"}
    assert all("as in checkpoints.json" in printed[name][1] for name in names)


def newest(folder: Path) -> Path:
    return folder / json.loads((folder / "checkpoints.json").read_text())["checkpoints"][-1]["path"]


def flip_a_bit(path: Path, record: str = "data/0") -> None:
    """Flip a bit within a record of the archive."""
    import zipfile

    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(f"/{record}")]
        start = data.index(name.encode()) + len(name)
    data[start + 120] ^= 1
    path.write_bytes(data)


def test_verify_finds_a_flipped_bit_without_an_index_by_the_checksums_of_the_archive(run, capsys):
    torch.save({"state_dict": {"large": torch.zeros(1000)}, "epoch": 0}, "flipped.ckpt")
    flip_a_bit(Path("flipped.ckpt"))

    assert fulmen("verify", "flipped.ckpt") == 1
    word, why = lines_of(capsys)["flipped.ckpt"]
    assert (word, why) == ("damaged", "its record 'flipped/data/0' is damaged")


@pytest.mark.parametrize(
    ("damage", "word", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged", "it has 1,000 bytes, and"),
        (lambda path: flip_a_bit(path, "data.pkl"), "damaged", "its checksum is not that of what was written"),
        (lambda path: path.unlink(), "missing", "it is gone, though checkpoints.json names it"),
    ],
    ids=["truncated", "flipped", "gone"],
)
def test_verify_of_a_folder_with_a_bad_file_is_1_and_names_it(run, capsys, damage, word, why):
    bad = newest(run / "kept")
    damage(bad)

    assert fulmen("verify", "kept") == 1
    printed = lines_of(capsys)
    assert printed[bad.name][0] == word
    assert why in printed[bad.name][1]
    assert [name for name, (word, _) in printed.items() if word != "sound"] == [bad.name]


def test_verify_tells_of_a_file_that_the_index_does_not_name(run, capsys):
    shutil.copy("last.ckpt", "kept/stranger.ckpt")

    assert fulmen("verify", "kept") == 0
    assert "not named in checkpoints.json" in lines_of(capsys)["stranger.ckpt"][1]


def test_verify_of_a_truncated_file_without_an_index_is_1(run, capsys):
    Path("short.ckpt").write_bytes(Path("last.ckpt").read_bytes()[:-500])

    assert fulmen("verify", "short.ckpt") == 1
    size = Path("short.ckpt").stat().st_size
    told = f"it is truncated: its first {size:,} bytes are there, and its end is missing"
    assert lines_of(capsys)["short.ckpt"] == ("damaged", told)


def test_verify_of_a_file_that_names_a_class_is_1_and_says_how_to_convert_it(run, capsys):
    other = changed("last.ckpt", lambda c: c["hyper_parameters"].update(path=Path("a")))

    assert fulmen("verify", other) == 1
    word, why = lines_of(capsys)[other]
    assert word == "not plain"
    assert "PosixPath" in why
    assert f"fulmen checkpoint convert {other}" in why


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (nn.Linear(2, 1).state_dict(), "it holds 2 tensors by name, as `torch.save(model.state_dict(), ...)` writes"),
        ({"weight": torch.ones(1)}, "it holds one tensor by name"),
        ({"weight": torch.ones(1), "epoch": 1}, "it holds a dict without a `state_dict`"),
        (torch.ones(2), "it holds a Tensor"),
    ],
)
def test_verify_of_plain_data_that_is_no_checkpoint_says_that_it_is_whole_and_is_0(tmp_path, capsys, content, holds):
    torch.save(content, tmp_path / "weights.pt")

    assert fulmen("verify", tmp_path / "weights.pt") == 0
    word, why = lines_of(capsys)["weights.pt"]
    assert word == "plain"
    assert why.startswith(f"whole, but no checkpoint of a run: {holds}")


def test_show_of_weights_without_a_run_says_how_to_read_them(tmp_path, capsys):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "weights.pt")

    assert fulmen("show", tmp_path / "weights.pt") == 2
    assert "`model.load_state_dict(torch.load(...))`" in capsys.readouterr().err


def test_verify_of_the_directory_of_a_run_looks_at_all_that_its_index_names(run, capsys):
    shutil.copytree("kept", "version_0/checkpoints")
    gone = newest(Path("version_0/checkpoints"))
    gone.unlink()

    assert fulmen("verify", "version_0") == 1
    assert lines_of(capsys)[gone.name][0] == "missing"


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    "words", [("show", "evil.ckpt"), ("verify", "evil.ckpt"), ("diff", "last.ckpt", "evil.ckpt"),
              ("export", "evil.ckpt", "out.safetensors")]
)  # fmt: skip
def test_file_that_would_run_code_is_named_as_such_and_nothing_is_run(run, capsys, words):
    changed("last.ckpt", lambda c: c["hyper_parameters"].update(evil=Hostile()))
    shutil.move("changed.ckpt", "evil.ckpt")

    assert fulmen(*words) == (1 if words[0] == "verify" else 2)
    told = "".join(capsys.readouterr())
    assert "unsafe " in told or words[0] != "verify"
    assert "holds what would run code: posix.system('touch pwned'). Nothing of it was run." in told
    assert "Get the file again from somebody you trust" in told
    assert not any(way in told for way in ("convert evil", "add_safe_globals", "weights_only"))
    assert not Path("pwned").exists()


def test_show_does_not_heed_the_switch_that_lets_torch_run_what_files_name(run, capsys, monkeypatch):
    changed("last.ckpt", lambda c: c["hyper_parameters"].update(evil=Hostile()))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    assert fulmen("show", "changed.ckpt") == 2
    assert not Path("pwned").exists()


def test_verify_of_a_damaged_index_says_so_and_looks_at_the_files(run, capsys):
    Path("kept/checkpoints.json").write_text("{")

    assert fulmen("verify", "kept") == 1
    printed = lines_of(capsys)
    assert printed["checkpoints.json"][0] == "damaged"
    assert {word for name, (word, _) in printed.items() if name.endswith(".ckpt")} == {"sound"}
    assert Path("kept/checkpoints.json").read_text() == "{"


# -- export -----------------------------------------------------------------------------------------------------------


def read_safetensors(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_export_writes_the_weights_and_where_they_are_from(run, capsys):
    assert fulmen("export", "last.ckpt", "out.safetensors") == 0

    tensors, metadata = read_safetensors("out.safetensors")
    torch.testing.assert_close(tensors, dict(torch.load("last.ckpt", weights_only=True)["state_dict"]), rtol=0, atol=0)
    assert (metadata["step"], metadata["epoch"], metadata["format"]) == ("8", "2", "pt")
    assert json.loads(metadata["hyper_parameters"]) == {"width": 3, "name": "net", "parts": [1, 2]}


def test_export_with_a_prefix_takes_it_off_and_leaves_out_the_others(run, capsys):
    other = changed("last.ckpt", lambda c: c["state_dict"].update(loss=torch.ones(2)))

    assert fulmen("export", other, "out.safetensors", "--prefix", "net.") == 0
    assert set(read_safetensors("out.safetensors")[0]) == {"weight", "bias"}
    assert "left out 1" in capsys.readouterr().out


def test_export_of_a_prefix_that_no_weight_has_names_those_there_are(run, capsys):
    assert fulmen("export", "last.ckpt", "out.safetensors", "--prefix", "model.") == 2

    assert "begin with net." in capsys.readouterr().err
    assert not Path("out.safetensors").exists()


def test_export_writes_shared_weights_once_and_names_the_others(run, capsys):
    weight = torch.arange(6.0).reshape(2, 3)
    views = {"embedding": weight, "head": weight, "turned": weight.T, "row": weight[1], "number": torch.tensor(1)}
    torch.save({"state_dict": views, "epoch": 0}, "tied.ckpt")

    assert fulmen("export", "tied.ckpt", "out.safetensors") == 0
    tensors, metadata = read_safetensors("out.safetensors")
    assert json.loads(metadata["aliases"]) == {"head": "embedding"}
    del views["head"]
    torch.testing.assert_close(tensors, {name: view.contiguous() for name, view in views.items()}, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["out.ckpt", "out", "out.safetensors.bak"])
def test_export_to_another_suffix_is_refused_and_names_the_file_to_write(run, capsys, name):
    assert fulmen("export", "last.ckpt", name) == 2

    assert f"write {Path(name).with_suffix('.safetensors')}" in capsys.readouterr().err
    assert not Path(name).exists()


def test_export_without_safetensors_names_what_to_install(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)

    assert fulmen("export", "last.ckpt", "out.safetensors") == 2
    assert "pip install 'fulmen[safetensors]'" in capsys.readouterr().err


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("show",), ("diff", "last.ckpt"), ("export", "out.safetensors"), ("convert",)])
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nothing.ckpt", "no"),
        ("folder.ckpt", "folder"),
        ("empty.ckpt", "is empty"),
        ("text.ckpt", "no file of `torch.save`"),
        ("short.ckpt", "truncated"),
        ("number.ckpt", "not a checkpoint"),
        ("weights_without_a_name.ckpt", "not a checkpoint"),
    ],
)
def test_file_that_is_no_checkpoint_is_one_line_and_2(run, capsys, words, path, why):
    Path("folder.ckpt").mkdir()
    Path("empty.ckpt").write_bytes(b"")
    Path("text.ckpt").write_text("hello")
    Path("short.ckpt").write_bytes(Path("last.ckpt").read_bytes()[:1000])
    torch.save(5, "number.ckpt")
    torch.save({"weight": torch.ones(1)}, "weights_without_a_name.ckpt")
    verb, *more = words
    given = [verb, path, *more] if verb == "export" else [verb, *more, path]

    assert fulmen(*given) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fulmen checkpoint {verb}: ")
    assert error.count("\n") == 1
    assert path in error
    assert why in error
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize("verb", ["convert", "export"])
def test_file_that_is_there_is_not_written_over_without_force(run, capsys, verb):
    target = Path("taken.safetensors")
    target.write_text("precious")

    assert fulmen(verb, "last.ckpt", target) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert fulmen(verb, "last.ckpt", target, "--force") == 0
    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize("verb", ["convert", "export"])
def test_input_is_never_written_over(run, capsys, verb):
    before = Path("last.ckpt").read_bytes()
    Path("link.ckpt").symlink_to("last.ckpt")

    assert fulmen(verb, "last.ckpt", "link.ckpt", "--force") == 2
    assert fulmen(verb, "last.ckpt", "./last.ckpt", "--force") == 2
    assert Path("last.ckpt").read_bytes() == before


def test_checkpoint_alone_prints_its_commands(capsys):
    assert main(["checkpoint"]) == 0

    printed = capsys.readouterr().out
    assert all(verb in printed for verb in ("show", "diff", "verify", "convert", "export"))


def test_process_has_the_exit_codes_and_survives_a_reader_that_leaves(run):
    command = [sys.executable, "-m", "fulmen", "checkpoint"]
    error = subprocess.run([*command, "show", "nothing.ckpt"], capture_output=True, text=True, check=False)
    left = subprocess.run(
        f"{sys.executable} -m fulmen checkpoint show --tensors last.ckpt | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (error.returncode, error.stdout, "Traceback" in error.stderr) == (2, "", False)
    assert (left.returncode, left.stderr) == (0, "")
