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


def expected(scenario: str, recording: str) -> str:
    """The recording as it would be if Lightning had decided as we did.

    Raises:
        AssertionError: a difference is in the table whose recorded lines are not in the recording that often.
    """
    text = "\n" + recording
    for difference in DIFFERENCES.get(scenario, []):
        recorded, ours = (f"\n{block.strip(chr(10))}\n" for block in (difference.recorded, difference.ours))
        if not difference.ours:
            ours = "\n"
        found = text.count(recorded)
        assert found == difference.times, (
            f"{scenario}: the table of differences expects these lines {difference.times} times in the recording, "
            f"they are there {found} times:{recorded}"
        )
        text = text.replace(recorded, ours)
    return text[1:]
