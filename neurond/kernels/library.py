"""The kernels: calling a library that `variants` has found.

A call lets other Python threads run while it computes. `Kernels` is the one way to them; what it
returns and takes are arrays and addresses, never ctypes but for structs of `abi`.
"""

from __future__ import annotations

import ctypes
from array import array
from ctypes import byref
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from cortex_core.errors import InternalError, OutOfMemory
from neurond.kernels import abi
from neurond.kernels.memory import Buffer, KvFormat, KvPages, address_of
from neurond.kernels.sampling import SampleKernel

VariantName = Literal["amx", "avx512", "avx2", "portable"]


class Pool:
    """Threads for one caller at a time; closed by `close` or at the end of a `with`."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        """Start `threads` - 1 threads; the caller is the last.

        Raises:
            OutOfMemory: the system gives no more threads.
        """
        self._library = library
        self.threads = threads
        self.address: int = library.cortex_pool_create(threads) or 0
        if not self.address:
            raise OutOfMemory(
                f"cannot start {threads} threads for the CPU kernels: the system gives no more; "
                "raise the limit of processes, or give the device fewer threads"
            )

    def close(self) -> None:
        """End the threads; nothing uses the pool any more."""
        if self.address:
            self._library.cortex_pool_destroy(self.address)
            self.address = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(slots=True)
class StepColumns:
    """What one step computes; columns as in `engine.batch`, all int32.

    They are read during the call and not kept.
    """

    token_ids: array[int]  # [T]
    positions: array[int]  # [T]
    slots: array[int]  # [T]
    cu_seqlens_q: array[int]  # [B + 1]
    seq_lens_k: array[int]  # [B]
    block_tables: array[int]
    """[B * table_width], one row after another; padding is not read."""
    table_width: int
    sample_rows: array[int]  # [S]
    two_way: array[int] | None = None
    """[B] 1 where every query sees all keys that a window leaves; None where no sequence is so."""
    embed_rows: array[int] = field(default_factory=lambda: array("i"))
    """[E] ascending tokens that have `embeds` in place of their embedding."""
    embeds: NDArray[np.float32] | None = None  # [E, hidden]

    @classmethod
    def one_sequence(cls, token_ids: array[int], start: int = 0) -> StepColumns:
        """Return a step of one sequence alone, in the first blocks, of which all are sampled.

        Args:
            token_ids: its tokens from place `start` on; those before have their K/V.
        """
        stop = start + len(token_ids)
        places = array("i", range(start, stop))
        num_blocks = -(-stop // abi.BLOCK_TOKENS)
        return cls(
            token_ids=token_ids,
            positions=places,
            slots=places,
            cu_seqlens_q=array("i", [0, len(token_ids)]),
            seq_lens_k=array("i", [stop]),
            block_tables=array("i", range(num_blocks)),
            table_width=num_blocks,
            sample_rows=array("i", range(len(token_ids))),
        )


class Kernels:
    """One loaded library. Calls with the same pool come from one thread at a time."""

    def __init__(self, variant: VariantName, path: Path, library: ctypes.CDLL) -> None:
        """`library` has its functions declared."""
        self.variant = variant
        self.path = path
        self._library = library

    @property
    def layout(self) -> VariantName:
        """The variant in whose layout matrices are packed: tiles take them as AVX-512 does."""
        return "avx512" if self.variant == "amx" else self.variant

    def pool(self, threads: int) -> Pool:
        """Return a new pool; see `Pool`."""
        return Pool(self._library, threads)

    def sampler(self, pool: Pool, vocab_size: int) -> SampleKernel:
        """Return the sampling kernel; the pool outlives it."""
        scratch_bytes = self.sampler_bytes(pool, vocab_size)
        return SampleKernel(self._library, pool.address, vocab_size, scratch_bytes)

    def sampler_bytes(self, pool: Pool, vocab_size: int) -> int:
        """Return the bytes of scratch that a `sampler` has."""
        size: int = self._library.cortex_sample_scratch_bytes(pool.address, vocab_size)
        return size

    def packed_bytes(self, weight_format: str, out_features: int, in_features: int) -> int:
        """Return what a matrix takes when it is packed."""
        size: int = self._library.cortex_packed_bytes(
            abi.FORMATS[weight_format], out_features, in_features
        )
        return size

    def pack_rows(self, linear: abi.Linear, first_row: int, rows: NDArray[np.float32]) -> None:
        """Pack `rows` [n, in_features] to where `linear` points; see cortex_pack_rows."""
        assert rows.dtype == np.float32
        self._library.cortex_pack_rows(
            linear.format,
            linear.out_features,
            linear.in_features,
            first_row,
            len(rows),
            address_of(rows),
            linear.data,
        )

    def unpack_rows(
        self, linear: abi.Linear, first_row: int = 0, num_rows: int | None = None
    ) -> NDArray[np.float32]:
        """Return the weights that products are made with, [num_rows, in_features]."""
        count = linear.out_features - first_row if num_rows is None else num_rows
        rows = np.empty((count, linear.in_features), np.float32)
        self._library.cortex_unpack_rows(byref(linear), first_row, count, address_of(rows))
        return rows

    def linear_apply(
        self, pool: Pool, linear: abi.Linear, x: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return x w^T + bias for x [n, in_features]."""
        assert x.dtype == np.float32
        assert x.shape[1] == linear.in_features
        y = np.empty((len(x), linear.out_features), np.float32)
        self._library.cortex_linear_apply(
            pool.address, byref(linear), len(x), address_of(x), address_of(y)
        )
        return y

    def kv_bytes(self, model: abi.Model, num_blocks: int, kv_format: KvFormat) -> list[int]:
        """Return the bytes of K/V pages for `num_blocks` blocks, layer by layer."""
        size_of = self._library.cortex_kv_bytes
        code = abi.FORMATS[kv_format]
        return [size_of(byref(model.layers[i]), code, num_blocks) for i in range(model.num_layers)]

    def kv_pages(self, model: abi.Model, num_blocks: int, kv_format: KvFormat = "bf16") -> KvPages:
        """Return new pages; see `KvPages`."""
        return KvPages(self.kv_bytes(model, num_blocks, kv_format), num_blocks, kv_format)

    def scratch_bytes(
        self, model: abi.Model, pool: Pool, max_tokens: int, max_sequences: int, max_samples: int
    ) -> int:
        """Return the bytes of scratch that a step of so much at most needs."""
        size: int = self._library.cortex_scratch_bytes(
            byref(model), pool.address, max_tokens, max_sequences, max_samples
        )
        return size

    def step(
        self,
        pool: Pool,
        model: abi.Model,
        columns: StepColumns,
        kv: KvPages,
        scratch: Buffer,
        logits: NDArray[np.float32],
    ) -> None:
        """Compute one step into `kv` and the first rows of `logits` [>= S, vocab_size].

        Raises:
            InternalError: a token or its position is out of range; nothing was written.
        """
        assert logits.shape[1] == model.vocab_size
        self._step(pool, model, columns, kv, scratch, logits=logits)

    def states(
        self,
        pool: Pool,
        model: abi.Model,
        columns: StepColumns,
        kv: KvPages,
        scratch: Buffer,
        states: NDArray[np.float32],
    ) -> None:
        """Compute one step into `kv` and the first rows of `states` [>= S, hidden]; no logits.

        Raises:
            InternalError: as by `step`.
        """
        assert states.shape[1] == model.hidden
        self._step(pool, model, columns, kv, scratch, states=states)

    def _step(
        self,
        pool: Pool,
        model: abi.Model,
        columns: StepColumns,
        kv: KvPages,
        scratch: Buffer,
        **results: NDArray[np.float32],
    ) -> None:
        embeds = columns.embeds
        assert (0 if embeds is None else len(embeds)) == len(columns.embed_rows)
        assert embeds is None or (embeds.dtype == np.float32 and embeds.shape[1] == model.hidden)
        for rows in results.values():
            assert rows.dtype == np.float32
            assert rows.shape[0] >= len(columns.sample_rows)
        batch = abi.Batch(
            len(columns.token_ids),
            len(columns.seq_lens_k),
            len(columns.sample_rows),
            columns.table_width,
            abi.FORMATS[kv.kv_format],
            len(columns.embed_rows),
            columns.token_ids.buffer_info()[0],
            columns.positions.buffer_info()[0],
            columns.slots.buffer_info()[0],
            columns.cu_seqlens_q.buffer_info()[0],
            columns.seq_lens_k.buffer_info()[0],
            columns.block_tables.buffer_info()[0],
            columns.sample_rows.buffer_info()[0],
            two_way=columns.two_way.buffer_info()[0] if columns.two_way is not None else None,
            embed_rows=columns.embed_rows.buffer_info()[0],
            embeds=address_of(columns.embeds) if columns.embeds is not None else None,
            **{name: address_of(rows) for name, rows in results.items()},
        )
        if self._library.cortex_step(
            pool.address, byref(model), byref(batch), kv.addresses, scratch.address
        ):
            raise InternalError(
                "cannot compute a step: a token is not in the vocabulary of "
                f"{model.vocab_size}, or stands where the model has no rotary tables for"
            )
