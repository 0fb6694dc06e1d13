"""What tokenising costs the loop it is not done on."""

import asyncio

import pytest

from neurond.text.pool import TextPool
from tests.fakes.tokenizers_made import byte_level, model_tokenizer

MEGABYTE = 1_000_000
TOKENIZER = byte_level()


@pytest.mark.parametrize("text", ["The quick brown fox. " * (MEGABYTE // 21), "a" * MEGABYTE])
async def test_the_loop_turns_while_a_long_text_is_tokenised(text: str) -> None:
    pool = TextPool(1)
    tokenizer = model_tokenizer(TOKENIZER)
    encoding = asyncio.ensure_future(pool.run(lambda: tokenizer.encode_text(text)))
    loop, turns, longest_s = asyncio.get_running_loop(), 0, 0.0
    began_s = last_s = loop.time()
    while not encoding.done():
        await asyncio.wait({encoding}, timeout=0.002)
        turns, now_s = turns + 1, loop.time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    pool.close()
    assert encoding.result()[:100] == TOKENIZER.encode(text[:500]).ids[:100]
    assert turns > 2
    assert longest_s < max(0.25, 0.75 * (last_s - began_s))
