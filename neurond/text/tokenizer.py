"""A model's tokenizer, read from its prepared folder."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from cortex_core.errors import ModelLoadFailed
from neurond.sources.prepared import PreparedModel
from neurond.text.pieces import TokenPieces
from neurond.text.tokenizer_file import read_tokenizer


class ModelTokenizer:
    """Text to token ids. Encoding releases the GIL and is safe between threads, unlike reading."""

    def __init__(self, tokenizer: Tokenizer, prepared: PreparedModel) -> None:
        self._tokenizer = tokenizer
        # Nothing comes back from an encoder, whose decoders do not work token by token.
        self._pieces = TokenPieces(tokenizer) if prepared.generates else None
        self._vocab_size = prepared.vocab_size
        self._bos_id = (
            tokenizer.token_to_id(prepared.bos_token)
            if prepared.adds_bos and prepared.bos_token is not None
            else None
        )

    @property
    def pieces(self) -> TokenPieces:
        """The way back, token by token, of a model that generates."""
        assert self._pieces is not None, "an encoder generates nothing"
        return self._pieces

    @classmethod
    def read(cls, folder: Path, prepared: PreparedModel) -> "ModelTokenizer":
        """Read `tokenizer.json`; takes up to two seconds for a large vocabulary.

        Other threads stand still for half of that at a time. One read at a time: between two that
        run side by side nobody else might have a turn.

        Raises:
            ModelLoadFailed: the file is absent or no tokenizer.
        """
        path = folder / "tokenizer.json"
        try:
            tokenizer = read_tokenizer(path)
        except Exception as ex:  # the library raises bare Exception
            raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, prepared)

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a plain prompt, with the model's begin token if it wants one."""
        ids = self.encode_rendered(text)
        return ids if self._bos_id is None else [self._bos_id, *ids]

    def encode_rendered(self, text: str) -> list[int]:
        """Return the ids of a rendered conversation; its special tokens are in the text."""
        return self._encode(text, adds_special=False)

    def encode_whole(self, text: str) -> list[int]:
        """Return the ids of a text that nothing follows, with all that its template puts around."""
        return self._encode(text, adds_special=True)

    def beyond_model(self, token_ids: Sequence[int]) -> str | None:
        """Return the first token of a prompt that the model has no embedding for, if there is one.

        Tokenizers of text models can have more tokens than the model: Gemma 3's has one that
        stands for an image.
        """
        if max(token_ids, default=0) < self._vocab_size:
            return None
        beyond = next(id_ for id_ in token_ids if id_ >= self._vocab_size)
        token: str | None = self._tokenizer.id_to_token(beyond)
        return token

    def _encode(self, text: str, *, adds_special: bool) -> list[int]:
        # `encode` gives the same ids, but holds the GIL: for seconds with a megabyte of text.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=adds_special)
        ids: list[int] = encoding.ids
        return ids
