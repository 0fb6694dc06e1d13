"""What sentence-transformers keeps beside a model's weights: how vectors are made of states.

`modules.json` lists what a text goes through: a transformer, a pooling, perhaps a normalisation.
Each of those has a folder for its config. Nothing here is executed; what is not known is refused,
because leaving it out would give other vectors than the model's own.
"""

from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ModelLoadFailed
from neurond.sources.prepared import Pooling

T = TypeVar("T")
MODULES: Final = "modules.json"
SIDE_CONFIG: Final = "config.json"
DEFAULT_POOLING: Final = Pooling("mean", normalize=True)
"""Of an encoder without these files."""
_FLAGS: Final[dict[str, Literal["mean", "cls", "last", "max"]]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}


class _Module(msgspec.Struct, frozen=True):
    path: str
    type: str

    @property
    def kind(self) -> str:
        """Last part of the class's dotted name."""
        return self.type.rpartition(".")[2]


class _Sentences(msgspec.Struct, frozen=True):
    max_seq_length: int | None = None


def is_module_config(name: str) -> bool:
    """Tell whether `name`, a path in a repository, configures a module, as `1_Pooling` has one."""
    folder, _, file = name.partition("/")
    return folder[:1].isdigit() and file == SIDE_CONFIG


def pooling_of(folder: Path) -> Pooling | None:
    """Return how `folder`'s model makes vectors; None where nothing says so.

    Raises:
        ModelLoadFailed: a file is damaged, or asks for what is not served.
    """
    path = folder / MODULES
    if not path.exists():
        return None
    modules = _read(path, list[_Module])
    known = ("Transformer", "Pooling", "Normalize")
    unknown = [module.kind for module in modules if module.kind not in known]
    poolings = [module for module in modules if module.kind == "Pooling"]
    if unknown or len(poolings) != 1:
        raise ModelLoadFailed(
            f"cannot prepare {folder}: {MODULES} has the modules "
            f"{', '.join(module.kind for module in modules)}; served are a transformer, one "
            "pooling and a normalisation"
        )
    mode = _mode(folder / poolings[0].path / SIDE_CONFIG)
    return Pooling(mode, normalize=any(module.kind == "Normalize" for module in modules))


def max_tokens_of(folder: Path) -> int | None:
    """Return the longest input as sentence-transformers would cut it, if a file says so.

    Raises:
        ModelLoadFailed: the file is damaged.
    """
    path = folder / "sentence_bert_config.json"
    return _read(path, _Sentences).max_seq_length if path.exists() else None


def _mode(path: Path) -> Literal["mean", "cls", "last", "max"]:
    config = _read(path, dict[str, object])
    asked = [name for name, value in config.items() if name.startswith("pooling_mode") and value]
    if len(asked) != 1 or asked[0] not in _FLAGS:
        raise ModelLoadFailed(
            f"cannot prepare {path}: it asks for {', '.join(asked) or 'no pooling'}; "
            f"served is one of {', '.join(_FLAGS)}"
        )
    return _FLAGS[asked[0]]


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *UNDECODABLE) as ex:
        raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
