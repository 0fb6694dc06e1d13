"""From a request's prompt to token ids, and to the images that stand behind some of them."""

from typing import NamedTuple, TypeGuard

from cortex_core.canonical import ChatPrompt, Prompt
from neurond.images.read_image import ReadImage, close_images
from neurond.images.reader import ImageReader
from neurond.text.model_text import ModelText, has_images, is_small
from neurond.text.pool import TextPool
from neurond.text.template import Rendered


class PromptTokens(NamedTuple):
    """A prompt as the engine takes it. Whoever holds it calls `close`, once it was passed on."""

    ids: list[int]
    images: tuple[ReadImage, ...] = ()
    """In the order of their placeholders among the ids."""

    def close(self) -> None:
        """Give back what is held of images; idempotent."""
        close_images(self.images)


class PromptReader:
    """Renders, reads images and tokenises, beside the daemon's loop."""

    def __init__(self, pool: TextPool, images: ImageReader) -> None:
        self._pool = pool
        self._images = images

    async def tokens(self, text: ModelText, prompt: Prompt) -> PromptTokens:
        """Return a prompt's tokens.

        Raises:
            CortexError: as `ModelText.token_ids` and `ImageReader.read`.
        """
        if _has_images(prompt, text):
            return await self._with_images(text, prompt)
        if is_small(prompt):
            return PromptTokens(text.token_ids(prompt))
        return PromptTokens(await self._pool.run(lambda: text.token_ids(prompt)))

    async def given(self, text: ModelText, prompt: Prompt, ids: list[int]) -> PromptTokens:
        """Return a prompt that has its ids from elsewhere, where it was rendered before.

        Raises:
            CortexError: as `ImageReader.read`.
        """
        if not _has_images(prompt, text):
            return PromptTokens(ids)
        rendered = await self._rendered(text, prompt)
        return PromptTokens(ids, await self._read(text, rendered))

    async def _with_images(self, text: ModelText, prompt: ChatPrompt) -> PromptTokens:
        assert text.prepared.images is not None, "a model of text got images"
        token = text.prepared.images.token
        rendered = await self._rendered(text, prompt)
        images = await self._read(text, rendered)
        try:
            texts = [image.text(token) for image in images]
            ids = await self._pool.run(lambda: text.ids_with_images(rendered, texts))
            return PromptTokens(text.checked(ids, prompt), images)
        except BaseException:
            close_images(images)
            raise

    async def _rendered(self, text: ModelText, prompt: ChatPrompt) -> Rendered:
        return await self._pool.run(lambda: text.rendered(prompt))

    async def _read(self, text: ModelText, rendered: Rendered) -> tuple[ReadImage, ...]:
        assert text.folder is not None, "a model that takes images was read from disk"
        return tuple(await self._images.read(text.folder, rendered.images))


def _has_images(prompt: Prompt, text: ModelText) -> TypeGuard[ChatPrompt]:
    return text.prepared.images is not None and has_images(prompt)
