"""The folder of models: names, completeness, locks."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, Timeout
from cortex_core.ids import ModelId
from cortex_core.model_folder import MANIFEST, WeightsFile, is_complete
from neurond.sources.prepared import PreparedModel
from neurond.sources.store import ModelStore
from tests.fakes.tokenizers_made import byte_level, prepared

MODEL = ModelId("pypi:made")


def put(store: ModelStore, model_id: ModelId, *, size_bytes: int = 3) -> PreparedModel:
    folder = store.folder(model_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.gguf").write_bytes(b"abc")
    manifest = msgspec.structs.replace(
        prepared(byte_level()),
        model_id=model_id,
        weights=(WeightsFile("w.gguf", size_bytes, "0" * 64),),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return manifest


def test_a_complete_model_is_found_and_listed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    others = [put(store, ModelId(name)) for name in ("file:/a/b.gguf", "hf:org/name:Q4_0")]
    made = put(store, MODEL)
    assert store.find(MODEL) == made
    assert is_complete(store.folder(MODEL))
    assert store.models() == [*others, made]


@pytest.mark.parametrize("damage", ["manifest", "format", "size", "weights"])
def test_an_incomplete_model_is_not_there(tmp_path: Path, damage: str) -> None:
    store = ModelStore(tmp_path)
    manifest = put(store, MODEL, size_bytes=4 if damage == "size" else 3)
    folder = store.folder(MODEL)
    if damage == "manifest":
        (folder / MANIFEST).write_text("{")
    if damage == "format":
        other = msgspec.structs.replace(manifest, format=99)
        (folder / MANIFEST).write_bytes(msgspec.json.encode(other))
    if damage == "weights":
        (folder / "w.gguf").unlink()
    assert store.find(MODEL) is None
    assert not is_complete(folder)
    assert store.models() == []


def test_what_another_version_has_prepared_is_listed_apart(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    made = put(store, MODEL)
    for name in ("pypi:old", "hf:org/oldest", "pypi:damaged", "pypi:gone"):
        manifest = msgspec.to_builtins(put(store, ModelId(name))) | {"format": 2}
        if name == "hf:org/oldest":  # the first format did not tell which it was
            del manifest["format"]
        content = b"{" if name == "pypi:damaged" else msgspec.json.encode(manifest)
        (store.folder(ModelId(name)) / MANIFEST).write_bytes(content)
    (store.folder(ModelId("pypi:gone")) / "w.gguf").unlink()
    assert store.outdated() == ["hf:org/oldest", "pypi:old"]
    assert store.models() == [made]


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_name_has_a_folder_of_its_own_below_the_store(one: str, other: str) -> None:
    store = ModelStore(Path("/state"))
    ids = []
    for name in (one, other):
        try:
            ids.append(store.folder(ModelId(f"file:{name}")))
        except InvalidRequest:
            return
    for folder in ids:
        assert folder.parent == Path("/state/models/file")
        assert not folder.name.startswith(".")
        assert len(folder.name.encode()) <= 200
    assert (ids[0] == ids[1]) == (one.strip() == other.strip())


def test_a_lock_keeps_others_out_until_its_holder_is_done(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    waits: list[float] = []
    asked: list[str] = []
    with store.lock(MODEL) as folder:
        assert folder.is_dir()
        with (
            pytest.raises(Timeout, match="another process"),
            store.lock(MODEL, timeout_s=0.0, waiting=lambda: asked.append("x"), pause=waits.append),
        ):
            pass
    with store.lock(MODEL, timeout_s=0.0):
        pass
    assert waits == []


def test_whoever_waits_for_a_lock_says_so(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    holder = store.lock(MODEL)
    holder.__enter__()
    asked: list[str] = []

    def let_go(_seconds: float) -> None:
        holder.__exit__(None, None, None)

    with store.lock(MODEL, waiting=lambda: asked.append("waiting"), pause=let_go):
        assert asked == ["waiting"]
