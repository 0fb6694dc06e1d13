// A span computed by vectors of 16 lanes: `Format` multiplies with the pages' numbers, kBlocksTogether at once, from a
// multiple of that on. Where some of these are not there others stand for them, whose keys no row sees.
#pragma once

#include <algorithm>
#include <cstddef>

#include "attention_pages.h"
#include "attention_product.h"
#include "attention_softmax.h"
#include "attention_tile.h"
#include "carver.h"

namespace cortex {

// Keys, or values, that rows take turns with are few enough to stay in the first cache: so many blocks of a head of
// 64. They are fetched as many blocks ahead of their use.
constexpr int kChunkBlocks = 4;

template <class Format>
struct LaneProducts {
    using Number = typename Format::Number;
    static constexpr int kRows = kLaneRows;

    struct Work {
        float *scores;  // [kRows, kScoreStride]
        typename Format::Work of_format;

        Work(Carver &memory, int head_dim)
            : scores(memory.take<float>(kRows * kScoreStride)), of_format(memory, head_dim) {}
    };

    template <class View>
    static void take_queries(const View &view, Rows rows, const Work &work) {
        for (int row = rows.begin; row < rows.end; ++row)
            Format::take_query(work.of_format, row, view.query(row), view.head_dim(), view.scale());
    }

    template <class View>
    static void compute(const View &view, int span, Rows rows, const Work &work, float *records) {
        constexpr int together = Format::kBlocksTogether, keys_together = together * kBlockTokens;
        const Seen keys = view.seen_of(span, rows);
        const int first_key = keys.begin / keys_together * keys_together;
        const int num_blocks = (keys.end - first_key + keys_together - 1) / keys_together * together;
        const Number *pages[2 * kSpanBlocks + kChunkBlocks];
        find_pages(view, keys, first_key / kBlockTokens, num_blocks, pages);
        scores(rows, view.head_dim(), pages, num_blocks, work);
        for (int row = rows.begin; row < rows.end; ++row) {
            float *weights = work.scores + (row - rows.begin) * kScoreStride;
            const Record into = view.record(records, row);
            Format::weights_from_scores(weights, num_blocks * kBlockTokens, first_key, view.seen_of(span, row),
                                        view.softcap(), into);
            Format::take_weights(work.of_format, row - rows.begin, weights, pages, num_blocks, into, view.head_dim());
        }
        weigh_values(view, rows, pages + num_blocks, num_blocks, work, records);
    }

  private:
    // The span's keys, then its values, in the order in which they are used, then something that may be fetched.
    template <class View>
    static void find_pages(const View &view, Seen keys, int first_block, int num_blocks, const Number **pages) {
        const Number **values = pages + num_blocks;
        for (int i = 0; i < num_blocks; ++i) {
            const int block = std::clamp(first_block + i, keys.begin / kBlockTokens, (keys.end - 1) / kBlockTokens);
            pages[i] = view.keys(block);
            values[i] = view.values(block);
        }
        std::fill_n(values + num_blocks, kChunkBlocks, values[num_blocks - 1]);
    }

    static int chunk_blocks(int rows, int head_dim) {
        if (rows <= kMaxTileRows) return kChunkBlocks;  // nothing is used twice
        constexpr int together = Format::kBlocksTogether;
        return std::clamp(kChunkBlocks * 64 / head_dim / together * together, together, kChunkBlocks);
    }

    static void scores(Rows rows, int head_dim, const Number *const *keys, int num_blocks, const Work &work) {
        const typename Format::Arithmetic arithmetic;
        const int most = chunk_blocks(rows.count(), head_dim);
        for (int chunk = 0; chunk < num_blocks; chunk += most)
            each_row_tile(rows.count(), [&](int row, auto r) {
                constexpr int R = decltype(r)::value;
                const int blocks = std::min(most, num_blocks - chunk);
                each_vector_tile<Format::vectors_for(R)>(blocks, [&](int i, auto s) {
                    const Number *const *at = keys + chunk + i;
                    Format::template score<R, decltype(s)::value>(
                        work.of_format, rows.begin + row, head_dim, at, row == 0 ? at + most : at,
                        work.scores + row * kScoreStride + (chunk + i) * kBlockTokens);
                });
            });
    }

    template <class View>
    static void weigh_values(const View &view, Rows rows, const Number *const *values, int num_blocks,
                             const Work &work, float *records) {
        const typename Format::Arithmetic arithmetic;
        const int head_dim = view.head_dim(), most = chunk_blocks(rows.count(), head_dim);
        for (int chunk = 0; chunk < num_blocks; chunk += most)
            each_row_tile(rows.count(), [&](int row, auto r) {
                constexpr int R = decltype(r)::value;
                const int blocks = std::min(most, num_blocks - chunk);
                const Number *const *at = values + chunk;
                each_vector_tile<Format::vectors_for(R)>(head_dim / kLanes, [&](int i, auto s) {
                    Format::template weigh<R, decltype(s)::value>(
                        work.of_format, row, work.scores + row * kScoreStride, chunk, at, row == 0 ? at + most : at,
                        blocks, head_dim, i * kLanes, view.record(records, rows.begin + row));
                });
            });
        for (int row = rows.begin; row < rows.end; ++row)
            Format::finish_values(work.of_format, row - rows.begin, view.record(records, row), head_dim);
    }
};

}  // namespace cortex
