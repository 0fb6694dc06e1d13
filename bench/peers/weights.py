"""The model that all servers get, and the forms of its weights that peers need.

All are made from the same GGUF: fit to compare speed, not quality, since what was quantised once
is quantised again.
"""

import sys
from pathlib import Path

from bench.peers.cache import Cache
from bench.peers.commands import Unavailable, run
from cortex_core.errors import CortexError
from cortex_core.ids import ModelId, parse_model_id
from neurond.sources.prepared import PreparedModel
from neurond.sources.pull import default_sources, pull
from neurond.sources.store import ModelStore


class Weights:
    """One model. What is asked for is made once and kept."""

    def __init__(self, cache: Cache, model_id: ModelId) -> None:
        """Fetch the model.

        Raises:
            Unavailable: it cannot be fetched.
        """
        store = ModelStore(cache.root)
        try:
            self.manifest: PreparedModel = pull(model_id, store, default_sources(), lambda _: None)
        except CortexError as ex:
            raise Unavailable(ex.message) from ex
        self.model_id = model_id
        self.name = parse_model_id(model_id, default_scheme="").name
        self.source = store.folder(model_id)
        self._cache = cache

    @property
    def tokenizer(self) -> Path:
        return self.source / "tokenizer.json"

    def gguf(self, quantisation: str, quantize: Path) -> Path:
        """Return a GGUF of that type, made by the program `quantize` of llama.cpp.

        Raises:
            Unavailable: it fails.
        """
        source = self.source / self.manifest.weights[0].name
        if quantisation.casefold() in source.name.casefold():
            return source
        target = self._cache.folder("weights", self.name) / f"{quantisation}.gguf"
        if not target.exists():
            part = target.with_suffix(".part")
            command = [str(quantize), "--allow-requantize", str(source), str(part), quantisation]
            run(command, self._cache.log(f"quantize-{self.name}-{quantisation}"))
            part.rename(target)
        return target

    def checkpoint(self) -> Path:
        """Return a folder with bfloat16 safetensors and tokenizer, as transformers reads them.

        Raises:
            Unavailable: it cannot be converted.
        """
        target = self._cache.folder("weights", self.name) / "bf16"
        if not target.exists():
            part = target.with_suffix(".part")
            arguments = [str(self.source), self.manifest.weights[0].name, str(part)]
            command = [sys.executable, "-m", "bench.peers.convert", *arguments]
            run(command, self._cache.log(f"convert-{self.name}"))
            part.rename(target)
        return target
