"""Source `file:/abs/path`: a GGUF file, a folder as on the Hugging Face hub, one with a script."""

import shutil
from pathlib import Path
from typing import Final

from cortex_core.errors import InvalidRequest, ModelLoadFailed, ModelNotFound
from neurond.sources.base import Report
from neurond.sources.script import SCRIPT
from neurond.sources.sentence_transformers import SIDE_CONFIG

COPIED: Final = ("*.json", "*.jinja", "*.model", "*.txt")
MODULES: Final = f"[0-9]*/{SIDE_CONFIG}"
"""What sentence-transformers keeps of poolings."""
LINKED: Final = (SCRIPT, "*.safetensors", "*.gguf")
"""What counts as weights; the first kind that is there."""


class FileSource:
    """Links weights that are already on this host; copies only the small files beside them."""

    def fetch(self, name: str, folder: Path, _report: Report) -> None:
        """See `Source.fetch`."""
        path = Path(name)
        if not path.is_absolute():
            raise InvalidRequest(
                f"cannot read model name {name!r}: expected an absolute path, as in "
                "'file:/srv/models/model.gguf'",
                param="model",
            )
        if not path.exists():
            raise ModelNotFound(f"cannot find model file:{name}: there is no such file or folder")
        _empty(folder)
        if path.is_dir():
            _take_folder(path, folder)
        elif path.suffix == ".gguf":
            (folder / path.name).symlink_to(path)
        else:
            raise ModelLoadFailed(
                f"cannot read {path}: expected a .gguf file or a folder with safetensors or "
                f"{SCRIPT}"
            )


def _take_folder(path: Path, folder: Path) -> None:
    weights = next(filter(None, (sorted(path.glob(pattern)) for pattern in LINKED)), [])
    if not weights:
        raise ModelLoadFailed(
            f"cannot read {path}: it holds no safetensors, no GGUF file and no {SCRIPT}"
        )
    for file in weights:
        (folder / file.name).symlink_to(file)
    if weights[0].suffix == ".safetensors" and not (path / "config.json").exists():
        raise ModelLoadFailed(f"cannot read {path}: it holds safetensors but no config.json")
    for pattern in COPIED:
        for file in path.glob(pattern):
            if file.name != "model.json":
                shutil.copyfile(file, folder / file.name)
    for file in path.glob(MODULES):
        (folder / file.parent.name).mkdir()
        shutil.copyfile(file, folder / file.parent.name / file.name)


def _empty(folder: Path) -> None:
    """Remove what an earlier fetch of the same name left: the path may hold something else now."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
