from __future__ import annotations

import pstats

import pytest

from fulmen.profilers import AdvancedProfiler


def outer_work() -> int:
    return sum(range(100))


def inner_work() -> int:
    return sum(range(100))


@pytest.fixture
def profiler():
    profiler = AdvancedProfiler()
    yield profiler
    profiler.teardown("fit")


def section(report: str, action: str) -> str:
    """What the report says about one action."""
    return next(part for part in report.split("Profile stats for: ")[1:] if part.startswith(f"{action}\n"))


def test_advanced_profiler_reports_the_functions_of_each_action(profiler, capsys):
    profiler.setup("fit")
    for _ in range(3):
        with profiler.profile("work"):
            outer_work()
    profiler.describe()
    report = capsys.readouterr().out
    assert "FIT Profiler Report" in report
    (line,) = (line for line in section(report, "work").splitlines() if "outer_work" in line)
    assert line.split()[0] == "3"


def test_advanced_profiler_goes_on_with_the_outer_action_after_the_inner(profiler):
    with profiler.profile("outer"):
        outer_work()
        with profiler.profile("inner"):
            inner_work()
        outer_work()
    report = profiler.summary()
    (line,) = (line for line in section(report, "outer").splitlines() if "outer_work" in line)
    assert line.split()[0] == "2"
    assert "inner_work" not in section(report, "outer")
    assert "inner_work" in section(report, "inner")
    assert "outer_work" not in section(report, "inner")


def test_advanced_profiler_actions_may_overlap(profiler):
    profiler.start("a")
    profiler.start("b")
    profiler.stop("a")
    inner_work()
    profiler.stop("b")
    outer_work()
    report = profiler.summary()
    assert "inner_work" in section(report, "b")
    assert "outer_work" not in report


def test_advanced_profiler_lines_can_be_restricted():
    lines = []
    for restriction in (1.0, 1):
        profiler = AdvancedProfiler(line_count_restriction=restriction)
        with profiler.profile("work"):
            outer_work()
        lines.append(len(section(profiler.summary(), "work").splitlines()))
    assert lines[1] < lines[0]


def test_advanced_profiler_dumps_stats_per_action(tmp_path):
    profiler = AdvancedProfiler(dirpath=tmp_path, filename="report", dump_stats=True)
    profiler.setup("fit")
    with profiler.profile("[Callback]A.on/b"):
        outer_work()
    profiler.describe()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fit-report-_Callback_A.on_b.prof",
        "fit-report.txt",
    ]
    stats = pstats.Stats(str(tmp_path / "fit-report-_Callback_A.on_b.prof"))
    assert any(function == "outer_work" for _, _, function in stats.stats)  # type: ignore[attr-defined]


def test_advanced_profiler_dumps_stats_of_an_action_with_a_very_long_name(tmp_path):
    profiler = AdvancedProfiler(dirpath=tmp_path, dump_stats=True)
    with profiler.profile("x" * 500 + ".on_fit_end"):
        outer_work()
    profiler.summary()
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("xxx.on_fit_end.prof")


def test_advanced_profiler_dumps_stats_to_a_url(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    profiler = AdvancedProfiler(dirpath=f"memory://{tmp_path}", dump_stats=True)
    profiler.setup("fit")
    with profiler.profile("work"):
        outer_work()
    profiler.summary()
    with fsspec.open(f"memory://{tmp_path}/fit-work.prof") as file:
        assert len(file.read()) > 100


def test_advanced_profiler_action_never_started_is_refused(profiler):
    with pytest.raises(ValueError, match="'a' was stopped but never started"):
        profiler.stop("a")


def test_advanced_profiler_second_run_reports_itself_alone(profiler, capsys):
    for stage in ("fit", "test"):
        profiler.setup(stage)
        profiler.start(f"work of {stage}")
        profiler.describe()
    assert "work of fit" not in capsys.readouterr().out.split("TEST Profiler Report")[1]
