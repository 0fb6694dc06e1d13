"""What tokenising costs the loop it is not done on."""

import asyncio
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from neurond.text.pool import TextPool
from tests.fakes.tokenizers_made import BOS, EOS, byte_fallback, byte_level, model_tokenizer

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


async def test_the_loop_turns_while_a_long_text_to_embed_is_tokenised() -> None:
    pool = TextPool(1)
    tokenizer = model_tokenizer(TOKENIZER)
    encoding = asyncio.ensure_future(pool.run(lambda: tokenizer.encode_whole("a" * MEGABYTE)))
    turns = 0
    while not encoding.done():
        await asyncio.wait({encoding}, timeout=0.002)
        turns += 1
    pool.close()
    assert len(encoding.result()) == MEGABYTE
    assert turns > 2


@pytest.mark.parametrize("made", [byte_level, byte_fallback])
def test_a_whole_text_has_what_its_template_puts_around(made: Callable[[], Tokenizer]) -> None:
    tokenizer = made()
    ends = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {EOS}", pair=None, special_tokens=ends
    )
    text = f"hello, {EOS} <think>wörld\n\n" * 300
    ids = model_tokenizer(tokenizer).encode_whole(text)
    assert ids == tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (ends[0][1], ends[1][1])
    assert ids[1:-1] == model_tokenizer(tokenizer).encode_rendered(text)
