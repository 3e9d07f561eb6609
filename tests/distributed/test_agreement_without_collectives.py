"""All processes see what any of them asks for at the same step boundary."""

from __future__ import annotations

import datetime
import os
import random
import signal
import threading
import time
from typing import Any

import pytest
import torch.distributed
from tests.distributed.processes import run

from fulmen.strategies.control.control import Control


def control_of_process(**arguments: Any) -> Control:
    rank, world = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    store = torch.distributed.TCPStore(
        "127.0.0.1",
        int(os.environ["MASTER_PORT"]),
        world,
        rank == 0,
        datetime.timedelta(seconds=30),
        wait_for_workers=False,
    )
    return Control(store, rank, world, **arguments)


class Clock:
    position = 0


def close_together(control: Control, key: str = "closing") -> None:
    control.gather(key, "")
    control.close()


def steps_with_requests(seed: int, runs: int, seconds: float, step_time: float) -> list[Any]:
    """Run after run, ask at random moments in random ways; returns what each run asked for and saw, and where."""
    control = control_of_process()
    chance = random.Random(f"{seed} {control.rank}")
    story = []
    for number in range(runs):
        control.begin_run(lambda: ((0,), ""), lambda: None)
        steps = int(control.gather(f"steps{number}", str(int(seconds / step_time)))[0])
        clock, asked, seen = Clock(), [], []
        control.begin_training(lambda clock=clock: clock.position)
        for step in range(1, steps + 1):
            if step_time >= 0.001:
                time.sleep(step_time * 2 * chance.random())
            if chance.random() < 8 / steps:
                bit = chance.choice(["save", "validate", f"{control.rank} at {step}"])
                asked.append(bit)
                if chance.random() < 0.5:
                    control.ask(bit)
                else:
                    threading.Thread(target=control.ask, args=(bit,)).start()
            clock.position = step
            if step >= control.limit:
                bits = control.at(step)
                if bits:
                    seen.append((step, sorted(bits)))
        late = sorted(control.end_training())
        control.end_run()
        story.append((asked, seen, late))
    close_together(control)
    return story


@pytest.mark.parametrize(
    ("world", "runs", "seconds", "step_time"),
    [
        pytest.param(2, 6, 0.4, 0.00002, id="2-very-fast"),
        pytest.param(4, 3, 0.8, 0.002, id="4-fast"),
        pytest.param(3, 1, 3.0, 0.15, id="3-slow", marks=pytest.mark.slow),
        pytest.param(2, 60, 0.4, 0.00002, id="2-very-fast-long", marks=pytest.mark.slow),
        pytest.param(4, 30, 1.0, 0.001, id="4-fast-long", marks=pytest.mark.slow),
        pytest.param(3, 5, 10.0, 0.3, id="3-slow-long", marks=pytest.mark.slow),
    ],
)
def test_all_processes_see_the_same_requests_at_the_same_boundary(
    world: int, runs: int, seconds: float, step_time: float
) -> None:
    timeout = 30 + 4 * runs * seconds
    stories = run(world, steps_with_requests, 7, runs, seconds, step_time, timeout=timeout)
    answered_within_run = 0
    for of_run in zip(*stories, strict=True):
        asked, seen, late = zip(*of_run, strict=True)
        assert all(one == seen[0] for one in seen)
        assert all(one == late[0] for one in late)
        answered = {bit for _, bits in seen[0] for bit in bits}
        assert answered | set(late[0]) == {bit for bits in asked for bit in bits}
        answered_within_run += len(answered)
    assert answered_within_run > 0


def one_asks_while_another_is_stuck() -> list[float]:
    control = control_of_process()
    clock = Clock()
    control.begin_training(lambda: clock.position)
    seen_at, asked_at = [], 0.0
    for step in range(1, 60):
        time.sleep(0.02)
        if control.rank == 1 and step == 20:
            time.sleep(1.5)  # as in a loader that has no batch
        if control.rank == 0 and step == 22:
            control.ask("end")
            asked_at = time.monotonic()
        clock.position = step
        if step >= control.limit and control.at(step):
            seen_at += [step, time.monotonic() - asked_at]
    control.end_training()
    close_together(control)
    return seen_at


def test_a_process_that_is_stuck_does_not_hold_up_the_decision() -> None:
    (step, waited), (other_step, _) = run(2, one_asks_while_another_is_stuck)
    assert step == other_step
    assert waited < 1.0  # while the other one was still stuck


def slow_steps(step_time: float) -> tuple[int, int]:
    control = control_of_process()
    clock = Clock()
    control.begin_training(lambda: clock.position)
    asked = seen = 0
    for step in range(1, 9):
        time.sleep(step_time / 2)
        if control.rank == 1 and step == 5:
            control.ask("end")
            asked = step
        time.sleep(step_time / 2)
        clock.position = step
        if step >= control.limit and control.at(step):
            seen = step
    control.end_training()
    close_together(control)
    return asked, seen


def test_a_request_in_a_slow_step_is_answered_at_the_end_of_that_step_or_soon_after() -> None:
    (_, seen), (asked, other) = run(2, slow_steps, 0.4)
    assert seen == other
    assert asked <= seen <= asked + 2  # the next ones, if the other process has ended that step by then


def steps_without_requests(count: int, step_time: float) -> int:
    control = control_of_process()
    clock = Clock()
    control.begin_training(lambda: clock.position)
    lease = control._lease
    assert lease is not None
    waited = 0
    for step in range(1, count):
        time.sleep(step_time)
        clock.position = step
        if step >= control.limit:
            control.at(step)
        if step == count // 10:
            waited = lease.waited
    waited = lease.waited - waited
    control.end_training()
    close_together(control)
    return waited


@pytest.mark.parametrize(("count", "step_time"), [(400, 0.003), pytest.param(40, 0.05, marks=pytest.mark.slow)])
def test_steps_of_even_length_do_not_wait_for_their_limit(count: int, step_time: float) -> None:
    # the machine may be busy, so that the thread comes late now and then
    assert max(run(2, steps_without_requests, count, step_time)) <= count // 20


def signal_between_steps() -> list[int]:
    control = control_of_process()
    clock = Clock()
    signal.signal(signal.SIGUSR2, lambda number, frame: control.ask("signal"))
    control.begin_training(lambda: clock.position)
    seen = []
    for step in range(1, 200):
        time.sleep(0.005)
        if step == 50:
            os.kill(os.getpid(), signal.SIGUSR2)  # on all ranks, each at its time
        clock.position = step
        if step >= control.limit and control.at(step):
            seen.append(step)
    control.end_training()
    close_together(control)
    return seen


def test_a_signal_to_all_is_answered_at_one_boundary() -> None:
    first, second, third = run(3, signal_between_steps)
    assert first == second == third
    assert first
