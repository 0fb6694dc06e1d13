// Work that is cut into shares of items: each thread begins with its own, and takes items of the others' behind it.
//
// One counter of items for all would be asked for by every core at once, a tenth of a microsecond for each item.
#pragma once

#include <atomic>

#include "pool.h"

namespace cortex {

// How many items of a share have been taken.
struct alignas(64) Taken {
    std::atomic<int> items;
};

// Call f(share, take, worker) on every thread for every share in [0, shares), first for share own(worker); take()
// returns the next item that nobody has, from 0 on, also behind the last one. Returns when all that was taken is done.
// `taken` is room for all shares.
template <class Own, class F>
void run_shares(cortex_pool &pool, int shares, Taken *taken, Own &&own, F &&f) {
    for (int share = 0; share < shares; ++share) taken[share].items.store(0, std::memory_order_relaxed);
    pool.run(pool.threads(), [&](int, int worker) {
        for (int i = 0, share = own(worker); i < shares; ++i, share = share + 1 == shares ? 0 : share + 1)
            f(share, [&] { return taken[share].items.fetch_add(1, std::memory_order_relaxed); }, worker);
    });
}

}  // namespace cortex
