"""The tables: a row for each server, spreads, stars, and reasons for what is not there."""

import pytest

from bench.peers.report import Column, cell, report
from bench.peers.results import START, Key, Record

W1 = Column("W1", "decode_tokens_per_s", "W1, tokens/s")


def record(
    peer: str = "llama.cpp", workload: str = "W1", entry: str = "", **figures: object
) -> Record:
    key = Key("pypi:m", peer, "1", "int8", workload, entry)
    return Record(key, "2026-01-01 10:00", {"counts": True, **figures})


def speeds(low: float, middle: float, high: float) -> dict[str, object]:
    return {"decode_tokens_per_s": middle, "decode_tokens_per_s_all": [low, middle, high]}


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        (
            {"decode_tokens_per_s": 94.2, "decode_tokens_per_s_all": [93.4, 94.2, 103]},
            "94 (93 to 103)",
        ),
        ({"decode_tokens_per_s": 94.2, "decode_tokens_per_s_all": [94.1, 94.2, 94.3]}, "94"),
        ({"decode_tokens_per_s": 1234.5}, "1,234"),
        ({"decode_tokens_per_s": 94.2, "counts": False}, "94\\*"),
        ({"ttft_ms": 3.0}, ""),
    ],
)
def test_a_cell_has_the_median_and_the_spread(figures: dict[str, object], shown: str) -> None:
    assert cell({"W1": record(**figures)}, W1) == shown


def test_a_cell_is_in_the_unit_of_its_title() -> None:
    seconds = Column("W3", "ttft_ms", "W3, s", 0.001, 2)
    found = {"W3": record(workload="W3", ttft_ms=1500.0, ttft_ms_all=[1400.0, 1500.0])}
    assert cell(found, seconds) == "1.50 (1.40 to 1.50)"


def test_each_server_is_a_row_with_all_that_was_measured_of_it() -> None:
    text = report(
        [
            record(decode_tokens_per_s=10.0),
            record("cortex", entry="node", decode_tokens_per_s=20.0),
            record("cortex", entry="gateway", decode_tokens_per_s=19.0),
            record("cortex", START, "node", start_first_s=3.0, start_again_s=0.5),
        ],
        "Taken today.",
    )
    lines = text.splitlines()
    assert lines[0] == "Taken today."
    assert any(line.startswith("| llama.cpp int8 | 10 |") for line in lines)
    assert any(line.startswith("| cortex int8 node | 20 |") for line in lines)
    assert any(line.startswith("| cortex int8 node | 3.00 | 0.50 |") for line in lines)
    assert not any(line.startswith("| cortex int8 gateway | 3.00") for line in lines)
    assert "| server | W1, tokens/s |" in lines  # and no column of what nobody was asked


def test_what_cannot_be_had_is_a_line_that_says_why() -> None:
    keys = [Key("pypi:m", "vllm", "1", "bf16", workload) for workload in ("W1", "W2")]
    text = report([Record(key, "", unavailable="it needs AVX-512") for key in keys], "")
    assert text.strip() == "- vllm bf16, W1, W2: it needs AVX-512"


def test_an_error_of_a_server_is_told() -> None:
    text = report([record(counts=False, errors=1, first_error="HTTP 500: no")], "")
    assert "- llama.cpp int8, W1: HTTP 500: no" in text
