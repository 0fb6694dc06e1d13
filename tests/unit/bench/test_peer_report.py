"""The tables: a row for each server, spreads, stars, and reasons for what is not there."""

from pathlib import Path

import pytest

from bench.peers.aims import aims_table
from bench.peers.plots import draw
from bench.peers.report import Column, cell, reasons, report
from bench.peers.results import START, Key, Record

MODEL = "pypi:m"
TIME = "2026-01-01 10:00"
W1 = Column("W1", "decode_tokens_per_s", "W1, tokens/s")


def record(
    peer: str = "llama.cpp",
    workload: str = "W1",
    entry: str = "",
    *,
    model: str = MODEL,
    time: str = TIME,
    command: str = "",
    **figures: object,
) -> Record:
    key = Key(model, peer, "1", "int8", workload, entry)
    return Record(key, time, {"counts": True, **figures}, command=command)


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


@pytest.mark.parametrize(("counts", "star"), [(True, ""), (False, "\\*")])
def test_a_cell_says_that_a_run_did_not_finish(counts: bool, star: str) -> None:
    unfinished = record(unfinished="did not finish in 15 min", counts=counts, foreign_cores=0.2)
    assert cell({"W1": unfinished}, W1) == f"did not finish in 15 min{star}"
    text = report([unfinished, record("vllm", **speeds(9, 10, 11))], "")
    assert f"| llama.cpp int8 | did not finish in 15 min{star} |" in text
    assert "- llama.cpp int8, W1: other processes took 0.20 core" in text


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
        "2 cores",
    )
    lines = text.splitlines()
    assert lines[0].startswith("On 2 cores. Lowest to highest ")
    assert "2026-01-01 10:00; llama.cpp 1, cortex 1." in lines
    assert any(line.startswith("| llama.cpp int8 | 10 |") for line in lines)
    assert any(line.startswith("| cortex int8 node | 20 |") for line in lines)
    assert any(line.startswith("| cortex int8 node | 3.00 | 0.50 |") for line in lines)
    assert not any(line.startswith("| cortex int8 gateway | 3.00") for line in lines)
    assert "| server | W1, tokens/s |" in lines  # and no column of what nobody was asked


def test_what_cannot_be_had_is_a_line_that_says_why() -> None:
    keys = [Key("pypi:m", "vllm", "1", "bf16", workload) for workload in ("W1", "W2")]
    text = report([Record(key, TIME, unavailable="it needs AVX-512") for key in keys], "")
    assert text.splitlines()[-1] == "- vllm bf16, W1, W2: it needs AVX-512"
    assert "| server" not in text


def test_an_error_of_a_server_is_told() -> None:
    text = report([record(counts=False, errors=1, first_error="HTTP 500: no")], "")
    assert "- llama.cpp int8, W1: HTTP 500: no" in text


@pytest.mark.parametrize(
    ("figures", "reasons"),
    [
        ({"foreign_cores": 0.314}, ["other processes took 0.31 core"]),
        ({"chunks_per_token": 0.52, "foreign_cores": 0.15}, ["0.52 chunks for a token"]),
        (
            {"first_error": "HTTP 500: no", "chunks_per_token": 0.0, "foreign_cores": 0.2},
            ["HTTP 500: no", "other processes took 0.20 core"],
        ),
    ],
)
def test_a_star_says_its_reason(figures: dict[str, object], reasons: list[str]) -> None:
    text = report([record(counts=False, decode_tokens_per_s=94.2, **figures)], "")
    assert "| llama.cpp int8 | 94\\* |" in text
    found = [line for line in text.splitlines() if line.startswith("- ")]
    assert found == [f"- llama.cpp int8, W1: {reason}" for reason in reasons]


def test_what_counts_needs_no_reason() -> None:
    assert "\n- " not in report([record(foreign_cores=0.15, chunks_per_token=0.9)], "")


@pytest.mark.parametrize("workload", ["copy", "prose"])
def test_drafts_that_come_in_one_chunk_are_no_reason(workload: str) -> None:
    assert reasons(record(workload=workload, chunks_per_token=0.4)) == []
    foreign = record(workload=workload, chunks_per_token=0.4, foreign_cores=0.2, counts=False)
    assert reasons(foreign) == ["other processes took 0.20 core"]


def test_each_model_has_tables_of_its_own() -> None:
    text = report(
        [
            record(decode_tokens_per_s=10.0),
            record(model="pypi:other", decode_tokens_per_s=7.0),
            record(workload="W3", ttft_ms=1500.0),
        ],
        "",
        {"pypi:other": ["plots/other.png"]},
    )
    first, other = text.split("### `pypi:other`")
    assert "### `pypi:m`" in first
    assert "| llama.cpp int8 | 10 | 1.50 |" in first
    assert "| llama.cpp int8 | 7 |" in other
    assert other.endswith("![other](plots/other.png)")
    assert "plots" not in first


def test_end_to_end_stands_beside_decoding() -> None:
    figures = {"decode_tokens_per_s": 90.0, "end_to_end_tokens_per_s": 80.0}
    many = {"batch_decode_tokens_per_s": 500.0, "total_tokens_per_s": 400.0}
    text = report([record(**figures), record(workload="W2", **many)], "")
    assert (
        "| server | W1, tokens/s | W1 end to end, tokens/s | W2, tokens/s | "
        "W2 end to end, tokens/s |"
    ) in text
    assert "| llama.cpp int8 | 90 | 80 | 500 | 400 |" in text


def test_figures_of_another_time_do_not_stand_beside_new_ones() -> None:
    text = report(
        [
            record("vllm", time="2026-01-01 03:59", decode_tokens_per_s=11.0),
            record("llama.cpp", time="2026-01-01 04:00", decode_tokens_per_s=12.0),
            record("cortex", time="2026-01-01 10:00", decode_tokens_per_s=13.0),
            record("vllm", time="2026-01-01 03:59", model="pypi:other", decode_tokens_per_s=14.0),
        ],
        "",
    )
    first, other = text.split("### `pypi:other`")
    assert "2026-01-01 04:00 to 2026-01-01 10:00; llama.cpp 1, cortex 1." in first
    assert "| cortex int8 | 13 |" in first
    assert "| llama.cpp int8 | 12 |" in first
    assert "| vllm" not in first
    assert "- vllm int8: left out, more than 6 hours older: W1 (2026-01-01 03:59)" in first
    assert "| vllm int8 | 14 |" in other


def test_a_reason_of_long_ago_is_not_told() -> None:
    old = Record(Key(MODEL, "vllm", "1", "bf16", "W1"), "2025-12-31 10:00", unavailable="no room")
    assert "no room" not in report([old, record(decode_tokens_per_s=1.0)], "")


def test_the_commands_that_measured_are_told_in_turn() -> None:
    text = report(
        [
            record(command="make b", repetitions=3, time="2026-01-01 10:02"),
            record("vllm", command="make a", repetitions=5, time="2026-01-01 10:01"),
            record("cortex", command="make b", repetitions=3, time="2026-01-01 10:03"),
        ],
        "",
    )
    assert "medians of 3 or 5. By `make a`, then `make b`." in text


def test_mixed_traffic_has_a_table_and_a_plot_of_its_own(tmp_path: Path) -> None:
    figures = {"total_tokens_per_s": 80.4, "ttft_p50_ms": 60.0, "ttft_p95_ms": 900.0}
    found = [record(workload="mixed", itl_p50_ms=9.0, itl_p95_ms=31.0, errors=0, **figures)]
    text = report(found, "")
    assert "**Mixed traffic**" in text
    assert "| llama.cpp int8 | 80 | 60 | 900 | 9 | 31 | 0 |" in text
    assert draw(found, tmp_path) == {"pypi:m": [tmp_path / "mixed-m.png"]}


def test_plots_are_one_set_for_each_model(tmp_path: Path) -> None:
    found = draw(
        [
            record(**speeds(9, 10, 11)),
            record("cortex", counts=False, **speeds(19, 20, 21)),
            record(model="pypi:other", workload="W3", ttft_ms=1.0),
        ],
        tmp_path,
    )
    assert found == {
        "pypi:m": [tmp_path / "throughput-m.png"],
        "pypi:other": [tmp_path / "latency-other.png"],
    }
    assert all(path.stat().st_size > 1000 for paths in found.values() for path in paths)


def test_our_best_stands_beside_the_best_of_others_at_the_node_and_through_the_gateway() -> None:
    def w1(peer: str, name: str, rate: float, entry: str = "", *, counts: bool = True) -> Record:
        key = Key(MODEL, peer, "1", name, "W1", entry)
        return Record(key, TIME, {"counts": counts, "decode_tokens_per_s": rate})

    lines = aims_table(
        [
            w1("vllm", "bf16", 150.0),
            w1("llama.cpp", "Q8_0", 100.0),
            w1("transformers", "bf16", 900.0, counts=False),
            w1("cortex", "int4", 330.0, "node"),
            w1("cortex", "int8", 190.0, "node"),
            w1("cortex", "int4", 300.0, "gateway"),
        ]
    ).splitlines()
    assert lines[2:] == [
        "| W1, tokens/s | 150 (vllm bf16) | 330 (int4) | 2.20 | 300 (int4) | 2.00 | ≥ 2 | ≥ 2.6 |",
        "| W1 in int8, tokens/s | 100 (llama.cpp Q8_0) | 190 (int8) | 1.90 |  |  | ≥ 1.8 | ≥ 2.3 |",
    ]


def test_where_less_is_better_the_least_counts() -> None:
    found = [
        record("vllm", "W3", ttft_ms=600.0),
        record("llama.cpp", "W3", ttft_ms=2600.0),
        record("cortex", "W3", "node", ttft_ms=420.0),
    ]
    assert (
        "| W3 first token, s | 0.60 (vllm int8) | 0.42 (int8) | 0.70 |  |  | ≤ 0.75 | ≤ 0.5 |"
        in (aims_table(found).splitlines())
    )


@pytest.mark.parametrize(
    ("workload", "figure", "theirs", "ours", "shown"),
    [
        ("W2x64", "total_tokens_per_s", 1000.0, 1597.0, "| 1.59 |"),
        ("W3", "ttft_ms", 1000.0, 751.0, "| 0.76 |"),
        ("W3", "ttft_ms", 1000.0, 750.0, "| 0.75 |"),
    ],
)
def test_what_is_missed_by_little_does_not_look_reached(
    workload: str, figure: str, theirs: float, ours: float, shown: str
) -> None:
    found = [
        record("vllm", workload, **{figure: theirs}),
        record("cortex", workload, "node", **{figure: ours}),
    ]
    assert shown in aims_table(found)


def test_some_aims_are_ratios_of_our_own() -> None:
    busy = {"quiet_decode_tokens_per_s": 300.0, "busy_decode_tokens_per_s": 150.0}
    found = [record("cortex", "busy", "gateway", **busy), record("vllm", "busy", **busy)]
    (row,) = aims_table(found).splitlines()[2:]
    assert row.endswith("|  |  |  | 150 (int8) | 0.50 | ≥ 0.45 |  |")
    assert "**Beside the project's aims**" in report(found, "")


def test_drafts_are_held_against_the_same_without() -> None:
    def copied(weight_format: str, entry: str, tokens_per_s: float) -> Record:
        key = Key(MODEL, "cortex", "1", weight_format, "copy", entry)
        return Record(key, TIME, {"counts": True, "decode_tokens_per_s": tokens_per_s})

    found = [
        copied("int4", "node", 300.0),
        copied("int4-drafts", "node", 600.0),
        copied("int4", "gateway", 250.0),
        copied("int4-drafts", "gateway", 400.0),
        record("vllm", "copy", decode_tokens_per_s=900.0),
    ]
    (row,) = aims_table(found).splitlines()[2:]
    assert row == (
        "| copy with drafts, of that without, tokens/s |  | 600 (int4-drafts) | 2.00 "
        "| 400 (int4-drafts) | 1.60 | ≥ 1.6 | ≥ 2.5 |"
    )


def test_some_aims_are_of_the_figure_itself() -> None:
    times = {"start_first_s": 4.0, "start_again_s": 0.5, "load_again_s": 0.15}
    others = {"start_first_s": 2.0, "start_again_s": 1.0, "load_again_s": 0.1}
    found = [record("cortex", START, "node", **times), record("vllm", START, **others)]
    assert aims_table(found).splitlines()[2:] == [
        "| first start, s | 2.00 (vllm int8) | 4.00 (int8) | 2.00 |  |  |  |  |",
        "| later start, s | 1.00 (vllm int8) | 0.50 (int8) | 0.50 |  |  | ≤ 0.7 | ≤ 0.3 |",
        "| second load, s | 0.10 (vllm int8) | 0.15 (int8) |  |  |  | ≤ 1 s | ≤ 0.2 s |",
    ]


def test_memory_is_named_by_how_shared_pages_count() -> None:
    found = [record("cortex", "W5", "node", server_pss_mib=900.0)]
    assert "| memory (PSS) after W5, MiB |  | 900 (int8) | " in aims_table(found)


def test_without_figures_of_ours_there_are_no_aims() -> None:
    assert aims_table([record("vllm", **speeds(9, 10, 11))]) == ""
    unfinished = record("cortex", entry="node", unfinished="did not finish in 15 min")
    assert aims_table([unfinished, record("vllm", **speeds(9, 10, 11))]) == ""
