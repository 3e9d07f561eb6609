"""Training on an XLA device, for real: on the CPU, driven by PJRT, in an environment that has torch_xla."""

from __future__ import annotations

import json

import pytest
from tests.xla.run_on_cpu import environment, python_of, train


@pytest.mark.slow
@pytest.mark.skipif(
    not python_of(environment()).exists(),
    reason=f"there is no environment with torch_xla in {environment()}: python tests/xla/run_on_cpu.py makes it",
)
def test_xla_device_trains_resumes_and_evaluates_as_the_hand_written_loop(tmp_path):
    done = train(environment(), tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    assert found["strategy"]
    assert found["plugins"]
    assert found["trained_on"] == ["xla:0"]
    assert found["steps"] == 12
    assert found["from_by_hand"] < 1e-6 < found["learned"]
    assert found["from_unbroken_run"] == 0
    assert found["in_file"] == ["cpu"]
    assert found["validated"] == pytest.approx(found["validated_by_hand"], abs=1e-6)
    assert found["predicted"] == [[4, 1], [4, 1]]
    assert found["half"] == "torch.bfloat16"
    assert found["by_xla"] == ["XLAStrategy", 0]
    assert found["validated_by_xla"] == found["validated"]
    assert found["single_xla"] == "SingleDeviceXLAStrategy"
    assert "threads of one process" in found["several"]
