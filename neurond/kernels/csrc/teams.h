// How threads share the rows of a large step: each team of them has rows of its own, in every phase the same ones, and
// more of them where it has more threads.
//
// What a row's phase leaves in a core's cache is found there by the next; with rows shared out anew each time, half of
// what a product reads lies in another core's. Weights are read by every team, so a team has rows enough to be worth
// it. Who is through with a team's items takes those of others: nobody waits for a thread that is held up.
#pragma once

#include <algorithm>

#include "pool.h"
#include "rounding.h"
#include "shares.h"

namespace cortex {

class Teams {
  public:
    static constexpr int kMost = 16;

    Teams(const cortex_pool &pool, int rows)
        : threads_(pool.threads()), count_(std::clamp(rows / kLeastRows, 1, std::min(threads_, kMost))) {
        const int units = ceil_div(rows, kUnit);
        for (int team = 0; team <= count_; ++team) {
            first_row_[team] = std::min(rows, units * first_thread(team) / threads_ * kUnit);
        }
    }

    int count() const { return count_; }
    int first_thread(int team) const { return ceil_div(team * threads_, count_); }
    int team_of_thread(int worker) const { return worker * count_ / threads_; }
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
        Taken taken[kMost];
        const auto own = [&](int worker) { return team_of_thread(worker); };
        run_shares(pool, count_, taken, own, [&](int team, auto &&take, int worker) {
            const int items = items_of(team);
            for (int item; (item = take()) < items;) f(team, item, worker);
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
