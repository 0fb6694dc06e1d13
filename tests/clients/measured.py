"""What one run of a client came to at the gateway."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from cortex_core.ids import ModelId
from tests.fakes.fleet_process import FleetProcess

RUN_TIMEOUT_S = 600


class Turn(NamedTuple):
    """What the gateway counted for one request, and what the client printed."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float
    said: str


def turn(
    fleet: FleetProcess,
    model: ModelId,
    command: list[str],
    home: Path,
    environment: dict[str, str],
) -> Turn:
    """Run a client to its end; return what its one request came to."""
    before = counted(fleet, model)
    done = subprocess.run(
        command,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    requests, prompt, cached, completion, ttft_s = (
        now - then for now, then in zip(counted(fleet, model), before, strict=True)
    )
    assert requests == 1, f"{requests} requests"
    return Turn(int(prompt), int(cached), int(completion), ttft_s, done.stdout)


def counted(fleet: FleetProcess, model: ModelId) -> tuple[float, ...]:
    names = (
        "cortex_requests_total",
        "cortex_prompt_tokens_total",
        "cortex_cached_prompt_tokens_total",
        "cortex_completion_tokens_total",
        "cortex_time_to_first_token_seconds_sum",
    )
    return tuple(fleet.metric(name, model=model) for name in names)
