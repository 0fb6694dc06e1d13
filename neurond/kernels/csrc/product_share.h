// How a product is shared out: a thread's share are panels that lie side by side, of all rows of its team.
#pragma once

#include <algorithm>

#include "linear.h"
#include "pool.h"
#include "rounding.h"
#include "shares.h"
#include "teams.h"

namespace cortex {

// Pieces that a phase is cut into for each thread: enough that a thread that is held up holds up little.
constexpr int kPiecesPerThread = 8;

// One thread's share, cut into items of so many rows and panels as suit the product; all panels of some rows first.
class ProductShare {
  public:
    ProductShare(const Teams &teams, int thread, const Cut &cut, int panels) : cut_rows_(cut.rows) {
        const int team = teams.team_of_thread(thread);
        const int first = teams.first_thread(team), threads = teams.first_thread(team + 1) - first;
        const int units = ceil_div(panels, cut.panels);
        const auto border = [&](int place) { return std::min(panels, units * place / threads * cut.panels); };
        first_panel_ = border(thread - first), end_panel_ = border(thread - first + 1);
        first_row_ = teams.first_row(team), end_row_ = teams.first_row(team + 1);
        const int row_items = ceil_div(end_row_ - first_row_, cut.rows), panels_here = end_panel_ - first_panel_;
        const int pieces = std::max(1, kPiecesPerThread / row_items);
        item_panels_ = ceil_div(ceil_div(panels_here, pieces), cut.tile_panels) * cut.tile_panels;
        panel_items_ = panels_here ? ceil_div(panels_here, item_panels_) : 0;
        items_ = row_items * panel_items_;
    }

    int items() const { return items_; }

    // Call f(first row, rows, first panel, panels) with those of an item.
    template <class F>
    void with(int item, F &&f) const {
        const int row = first_row_ + item / panel_items_ * cut_rows_;
        const int panel = first_panel_ + item % panel_items_ * item_panels_;
        f(row, std::min(cut_rows_, end_row_ - row), panel, std::min(item_panels_, end_panel_ - panel));
    }

  private:
    const int cut_rows_;
    int first_row_, end_row_, first_panel_, end_panel_;
    int item_panels_, panel_items_, items_;
};

// Call f(first row, rows, first panel, panels) for each item of a product of `rows` rows with so many panels of w.
// `taken` is room for one share for each thread.
template <class F>
void run_product(cortex_pool &pool, Taken *taken, const cortex_linear &w, int rows, int panels, F &&f) {
    const Teams teams(pool, rows);
    const Cut cut = cut_of(w, teams.most_rows());
    const auto own = [](int worker) { return worker; };
    run_shares(pool, pool.threads(), taken, own, [&](int thread, auto &&take, int) {
        const ProductShare share(teams, thread, cut, panels);
        for (int item; (item = take()) < share.items();) share.with(item, f);
    });
}

}  // namespace cortex
