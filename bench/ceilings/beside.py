"""What a benchmark notes of a kernel beside what the machine can do at most."""

from pytest_benchmark.fixture import BenchmarkFixture


def tell(
    benchmark: BenchmarkFixture, unit: str, amount: float, ceiling: float, *, turns: int = 1
) -> None:
    """Note the rate of the fastest round, its share of the ceiling, and what one turn took.

    Args:
        unit: of `amount`, with a billion before it: gb for bytes, gmac for multiply-adds.
        amount: what one round does, all of its `turns` together.
        ceiling: 1e9 of it per second.
    """
    assert benchmark.stats is not None
    fastest_s = benchmark.stats.stats.min
    rate = amount / fastest_s / 1e9
    benchmark.extra_info["us"] = round(1e6 * fastest_s / turns, 1)
    benchmark.extra_info[f"{unit}_per_s"] = round(rate, 1)
    benchmark.extra_info["ceiling"] = round(ceiling, 1)
    benchmark.extra_info["share"] = round(rate / ceiling, 3)
