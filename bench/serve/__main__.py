"""Put workloads to a running server; prints a table, and one JSON document as the last line."""

import asyncio
import json
import os
import platform
import secrets
import sys
import time

from rich.console import Console
from rich.table import Table

from bench.serve.arguments import arguments
from bench.serve.figures import Figures
from bench.serve.prompts import PromptMaker
from bench.serve.target import Target
from bench.serve.workloads import measure

WARM_UP_TOKENS = 8


def main() -> int:
    """Run the workloads asked for; the exit status is 1 if any of them had errors."""
    args = arguments()
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 30)
    target = Target(
        url=args.url,
        model=args.model,
        api=args.api,
        pids=args.pid,
        extra=args.extra,
        timeout_s=args.timeout,
        context_tokens=args.context,
    )
    prompts = PromptMaker(args.tokenizer, seed)
    figures = asyncio.run(_run(target, prompts, args.workloads, args.repetitions))
    _print_table(figures, args.tag)
    document = {
        "tag": args.tag,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "seed": seed,
        "figures": figures,
    }
    line = json.dumps(document)
    if args.out:
        with args.out.open("a") as out:
            out.write(line + "\n")
    print(line)
    return 1 if any(f["errors"] for f in figures) else 0


async def _run(
    target: Target, prompts: PromptMaker, names: list[str], repetitions: int
) -> list[Figures]:
    warm = await target.complete(prompts.text(32), WARM_UP_TOKENS)
    if warm.error:
        sys.exit(f"cannot measure {target.url}: the first request failed: {warm.error}")
    figures = []
    for name in names:
        figures.append(await measure(name, target, prompts, repetitions))
        print(f"{name} done", file=sys.stderr)
    return figures


def _print_table(figures: list[Figures], tag: str) -> None:
    """Print every figure that is a number, with the lowest and the highest of what it is from."""
    table = Table("workload", "figure", title=tag)
    for column in ("median", "lowest", "highest"):
        table.add_column(column, justify="right")
    for row in figures:
        for name, value in row.items():
            if isinstance(value, float):
                values = row.get(f"{name}_all") or [value]
                numbers = [f"{number:.2f}" for number in (value, min(values), max(values))]
                table.add_row(row["workload"], name, *numbers)
        table.add_row(row["workload"], "errors", str(row["errors"]))
        table.add_row(row["workload"], "counts", "yes" if row["counts"] else "no")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    sys.exit(main())
