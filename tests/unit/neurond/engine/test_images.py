"""Images in the engine's books: which blocks are equal, and who may take long."""

from array import array

from neurond.engine.blocks import BlockPool, BlockTable
from neurond.engine.images import ImagePrompt, place_images
from neurond.engine.prefix_cache import PrefixCache

SIZE = 4
PAD = 9
IDS = array("i", [1, 2, PAD, PAD, PAD, PAD, PAD, 3, 4, 5, 6, 7])


def images(*keys: bytes, counts: tuple[int, ...] = (5,)) -> ImagePrompt:
    given = [(key, count, {}) for key, count in zip(keys, counts, strict=True)]
    return place_images(IDS, PAD, given)


class Cache:
    def __init__(self) -> None:
        self.cache = PrefixCache(BlockPool(32), SIZE)

    def remember(self, prompt: ImagePrompt | None) -> array:
        table = BlockTable(SIZE)
        for index in range(3):
            table.blocks.append(self.cache.allocate())
            self.cache.remember(table, IDS, index, prompt)
        return table.blocks

    def match(self, prompt: ImagePrompt | None) -> int:
        found = self.cache.match(IDS, 3, prompt)
        self.cache.release(reversed(found))
        self.cache.check()
        return len(found)


def test_the_same_image_is_found() -> None:
    cache = Cache()
    cache.remember(images(b"a"))
    assert cache.match(images(b"a")) == 3


def test_another_image_is_not_found() -> None:
    cache = Cache()
    cache.remember(images(b"a"))
    assert cache.match(images(b"b")) == 0
    assert cache.match(None) == 0


def test_text_without_images_is_as_ever() -> None:
    cache = Cache()
    cache.remember(None)
    assert cache.match(None) == 3
    assert cache.match(images(b"a")) == 0


def test_the_second_of_two_images_counts_from_its_block_on() -> None:
    cache = Cache()
    cache.remember(images(b"a", b"b", counts=(2, 3)))
    assert cache.match(images(b"a", b"c", counts=(2, 3))) == 1
    assert cache.match(images(b"a", b"b", counts=(2, 3))) == 3


def test_where_an_image_ends_counts() -> None:
    cache = Cache()
    cache.remember(images(b"a", b"a", counts=(2, 3)))
    assert cache.match(images(b"a", b"a", counts=(3, 2))) == 0
    assert cache.match(images(b"a")) == 0
