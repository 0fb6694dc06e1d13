"""What a machine can do at most: its loops do all of the work that they are counted for."""

import ctypes
import sys

import numpy as np
import pytest

from bench import bound
from bench.bound import Round, told, weight_bytes
from bench.ceilings.measure import READ_TURNS, Reading, compiled
from neurond.kernels.memory import Buffer
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.planned_models import PLANNED, make_model


@pytest.mark.parametrize("size_bytes", [512, 40 * 512, 1 << 20])
def test_every_pattern_reads_every_word_in_every_pass(size_bytes: int) -> None:
    loops = compiled()
    buffer = Buffer(size_bytes)
    words = buffer.bytes.view(np.uint64)
    words[:] = np.random.default_rng(1).integers(1 << 63, size=len(words), dtype=np.uint64)
    expected = int(words.sum(dtype=object)) * 3 % (1 << 64)
    num_patterns = ctypes.c_int32.in_dll(loops, "read_patterns").value
    sums = [loops.read_all(buffer.address, size_bytes, 3, each) for each in range(num_patterns)]
    assert len(sums) >= 5
    assert sums == [expected] * num_patterns


def test_any_number_of_bytes_can_be_read() -> None:
    assert Reading((1 << 20) + 1000).gb_per_s() > 0


def test_a_mean_is_of_the_pattern_that_is_best_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(1 << 20)
    fits_and_starts = [10.0, 30.0] * (READ_TURNS // 2)  # as long as a steady 15
    tried = [*fits_and_starts, *[20.0] * READ_TURNS, *[5.0] * 3 * READ_TURNS]
    rates = iter([*tried, 18.0, 9.0])
    clock = iter([0.0, 0.4, 0.8, 1.2])
    monkeypatch.setattr("bench.ceilings.measure.rate", lambda _: next(rates))
    monkeypatch.setattr("bench.ceilings.measure.time.perf_counter", lambda: next(clock))
    assert reading.mean_gb_per_s(0.7) == pytest.approx(12), "twice as long at 9 as at 18"


def test_multiplications_count_what_they_did() -> None:
    sums = (ctypes.c_float * 16)()
    per_round = compiled().multiply_floats(1, sums)
    assert per_round >= 4
    assert compiled().multiply_floats(1000, sums) == 1000 * per_round
    assert sums[0] == pytest.approx(12 / 2, rel=1e-3), "12 chains of x / 2 + 1 / 4, to their limit"


def test_without_a_compiler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "nowhere/cc")
    monkeypatch.setattr(sys, "argv", ["bench.bound"])
    compiled.cache_clear()
    with pytest.raises(SystemExit, match=r"^cannot measure .* cannot compile .*nowhere/cc.*\$CC"):
        bound.main()


def test_a_token_reads_every_matrix_once() -> None:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    model = make_model(PLANNED["llama"]())
    plan = plan_decoder(model)
    assert isinstance(plan, DecoderPlan)
    packed = pack_to_memory(plan, "0123456789abcdef", "bf16", kernels, lambda _: None)
    embedding = model.get_input_embeddings().weight
    matrices = [each for each in model.parameters() if each.dim() == 2 and each is not embedding]
    head = model.get_output_embeddings().weight
    expected = sum(each.numel() for each in matrices)
    expected += head.numel() if head is embedding else 0
    assert weight_bytes(packed.decoder, kernels) == 2 * expected


def test_the_bound_is_what_reading_allows() -> None:
    """Of 250 MB a token: reading 40 GB/s allows 160 of them a second."""
    rounds = [
        Round(40.0, (120.0, 112.0, 80.0)),
        Round(30.0, (110.0, 90.0, 40.0)),
        Round(50.0, (140.0, 120.0, 100.0)),
    ]
    assert told(rounds, 250_000_000).splitlines()[2:] == [
        "| medians | 40.0 | 160.0 | 120.0 | 75% | 112.0 | 70% | 80.0 | 50% |",
        "| best | 50.0 | 200.0 | 140.0 | 70% | 120.0 | 60% | 100.0 | 50% |",
    ]
