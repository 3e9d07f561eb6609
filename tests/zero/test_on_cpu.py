"""Training by DeepSpeed, for real: on the CPU, in an environment that has it."""

from __future__ import annotations

import json

import pytest
from tests.zero.run_on_cpu import environment, python_of, train


@pytest.mark.slow
@pytest.mark.skipif(
    not python_of(environment()).exists(),
    reason=f"there is no environment with deepspeed in {environment()}: python tests/zero/run_on_cpu.py makes it",
)
@pytest.mark.parametrize("processes", [1, 2])
def test_deepspeed_trains_resumes_and_evaluates_with_the_numbers_of_ddp(processes, tmp_path):
    done = train(environment(), tmp_path, processes)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    for name in ("stage 1", "stage 2", "stage 3", "uneven", "made later", "by hand"):
        case = found[name]
        assert case["strategy"], name
        assert case["from_ddp"] < 1e-6 < case["learned"], name
        assert case["logged"] < 1e-6, name
        assert case["steps"][0] == case["steps"][1], name
        assert case["predicted"] == [[4, 1], [4, 1]], name
    for name in ("resume 1", "resume 2", "resume 3"):
        assert found[name]["is_folder"], name
        assert found[name]["from_whole"] == 0, name
    for name in ("convert 2", "convert 3"):
        assert found[name]["from_trained"] < 1e-6, name
    assert found["asked to end"] == {"ended_in_window": False, "from_whole": 0}
    assert found["bf16"]["dtype"] == "torch.bfloat16"
    assert found["bf16"]["val"] == pytest.approx(found["32"]["val"], rel=0.05)
