"""What tables say of how their figures were taken; they are written only if these count."""

import sys
import time
from pathlib import Path

from bench.hardware import hardware
from bench.markdown import write_section
from bench.serve.machine import FOREIGN_CORES_LIMIT, CpuUse


def circumstances(command: str, told: str = "", used: CpuUse | None = None) -> str:
    """Return when, on what and how figures were taken that have just been taken.

    Args:
        command: what was called, and takes them again.
        told: what the figures are of.
        used: by whom the machine was meanwhile, where figures are of time.
    """
    parts = [f"{time.strftime('%Y-%m-%d %H:%M')}, {hardware()}"]
    if used is not None:
        parts.append(f"other processes took {used.foreign_cores:.2f} core")
    return f"{'; '.join([*parts, *filter(None, [told])])}. By `{command}`."


def write_clean(path: Path, name: str, text: str, used: CpuUse) -> None:
    """Write a section of a page, see `write_section`, whose figures count; else end the program.

    Raises:
        SystemExit: other processes took too much of the machine; the status is 1.
    """
    if not used.is_clean:
        sys.exit(
            f"cannot write section {name!r} of {path}: other processes took "
            f"{used.foreign_cores:.2f} core meanwhile, and at most {FOREIGN_CORES_LIMIT} counts; "
            "run it again"
        )
    write_section(path, name, text)
