"""Opening models' texts: once, kept within a bound, anew when something about them changes."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from cortex_core.canonical import ChatPrompt, Message, TextPart
from cortex_core.errors import ModelLoadFailed, ModelNotFound, Overloaded
from cortex_core.ids import ModelId
from cortex_core.model_folder import WeightsFile
from cortex_core.neuron_api import ModelProfile
from neurond.sources.prepared import PreparedModel
from neurond.text.pool import TextPool
from neurond.text.texts import ModelTexts
from tests.fakes.tokenizers_made import byte_level, prepared

MODEL = ModelId("file:/made")


class Shelf:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.models: dict[ModelId, PreparedModel] = {}

    def add(self, model_id: ModelId, *, sha256: str = "0" * 64) -> None:
        folder = self.folder(model_id)
        folder.mkdir(exist_ok=True)
        byte_level().save(str(folder / "tokenizer.json"))
        self.models[model_id] = msgspec.structs.replace(
            prepared(byte_level()), model_id=model_id, weights=(WeightsFile("w", 1, sha256),)
        )

    def find(self, model_id: ModelId) -> PreparedModel | None:
        return self.models.get(model_id)

    def folder(self, model_id: ModelId) -> Path:
        return self.root / model_id.replace("/", "_")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.add(MODEL)
    return made


@pytest.fixture
def pool():
    made = TextPool(1)
    yield made
    made.close()


async def test_what_was_opened_ahead_is_there_and_what_cannot_be_is_told_later(
    shelf: Shelf, pool: TextPool
) -> None:
    texts = ModelTexts(shelf, lambda _: ModelProfile(), pool)
    texts.open_ahead(ModelId("file:/not/there"))
    texts.open_ahead(MODEL)
    opened = await texts.get(MODEL)
    texts.open_ahead(MODEL)
    assert await texts.get(MODEL) is opened
    broken = ModelId("file:/broken")
    shelf.add(broken)
    (shelf.folder(broken) / "tokenizer.json").write_text("{")
    texts.open_ahead(broken)
    with pytest.raises(ModelLoadFailed):
        await texts.get(broken)


async def test_a_text_is_opened_once(shelf: Shelf, pool: TextPool) -> None:
    texts = ModelTexts(shelf, lambda _: ModelProfile(), pool)
    first, second = await asyncio.gather(texts.get(MODEL), texts.get(MODEL))
    assert first is second
    assert await texts.get(MODEL) is first


async def test_new_weights_or_another_template_open_it_anew(shelf: Shelf, pool: TextPool) -> None:
    profile = ModelProfile()
    texts = ModelTexts(shelf, lambda _: profile, pool)
    first = await texts.get(MODEL)
    shelf.add(MODEL, sha256="1" * 64)
    second = await texts.get(MODEL)
    profile = ModelProfile(chat_template="say {{ messages[0].content }}")
    (shelf.folder(MODEL) / "tokenizer.json").unlink()
    third = await texts.get(MODEL)
    assert first is not second
    assert third.tokenizer is second.tokenizer is not first.tokenizer
    fourth = await texts.get(MODEL, "tell {{ messages[0].content }}")
    assert fourth is not third
    assert await texts.get(MODEL) is third
    assert third.token_ids(ChatPrompt((Message("user", (TextPart("hi"),)),)))


async def test_only_so_many_stay_open(shelf: Shelf, pool: TextPool) -> None:
    other = ModelId("file:/other")
    shelf.add(other)
    texts = ModelTexts(shelf, lambda _: ModelProfile(), pool, max_open=1)
    first = await texts.get(MODEL)
    await texts.get(other)
    assert await texts.get(MODEL) is not first


async def test_a_failure_is_told_and_not_kept(shelf: Shelf, pool: TextPool) -> None:
    texts = ModelTexts(shelf, lambda _: ModelProfile(), pool)
    tokenizer = shelf.folder(MODEL) / "tokenizer.json"
    tokenizer.write_text("{")
    with pytest.raises(ModelLoadFailed, match=r"tokenizer\.json"):
        await texts.get(MODEL)
    byte_level().save(str(tokenizer))
    assert (await texts.get(MODEL)).prepared.model_id == MODEL


async def test_a_model_that_is_not_on_disk_is_not_found(shelf: Shelf, pool: TextPool) -> None:
    with pytest.raises(ModelNotFound, match="nothing"):
        await ModelTexts(shelf, lambda _: ModelProfile(), pool).get(ModelId("pypi:nothing"))


async def test_the_pool_refuses_what_it_cannot_hold() -> None:
    pool = TextPool(1, max_pending=1)
    release = threading.Event()
    running = asyncio.create_task(pool.run(lambda: release.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await pool.run(lambda: None)
    release.set()
    assert await running
    assert caught.value.retry_after_s is not None
    assert await pool.run(lambda: "again") == "again"
    pool.close()
