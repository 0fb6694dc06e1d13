// How threads share the rows of a large step: each team of them has rows of its own, in every phase the same ones, and
// more of them where it has more threads.
//
// What a row's phase leaves in a core's cache is found there by the next; with rows shared out anew each time, half of
// what a product reads lies in another core's. Weights are read by every team, so a team has rows enough to be worth
// it. Who is through with a team's items takes those of others: nobody waits for a thread that is held up.
#pragma once

#include <algorithm>
#include <atomic>

#include "pool.h"

namespace cortex {

class Teams {
  public:
    static constexpr int kMost = 16;

    Teams(const cortex_pool &pool, int rows)
        : threads_(pool.threads()), count_(std::clamp(rows / kLeastRows, 1, std::min(threads_, kMost))) {
        const int units = (rows + kUnit - 1) / kUnit;
        for (int team = 0; team <= count_; ++team) {
            const int first_thread = (team * threads_ + count_ - 1) / count_;
            first_row_[team] = std::min(rows, units * first_thread / threads_ * kUnit);
        }
    }

    int count() const { return count_; }
    // Of the team that has most, which has most rows as well.
    int most_threads() const { return (threads_ + count_ - 1) / count_; }
    int most_rows() const {
        int most = 0;
        for (int team = 0; team < count_; ++team) most = std::max(most, rows(team));
        return most;
    }
    // Where a team's rows begin, and those of the team before it end: a multiple of kUnit, or where all rows end.
    int first_row(int team) const { return first_row_[team]; }
    int rows(int team) const { return first_row_[team + 1] - first_row_[team]; }
    int team_of(int row) const {
        int team = 0;
        while (first_row_[team + 1] <= row) ++team;
        return team;
    }

    // Call f(team, item, worker) once for each item in [0, items_of(team)) of each team; as cortex_pool::run.
    template <class Items, class F>
    void run(cortex_pool &pool, Items &&items_of, F &&f) const {
        if (count_ == 1) return pool.run(items_of(0), [&](int item, int worker) { f(0, item, worker); });
        struct alignas(64) Share {
            int items;
            std::atomic<int> next{0};
        };
        Share shares[kMost];
        int total = 0;
        for (int team = 0; team < count_; ++team) total += shares[team].items = items_of(team);
        pool.run(total, [&](int, int worker) {
            // As many are called as there are items: each finds one, in its own team or behind it.
            for (int team = worker * count_ / threads_;; team = team + 1 == count_ ? 0 : team + 1) {
                Share &share = shares[team];
                if (share.next.load(std::memory_order_relaxed) >= share.items) continue;
                const int item = share.next.fetch_add(1, std::memory_order_relaxed);
                if (item < share.items) return f(team, item, worker);
            }
        });
    }

  private:
    // Fewer rows take longer to read weights than to multiply.
    static constexpr int kLeastRows = 128;
    // Whole pairs of blocks of rows for products in tiles, and whole blocks of keys and values for most prompts.
    static constexpr int kUnit = 32;

    const int threads_, count_;
    int first_row_[kMost + 1];
};

}  // namespace cortex
