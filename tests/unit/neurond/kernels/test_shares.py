"""How threads share out a product: every row and panel once, whoever takes them."""

import ctypes
import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from neurond.kernels.csrc import build

CSRC: Final = Path(build.__file__).parent
SOURCE: Final = """
#include "product_share.h"

struct OneThread final : cortex_pool {  // of many, whose turns it takes one after another
    explicit OneThread(int threads) : threads_(threads) {}
    int threads() const override { return threads_; }
    void rest() override {}
    void run_claimed(int items, Call call, void *context) override {
        for (int item = 0; item < items; ++item) call(context, item, 0);
    }
    const int threads_;
};

// Add 1 to each row and panel of `seen` for every item that has it.
extern "C" void cover(int threads, int rows, int panels, const int *cut, unsigned char *seen) {
    const OneThread pool(threads);
    const cortex::Teams teams(pool, rows);
    for (int thread = 0; thread < threads; ++thread) {
        const cortex::ProductShare share(teams, thread, {cut[0], cut[1], cut[2]}, panels);
        for (int item = 0; item < share.items(); ++item)
            share.with(item, [&](int row, int count, int panel, int wide) {
                for (int r = row; r < row + count; ++r)
                    for (int p = panel; p < panel + wide; ++p) ++seen[r * panels + p];
            });
    }
}

template <class Pool>
int run(Pool &pool, int shares, const int *items, unsigned char *seen, int most) {
    std::atomic<int> asked{0};
    std::unique_ptr<cortex::Taken[]> taken(new cortex::Taken[shares]);
    const auto own = [&](int worker) { return worker % shares; };
    cortex::run_shares(pool, shares, taken.get(), own, [&](int share, auto &&take, int) {
        for (int item; asked.fetch_add(1), (item = take()) < items[share];)
            ++seen[share * most + item];
    });
    return asked;
}
// As with `cover`; returns how often an item was asked for.
extern "C" int run_alone(int threads, int shares, const int *items, unsigned char *seen, int most) {
    OneThread pool(threads);
    return run(pool, shares, items, seen, most);
}
extern "C" int run_together(int threads, int shares, const int *items, unsigned char *seen,
                            int most) {
    using Owned = std::unique_ptr<cortex_pool, decltype(&cortex_pool_destroy)>;
    const Owned pool(cortex_pool_create(threads), &cortex_pool_destroy);
    return run(*pool, shares, items, seen, most);
}
"""
CUTS: Final = [(64, 1, 1), (64, 1, 4), (512, 2, 2), (96, 2, 4)]
"""Rows and panels of an item at most, and what panels are taken in."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("shares") / "shares.so"
    command = [*os.environ.get("CXX", "c++").split(), "-std=c++17", "-shared", "-fPIC", "-pthread"]
    command += ["-I", str(CSRC), str(CSRC / "pool.cpp"), "-include", "memory", "-x", "c++", "-"]
    subprocess.run([*command, "-o", str(path)], input=SOURCE, text=True, check=True)
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16, 61])
def test_each_row_and_panel_is_in_one_item(library, threads, cut):
    for rows, panels in product((1, 5, 65, 130, 512, 1100), (1, 2, 7, 36, 60, 193)):
        seen = np.zeros((rows, panels), np.uint8)
        library.cover(
            threads, rows, panels, (ctypes.c_int * 3)(*cut), ctypes.c_void_p(seen.ctypes.data)
        )
        assert (seen == 1).all(), (rows, panels)


@pytest.mark.parametrize("shares", [1, 2, 5, 64])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_each_item_is_taken_once_by_whichever_thread(library, threads, shares):
    rng = np.random.default_rng(threads * shares)
    for _ in range(50):
        items = rng.integers(0, 20, shares, dtype=np.int32)
        seen = np.zeros((shares, 20), np.uint8)
        at = ctypes.c_void_p(items.ctypes.data), ctypes.c_void_p(seen.ctypes.data)
        library.run_together(threads, shares, *at, 20)
        assert (seen == (np.arange(20) < items[:, None])).all()


@pytest.mark.parametrize("threads", [2, 64, 256])
def test_shares_without_items_are_not_asked_again(library, threads):
    items = np.full(threads, 3, np.int32)
    seen = np.zeros((threads, 3), np.uint8)
    at = ctypes.c_void_p(items.ctypes.data), ctypes.c_void_p(seen.ctypes.data)
    asked = library.run_alone(threads, threads, *at, 3)
    assert (seen == 1).all()
    assert asked == 4 * threads, "each share's items, and that there are no more"
