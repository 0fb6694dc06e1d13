"""The hub source against a local hub."""

from pathlib import Path

import msgspec
import pytest

from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.base import DOWNLOADS, FetchProgress
from neurond.sources.hf import HfSource
from tests.fakes.file_server import FileServer
from tests.fakes.gguf_made import sha256

REPOSITORY = "org/name"


def publish(server: FileServer, files: dict[str, bytes]) -> None:
    siblings = []
    for name, content in files.items():
        server.files[f"/{REPOSITORY}/resolve/c0ffee/{name}"] = content
        large = name.endswith((".gguf", ".safetensors"))
        lfs = {"lfs": {"sha256": sha256(content), "size": len(content)}} if large else {}
        siblings.append({"rfilename": name, "size": len(content), **lfs})
    described = msgspec.json.encode({"sha": "c0ffee", "siblings": siblings})
    server.files[f"/api/models/{REPOSITORY}"] = described


def fetch(server: FileServer, name: str, folder: Path) -> list[FetchProgress]:
    reported: list[FetchProgress] = []
    HfSource(server.url).fetch(name, folder, reported.append)
    return reported


def test_safetensors_come_with_the_small_files_of_the_top_folder(
    server: FileServer, tmp_path: Path
) -> None:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"x",
        "model-1.safetensors": b"one",
        "model-2.safetensors": b"two",
        "README.md": b"no",
        "onnx/model.safetensors": b"no",
        "onnx/config.json": b"no",
        "code.py": b"no",
    }
    publish(server, files)
    reported = fetch(server, REPOSITORY, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        name: content for name, content in files.items() if content != b"no"
    }
    assert reported[-1].done_bytes == reported[-1].total_bytes


def test_the_poolings_of_an_encoder_come_along(server: FileServer, tmp_path: Path) -> None:
    files = {"modules.json": b"[]", "1_Pooling/config.json": b"{}", "model.safetensors": b"w"}
    publish(server, files)
    fetch(server, REPOSITORY, tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found == files.keys()


@pytest.mark.parametrize("selection", ["Q4_K_M", "q4_k_m", "m-Q4_K_M.gguf"])
def test_a_quantisation_or_a_file_can_be_chosen(
    server: FileServer, tmp_path: Path, selection: str
) -> None:
    publish(server, {"m-Q4_K_M.gguf": b"four", "m-IQ4_K_M.gguf": b"i", "m-Q8_0.gguf": b"eight"})
    fetch(server, f"{REPOSITORY}:{selection}", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m-Q4_K_M.gguf"]


def test_the_only_gguf_needs_no_choice(server: FileServer, tmp_path: Path) -> None:
    publish(server, {"m.gguf": b"x", "README.md": b""})
    fetch(server, REPOSITORY, tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == b"x"
    assert not (tmp_path / DOWNLOADS).exists()


@pytest.mark.parametrize("selection", ["", ":Q5_0"])
def test_an_unclear_choice_lists_what_there_is(
    server: FileServer, tmp_path: Path, selection: str
) -> None:
    publish(server, {"m-Q4_0.gguf": b"4", "m-Q8_0.gguf": b"8"})
    with pytest.raises(ModelNotFound, match=r"m-Q4_0\.gguf, m-Q8_0\.gguf"):
        fetch(server, f"{REPOSITORY}{selection}", tmp_path)


def test_an_unknown_repository_is_not_found(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="hf:org/other"):
        fetch(server, "org/other", tmp_path)


@pytest.mark.parametrize("name", ["../../etc", "org/name/more", "/x", "a b"])
def test_a_name_that_is_none_never_reaches_the_hub(
    server: FileServer, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelNotFound, match="cannot read model name"):
        fetch(server, name, tmp_path)
    assert server.requests == []


def test_the_token_and_the_hub_come_from_the_environment(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, {"m.gguf": b"x"})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    HfSource().fetch(REPOSITORY, tmp_path, lambda _: None)
    assert {authorization for _, _, authorization in server.requests} == {"Bearer secret"}


def test_a_wrong_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    publish(server, {"m.gguf": b"right"})
    server.files[f"/{REPOSITORY}/resolve/c0ffee/m.gguf"] = b"wrong"
    with pytest.raises(ModelLoadFailed, match="sha256"):
        fetch(server, REPOSITORY, tmp_path)
    assert not (tmp_path / "m.gguf").exists()
