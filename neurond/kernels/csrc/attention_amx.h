// A span over bfloat16 keys and values, computed in the tile registers of AMX.
//
// A page's keys are tiles as they lie: 16 pairs of dimensions of 16 keys. A tile of values is 16 pairs of keys: those
// of two blocks are brought together, once for all rows. Scores are summed over 32 dimensions at a time, weighted
// values over 32 keys, from a multiple of 32 on; keys that a row does not see have weight 0 there. So a row's bits
// depend on nothing but its own keys.
//
// Queries and weights are rounded to bfloat16 to be multiplied. A row's sum of weights is one of the rounded ones:
// then its result is a mean of values nevertheless.
#pragma once

#include "simd.h"

#ifdef CORTEX_AMX

#include <algorithm>
#include <cstddef>
#include <limits>

#include "attention_amx_few.h"
#include "attention_amx_weights.h"
#include "attention_lanes.h"
#include "attention_pages.h"
#include "attention_softmax.h"
#include "attention_tile.h"
#include "carver.h"
#include "rounding.h"
#include "tiles.h"

namespace cortex {

struct AmxProducts {
    using Number = bf16;
    using View = TileView<AmxProducts>;
    static constexpr int kRows = kAmxRows;

    struct Work {
        bf16 *query;     // [kRows, padded head_dim], then what is loaded with the last rows
        float *scores;   // [kPartRows, kScoreStride], and then weights [kPartRows, 2 kScoreStride] of bfloat16
        float *largest;  // [kPartRows, 16] of a row's scores, lane by lane
        bf16 *values;    // [head_dim / 16, kSpanPairs] tiles
        bf16 *tails;     // [kAtOnce] tiles: of keys what does not fill one
        bf16 *unity;     // a tile that adds up pairs: sums of weights lane by lane
        float *sums;     // [16, kAtOnce * 16] where records have no room for a whole tile
        LaneProducts<AmxFewRows>::Work few;

        Work(Carver &memory, int head_dim)
            : query(memory.take<bf16>((kRows + kPartRows) * static_cast<std::size_t>(padded(head_dim)))),
              scores(memory.take<float>(kPartRows * kScoreStride)),
              largest(memory.take<float>(kPartRows * kLanes)),
              values(memory.take<bf16>(kSpanPairs * kTileNumbers * static_cast<std::size_t>(head_dim / kLanes))),
              tails(memory.take<bf16>(kAtOnce * kTileNumbers)),
              unity(memory.take<bf16>(kTileNumbers)),
              sums(memory.take<float>(kMostTileRows * kAtOnce * kLanes)),
              few(memory, head_dim) {}
    };

    static void take_queries(const View &view, Rows rows, const Work &work) {
        const int head_dim = view.head_dim(), width = padded(head_dim);
        const F16 scale = splat(view.scale());
        for (int row = rows.begin; row < rows.end; ++row) {
            const float *head = view.query(row);
            bf16 *query = work.query + row * width;
            for (int d = 0; d < head_dim; d += kPairedLanes) {
                const F16 second = d + kLanes < head_dim ? load(head + d + kLanes) * scale : zero();
                store_rounded(query + d, load(head + d) * scale, second);
            }
        }
        if (rows.count() <= AmxFewRows::kMostRows) return;
        std::fill_n(work.unity, kTileNumbers, bf16{0});
        for (int pair = 0; pair < kMostTileRows; ++pair)
            std::fill_n(work.unity + pair * (kPairedLanes + 2), 2, to_bf16(1.0f));
        std::fill_n(work.tails, kAtOnce * kTileNumbers, bf16{0});
    }

    static void compute(const View &view, int span, Rows rows, const Work &work, float *records) {
        if (rows.count() <= AmxFewRows::kMostRows) return compute_few(view, span, rows, work, records);
        const Pages pages(view, span, rows);
        bring_together(pages, work.values);
        const Tiles tiles(whole_tiles());
        for (int row = rows.begin; row < rows.end; row += kPartRows) {
            const Part part(view, span, {row, std::min(row + kPartRows, rows.end)});
            const bf16 *query = work.query + row * padded(pages.head_dim);
            if (part.num_rows > kMostTileRows)
                score<2>(part, query, pages, work);
            else
                score<1>(part, query, pages, work);
            for (int at = 0; at < part.num_rows; at += kMostTileRows)
                weigh(part, at, pages.head_dim, work, view.record(records, row + at));
        }
    }

  private:
    static constexpr int kPartRows = 2 * kMostTileRows;
    // Tiles that sums of products fill at once: fewer would wait for themselves.
    static constexpr int kAtOnce = 4;
    static constexpr int kTileNumbers = kMostTileRows * kPairedLanes;
    static constexpr int kSpanPairs = kSpanTokens / kPairedLanes;
    // An odd number of cache lines, so that rows do not compete for the same sets of a cache; behind a span's scores
    // there is room for those of keys that only fill a round.
    static constexpr int kScoreStride = kSpanTokens + 3 * kLanes;
    // Pages are fetched so many blocks ahead of their use.
    static constexpr int kBlocksAhead = 8;

    static F16 hidden() { return splat(-std::numeric_limits<float>::infinity()); }
    static int padded(int head_dim) { return ceil_div(head_dim, kPairedLanes) * kPairedLanes; }

    // Rows that a tile has and a part has not are multiplied, too, and are not looked at.
    static TileShapes whole_tiles() {
        TileShapes shapes;
        for (int tile = 0; tile < 8; ++tile) shapes.set(tile, kMostTileRows);
        return shapes;
    }

    // What is counted from the span's first key.
    static Seen in_span(Seen seen, int span) {
        return {seen.begin - span * kSpanTokens, seen.end - span * kSpanTokens};
    }

    static void compute_few(const View &view, int span, Rows rows, const Work &work, float *records) {
        for (int row = rows.begin; row < rows.end; ++row)
            AmxFewRows::take_query(work.few.of_format, row, work.query + row * padded(view.head_dim()),
                                   view.head_dim());
        LaneProducts<AmxFewRows>::compute(view, span, rows, work.few, records);
    }

    // A span's blocks, as far as rows see them; where a pair lacks one, the other's keys stand for it.
    struct Pages {
        int head_dim, begin, end;
        float cap;
        const bf16 *keys[kSpanBlocks + kAtOnce];

        Pages(const View &view, int span, Rows rows) : head_dim(view.head_dim()), cap(view.softcap()) {
            const Seen seen = in_span(view.seen_of(span, rows), span);
            begin = seen.begin / kBlockTokens, end = ceil_div(seen.end, kBlockTokens);
            for (int block = begin; block < end; ++block) keys[block] = view.keys(span * kSpanBlocks + block);
            keys[begin / 2 * 2] = keys[begin];
            std::fill_n(keys + end, kAtOnce, keys[end - 1]);
        }
        bool has(int block) const { return begin <= block && block < end; }
        const bf16 *values(int block) const { return keys[block] + kBlockTokens * head_dim; }
        // Have a block's keys and values on their way.
        void fetch(int block) const {
            if (!has(block)) return;
            for (int i = 0; i < 2 * kBlockTokens * head_dim; i += kPairedLanes)
                __builtin_prefetch(keys[block] + i, 0, 2);
        }
    };

    // The values of pairs of blocks as tiles; 0 where there is no block.
    static void bring_together(const Pages &pages, bf16 *tiles) {
        const int dims = pages.head_dim / kLanes;
        for (int block = pages.begin / 2 * 2; block < ceil_div(pages.end, 2) * 2; ++block) {
            pages.fetch(block + kBlocksAhead);
            const bf16 *from = pages.has(block) ? pages.values(block) : nullptr;
            bf16 *to = tiles + block * (kTileNumbers / 2);
            for (int pair = 0; pair < kBlockTokens / 2; ++pair, to += kPairedLanes)
                for (int dim = 0; dim < dims; ++dim) {
                    bf16 *row = to + static_cast<std::size_t>(dim) * kSpanPairs * kTileNumbers;
                    if (from)
                        copy_row(from + (pair * dims + dim) * kPairedLanes, row);
                    else
                        clear_row(row);
                }
        }
    }

    // Rows that are computed together.
    struct Part {
        int num_rows;
        Seen seen[kPartRows];

        Part(const View &view, int span, Rows rows) : num_rows(rows.count()) {
            view.each_seen(span, rows, [&](int row, Seen of_row) { seen[row - rows.begin] = in_span(of_row, span); });
        }
        int first_pair() const { return seen[0].begin / kPairedLanes; }
        int end_pair() const { return ceil_div(seen[num_rows - 1].end, kPairedLanes); }
        bool all_see(int begin, int end) const { return seen[num_rows - 1].begin <= begin && end <= seen[0].end; }
    };

    // Scores of R times 16 rows, masked, and the largest of each row.
    template <int R>
    static void score(const Part &part, const bf16 *query, const Pages &pages, const Work &work) {
        constexpr int S = kAtOnce / R;
        const int whole = pages.head_dim / kPairedLanes, first = 2 * part.first_pair(), end = 2 * part.end_pair();
        const std::size_t stride_bytes = sizeof(bf16) * padded(pages.head_dim);
        for (int row = 0; row < part.num_rows; ++row) store(work.largest + row * kLanes, hidden());
        for (int block = first; block < end; block += S) {
            clear_sums();
            const bf16 *b[kAtOnce];
            for (int s = 0; s < S; ++s) b[s] = pages.keys[block + s];
            for (int step = 0; step < whole; ++step) {
                multiply<R>(query + step * kPairedLanes, stride_bytes, b);
                for (int s = 0; s < S; ++s) b[s] += kTileNumbers;
            }
            if (pages.head_dim % kPairedLanes) {
                for (int s = 0; s < S; ++s) {
                    std::copy_n(b[s], kTileNumbers / 2, work.tails + s * kTileNumbers);
                    b[s] = work.tails + s * kTileNumbers;
                }
                multiply<R>(query + whole * kPairedLanes, stride_bytes, b);
            }
            store_scores<R>(work.scores + block * kBlockTokens);
            // A round later, when they have been stored.
            if (block > first) take_scores<S>(part, block - S, pages.cap, work);
        }
        take_scores<S>(part, first + (end - first - 1) / S * S, pages.cap, work);
    }

    // Take the scores of `S` blocks into each row's largest, those that a row does not see as minus infinity.
    template <int S>
    static void take_scores(const Part &part, int block, float cap, const Work &work) {
        const int first = block * kBlockTokens, end = first + S * kBlockTokens;
        const bool as_they_are = cap == 0.0f && part.all_see(first, end);
        for (int row = 0; row < part.num_rows; ++row) {
            float *scores = work.scores + row * kScoreStride + first, *largest = work.largest + row * kLanes;
            F16 most = load(largest);
            for (int s = 0; s < S; ++s) {
                float *of_block = scores + s * kLanes;
                const int key = first + s * kLanes;
                most = max(most, as_they_are ? load(of_block) : hide(of_block, key, part.seen[row], cap));
            }
            store(largest, most);
        }
    }

    // Records of 16 rows of a part, from `at` on.
    static void weigh(const Part &part, int at, int head_dim, const Work &work, Record record) {
        const int dims = head_dim / kLanes, count = std::min(kMostTileRows, part.num_rows - at);
        const std::size_t stride = Record::floats(head_dim);
        float offsets[kMostTileRows];
        for (int row = 0; row < count; ++row) {
            const float top = max_lane(load(work.largest + (at + row) * kLanes));
            Record{record.at + row * stride}.largest() = top;
            offsets[row] = weight_offset(top);
        }
        const int begin = part.first_pair(), end = part.end_pair();
        for (int dim = 0; dim < dims; dim += kAtOnce) {
            clear_sums();
            if (dim == 0) zero_tile<4>(), load_tile<7>(work.unity, kTileRowBytes);
            // Where there are less dimensions the last ones stand for others.
            const bf16 *b[kAtOnce];
            for (int i = 0; i < kAtOnce; ++i) {
                const int tile = std::min(dim + i, dims - 1) * kSpanPairs + begin;
                b[i] = work.values + static_cast<std::size_t>(tile) * kTileNumbers;
            }
            float *scores = work.scores + at * kScoreStride;
            for (int pair = begin; pair < end; ++pair) {
                // Weights are made while those before are multiplied: what was just written is slow to load.
                if (dim == 0) make_weights(scores + pair * kPairedLanes, count, offsets);
                if (pair > begin) multiply_values(scores + (pair - 1) * kPairedLanes, b, dim == 0);
            }
            multiply_values(scores + (end - 1) * kPairedLanes, b, dim == 0);
            if (dim == 0) {
                store_tile<4>(work.sums, kTileRowBytes);
                for (int row = 0; row < count; ++row)
                    Record{record.at + row * stride}.sum() = sum(load(work.sums + row * kLanes));
            }
            store_values(record.values() + dim * kLanes, stride, count, std::min(kAtOnce, dims - dim), work.sums);
        }
    }

    // Weights take the place of the first half of a pair's scores.
    static void make_weights(float *scores, int rows, const float *offsets) {
        for (int row = 0; row < rows; ++row, scores += kScoreStride) {
            const F16 offset = splat(offsets[row]);
            const F16 first = weight(load(scores), offset), second = weight(load(scores + kLanes), offset);
            store_rounded(reinterpret_cast<bf16 *>(scores), first, second);
        }
    }

    // Registers: sums are 0 to 3, and 4 those of weights themselves, by way of 7.
    static void clear_sums() { zero_tile<0>(), zero_tile<1>(), zero_tile<2>(), zero_tile<3>(); }

    // Sums += R tiles of queries times kAtOnce / R tiles of keys.
    template <int R>
    static void multiply(const bf16 *query, std::size_t stride_bytes, const bf16 *const (&b)[kAtOnce]) {
        load_tile<4>(query, stride_bytes);
        load_passing_tile<6>(b[0], kTileRowBytes);
        multiply_bf16<0, 4, 6>();
        load_passing_tile<7>(b[1], kTileRowBytes);
        multiply_bf16<1, 4, 7>();
        if constexpr (R == 2) {
            load_tile<5>(reinterpret_cast<const char *>(query) + kMostTileRows * stride_bytes, stride_bytes);
            multiply_bf16<2, 5, 6>();
            multiply_bf16<3, 5, 7>();
        } else {
            load_passing_tile<6>(b[2], kTileRowBytes);
            multiply_bf16<2, 4, 6>();
            load_passing_tile<7>(b[3], kTileRowBytes);
            multiply_bf16<3, 4, 7>();
        }
    }

    // Sums += a tile of weights times tiles of values, which are those of the next pair then.
    static void multiply_values(const float *weights, const bf16 *(&b)[kAtOnce], bool add_up) {
        load_tile<5>(weights, sizeof(float) * kScoreStride);
        load_passing_tile<6>(b[0], kTileRowBytes);
        multiply_bf16<0, 5, 6>();
        load_passing_tile<6>(b[1], kTileRowBytes);
        multiply_bf16<1, 5, 6>();
        load_passing_tile<6>(b[2], kTileRowBytes);
        multiply_bf16<2, 5, 6>();
        load_passing_tile<6>(b[3], kTileRowBytes);
        multiply_bf16<3, 5, 6>();
        if (add_up) multiply_bf16<4, 5, 7>();
        for (const bf16 *&tile : b) tile += kTileNumbers;
    }

    template <int R>
    static void store_scores(float *to) {
        constexpr std::size_t stride_bytes = sizeof(float) * kScoreStride;
        float *next = R == 1 ? to + 2 * kLanes : to + kMostTileRows * kScoreStride;
        store_tile<0>(to, stride_bytes);
        store_tile<1>(to + kLanes, stride_bytes);
        store_tile<2>(next, stride_bytes);
        store_tile<3>(next + kLanes, stride_bytes);
    }

    // By way of `all` where rows or dimensions are fewer than the tiles have.
    static void store_values(float *to, std::size_t stride, int rows, int dims, float *all) {
        const bool whole = rows == kMostTileRows && dims == kAtOnce;
        float *at = whole ? to : all;
        const std::size_t stride_bytes = sizeof(float) * (whole ? stride : kAtOnce * kLanes);
        store_tile<0>(at, stride_bytes);
        store_tile<1>(at + kLanes, stride_bytes);
        store_tile<2>(at + 2 * kLanes, stride_bytes);
        store_tile<3>(at + 3 * kLanes, stride_bytes);
        if (whole) return;
        for (int row = 0; row < rows; ++row)
            std::copy_n(all + row * kAtOnce * kLanes, dims * kLanes, to + row * stride);
    }
};

}  // namespace cortex

#endif  // CORTEX_AMX
