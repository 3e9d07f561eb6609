from __future__ import annotations

import copy
import pickle
import re
import time

import pytest

from fulmen.profilers import PassThroughProfiler, Profiler, SimpleProfiler
from fulmen.utilities.rank_zero import rank_zero_only


def rows_of(report: str) -> dict[str, list[str]]:
    """The cells of the table by action."""
    lines = [line.strip("| ").split("|") for line in report.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_simple_profiler_measures_the_block():
    profiler = SimpleProfiler()
    for seconds in (0.01, 0.02):
        with profiler.profile("sleep"):
            time.sleep(seconds)
    short, long = profiler.recorded_durations["sleep"]
    assert 0.01 <= short < 0.3
    assert 0.02 <= long < 0.3


def test_simple_profiler_measures_a_block_that_raises():
    profiler = SimpleProfiler()
    with pytest.raises(KeyError), profiler.profile("a"):
        raise KeyError
    with profiler.profile("a"):
        pass
    assert len(profiler.recorded_durations["a"]) == 2


def test_simple_profiler_report_is_an_aligned_table_with_the_longest_first(capsys):
    profiler = SimpleProfiler()
    profiler.setup("fit")
    for name, durations in (("short", [0.25]), ("[Callback]Longest.on_train_batch_end", [1.0, 2.0])):
        profiler.recorded_durations[name].extend(durations)
    profiler.describe()
    report = capsys.readouterr().out
    lines = report.strip().splitlines()
    assert lines[0] == "FIT Profiler Report"
    assert len({len(line) for line in lines[1:]}) == 1
    assert len({tuple(match.start() for match in re.finditer(r"\|", line)) for line in lines if "|" in line}) == 1
    rows = rows_of(report)
    assert list(rows) == ["Action", "Total", "[Callback]Longest.on_train_batch_end", "short"]
    assert rows["Action"] == ["Mean duration (s)", "Num calls", "Total time (s)", "Percentage %"]
    assert rows["Total"][1] == "3"
    assert rows["short"][:3] == ["0.2500000", "1", "0.2500"]
    assert rows["[Callback]Longest.on_train_batch_end"][:3] == ["1.5000000", "2", "3.0000"]


def test_simple_profiler_long_names_lose_their_middle_unless_they_became_equal():
    profiler = SimpleProfiler()
    long, twin, other = (f"[Callback]{'x' * 60}{middle}{'y' * 60}.on_fit_end" for middle in ("a", "b", ""))
    for name in (long, twin, f"[Callback]Other{other[15:]}"):
        profiler.recorded_durations[name].append(1.0)
    shown = list(rows_of(profiler.summary()))[2:]
    assert shown[:2] == [long, twin]
    assert len(shown[2]) == 96
    assert shown[2].startswith("[Callback]Otherxxx")
    assert shown[2].endswith("yyy.on_fit_end")


def test_simple_profiler_percentage_is_the_share_of_the_run():
    profiler = SimpleProfiler()
    profiler.setup("fit")
    with profiler.profile("half"):
        time.sleep(0.03)
    time.sleep(0.03)
    share = float(rows_of(profiler.summary())["half"][3])
    assert 20 < share < 70


def test_simple_profiler_not_extended_reports_mean_and_total_alone():
    profiler = SimpleProfiler(extended=False)
    profiler.recorded_durations["a"].append(0.5)
    rows = rows_of(profiler.summary())
    assert rows["Action"] == ["Mean duration (s)", "Total time (s)"]
    assert rows["a"] == ["0.5000000", "0.5000"]


def test_simple_profiler_action_started_twice_is_refused():
    profiler = SimpleProfiler()
    profiler.start("a")
    with pytest.raises(ValueError, match="'a' was started twice"):
        profiler.start("a")


def test_simple_profiler_action_never_started_is_refused():
    with pytest.raises(ValueError, match="'a' was stopped but never started"):
        SimpleProfiler().stop("a")


def test_simple_profiler_second_run_reports_itself_alone():
    profiler = SimpleProfiler()
    with profiler.profile("before"):
        pass
    profiler.setup("fit")
    with profiler.profile("train"):
        pass
    assert {"before", "train"} <= set(rows_of(profiler.summary()))
    profiler.describe()
    profiler.setup("test")
    with profiler.profile("evaluate"):
        pass
    assert list(rows_of(profiler.summary())) == ["Action", "Total", "evaluate"]


def test_simple_profiler_run_after_an_exception_starts_afresh():
    profiler = SimpleProfiler()
    profiler.setup("fit")
    profiler.start("a")
    profiler.describe()
    profiler.setup("fit")
    profiler.start("a")
    profiler.stop("a")
    assert len(profiler.recorded_durations["a"]) == 1


def test_profiler_file_is_named_by_stage_and_rank_and_grows(tmp_path, capsys):
    profiler = SimpleProfiler(dirpath=tmp_path / "new", filename="re:port")
    for stage, local_rank in (("fit", None), ("fit", None), ("test", 1)):
        profiler.setup(stage, local_rank, log_dir="/nowhere")
        with profiler.profile("a"):
            pass
        profiler.describe()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["fit-re_port.txt", "test-re_port-1.txt"]
    assert (tmp_path / "new" / "fit-re_port.txt").read_text().count("FIT Profiler Report") == 2
    assert capsys.readouterr().out == ""


def test_profiler_file_without_a_directory_goes_to_the_log_dir(tmp_path):
    profiler = SimpleProfiler(filename="report")
    profiler.setup("fit", log_dir=str(tmp_path))
    profiler.describe()
    assert (tmp_path / "fit-report.txt").exists()


def test_profiler_file_can_be_at_a_url(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    profiler = SimpleProfiler(dirpath=f"memory://{tmp_path}", filename="report")
    profiler.setup("fit")
    profiler.describe()
    with fsspec.open(f"memory://{tmp_path}/fit-report.txt", "r") as file:
        assert "FIT Profiler Report" in file.read()


def test_profiler_without_a_file_prints_on_rank_zero_only(monkeypatch, capsys):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    profiler = SimpleProfiler()
    profiler.setup("fit", local_rank=1)
    profiler.describe()
    assert capsys.readouterr().out == ""
    assert profiler.local_rank == 1


def test_pass_through_profiler_reports_nothing(capsys, tmp_path):
    profiler = PassThroughProfiler(dirpath=tmp_path, filename="report")
    profiler.setup("fit")
    with profiler.profile("a"):
        pass
    profiler.describe()
    assert profiler.summary() == ""
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    assert profiler.local_rank == 0


def test_profiler_of_ones_own_needs_start_and_stop_alone(capsys):
    class Counter(Profiler):
        calls = 0
        torn_down = None

        def start(self, action_name):
            self.calls += 1

        def stop(self, action_name):
            pass

        def summary(self):
            return f"{self.calls} calls"

        def teardown(self, stage):
            self.torn_down = stage

    profiler = Counter()
    profiler.setup("predict")
    with profiler.profile("a"), profiler.profile("b"):
        pass
    profiler.describe()
    assert capsys.readouterr().out == "2 calls\n"
    assert profiler.torn_down == "predict"
    with pytest.raises(TypeError, match="abstract"):
        Profiler()  # type: ignore[abstract]


def test_simple_profiler_can_be_copied_and_pickled():
    profiler = SimpleProfiler()
    profiler.recorded_durations["a"].append(0.5)
    for again in (copy.deepcopy(profiler), pickle.loads(pickle.dumps(profiler))):
        assert list(again.recorded_durations["a"]) == [0.5]
        assert len(again.recorded_durations["new"]) == 0
