"""Where we differ from Lightning on purpose: the only edits that a recording gets before we are compared with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """One decided difference.

    Attributes:
        reason: why ours is right, in one sentence.
        recorded: whole lines of the recording, just enough to be found.
        ours: the lines that stand there in our run.
        times: how often ``recorded`` occurs in the recording; all of them are edited.
    """

    reason: str
    recorded: str
    ours: str
    times: int = 1


#: scenario -> its differences, edited into the recording in this order
DIFFERENCES: dict[str, list[Difference]] = {}


def expected(scenario: str, recording: str) -> list[str]:
    """The lines of a recording as they would be if Lightning had decided as we did.

    Raises:
        AssertionError: a difference is in the table whose recorded lines are not in the recording that often.
    """
    lines = recording.splitlines()
    for difference in DIFFERENCES.get(scenario, []):
        lines, found = _edited(lines, difference.recorded.splitlines(), difference.ours.splitlines())
        assert found == difference.times, (
            f"{scenario}: the table of differences expects these lines {difference.times} times in the recording, "
            f"they are there {found} times:\n{difference.recorded}"
        )
    return lines


def _edited(lines: list[str], recorded: list[str], ours: list[str]) -> tuple[list[str], int]:
    """``lines`` with each run of ``recorded`` replaced by ``ours``, and how many there were."""
    result: list[str] = []
    place = found = 0
    while place < len(lines):
        if lines[place : place + len(recorded)] == recorded:
            result += ours
            place += len(recorded)
            found += 1
        else:
            result.append(lines[place])
            place += 1
    return result, found
