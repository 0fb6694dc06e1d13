// Work that is cut into shares of items: each thread begins with its own, and takes items of the others' behind it.
//
// One counter of items for all would be asked for by every core at once, a tenth of a microsecond for each item.
#pragma once

#include <atomic>

#include "pool.h"

namespace cortex {

// How many items of a share have been taken; kNoneLeft or more once somebody found that no more are left.
struct alignas(64) Taken {
    static constexpr int kNoneLeft = 1 << 30;
    std::atomic<int> items;
};

// Call f(share, take, worker) for shares in [0, shares), first for share own(worker), until none has items left. f takes
// items until there are no more: take() returns the next one that nobody has, from 0 on, also behind the last. Returns
// when all that was taken is done. `taken` is room for all shares.
template <class Own, class F>
void run_shares(cortex_pool &pool, int shares, Taken *taken, Own &&own, F &&f) {
    for (int share = 0; share < shares; ++share) taken[share].items.store(0, std::memory_order_relaxed);
    std::atomic<bool> none_left{false};
    pool.run(pool.threads(), [&](int, int worker) {
        if (none_left.load(std::memory_order_relaxed)) return;
        for (int i = 0, share = own(worker); i < shares; ++i, share = share + 1 == shares ? 0 : share + 1) {
            std::atomic<int> &items = taken[share].items;
            if (items.load(std::memory_order_relaxed) >= Taken::kNoneLeft) continue;
            f(share, [&] { return items.fetch_add(1, std::memory_order_relaxed); }, worker);
            items.store(Taken::kNoneLeft, std::memory_order_relaxed);
        }
        none_left.store(true, std::memory_order_relaxed);
    });
}

}  // namespace cortex
