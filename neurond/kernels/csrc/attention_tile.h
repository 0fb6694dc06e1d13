// One tile of rows against the spans of its sequence. A row is one head of one query; a tile's rows share a K/V head.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "abi.h"
#include "attention.h"
#include "attention_pages.h"
#include "attention_softmax.h"
#include "carver.h"

namespace cortex {

constexpr int kSpanBlocks = kSpanTokens / kBlockTokens;

struct Tile {
    std::int32_t sequence, kv_head, first_row, num_rows;  // rows of a K/V head: query by query, its group's heads
};

// What attention is asked for.
struct Request {
    const cortex_layer &layer;
    const cortex_batch &batch;
    const std::byte *pages;
    const float *query;
    std::size_t query_stride;
    float *out;

    int group() const { return layer.num_heads / layer.num_kv_heads; }
    bool is_two_way(int sequence) const { return batch.two_way != nullptr && batch.two_way[sequence] != 0; }
    int num_queries(int sequence) const { return batch.cu_seqlens_q[sequence + 1] - batch.cu_seqlens_q[sequence]; }
};

// A worker's own memory.
template <class Products>
struct Workspace {
    Carver memory;
    float *span;    // [Products::kRows] records
    float *so_far;  // the same
    typename Products::Work of_products;

    Workspace(void *at, int head_dim)
        : memory(at),
          span(memory.take<float>(Products::kRows * Record::floats(head_dim))),
          so_far(memory.take<float>(Products::kRows * Record::floats(head_dim))),
          of_products(memory, head_dim) {}
    static std::size_t bytes(int head_dim) { return Workspace(nullptr, head_dim).memory.used(); }
};

// Rows of a tile that see some of a span; rows between have numbers from `begin` on.
struct Rows {
    int begin, end;
    int count() const { return end - begin; }
};

// `Products` says how a span is computed: of what numbers pages are made (Number), how many rows a tile has at most
// (kRows), what memory a worker needs (Work), and how: `take_queries` makes rows' queries ready for any number of
// `compute`, which makes the records of one span.
template <class Products>
class TileView {
  public:
    using Number = typename Products::Number;

    TileView(const Request &request, const Tile &tile)
        : request_(request), tile_(tile), shape_(request.layer), group_(request.group()) {
        const cortex_batch &batch = request.batch;
        first_token_ = batch.cu_seqlens_q[tile.sequence];
        first_position_ = batch.seq_lens_k[tile.sequence] - request.num_queries(tile.sequence);
        last_end_ = request.is_two_way(tile.sequence) ? batch.seq_lens_k[tile.sequence] : 0;
        blocks_ = batch.block_tables + static_cast<std::size_t>(tile.sequence) * batch.table_width;
    }

    int first_span() const { return seen(0).begin / kSpanTokens; }
    int last_span() const { return (seen(tile_.num_rows - 1).end - 1) / kSpanTokens; }
    int num_rows() const { return tile_.num_rows; }

    // Put all of the result together.
    void compute(const Workspace<Products> &work) const {
        const int first = first_span(), last = last_span();
        const Rows all{0, tile_.num_rows};
        Products::take_queries(*this, all, work.of_products);
        if (first == last) {  // then there is nothing to merge
            Products::compute(*this, first, all, work.of_products, work.so_far);
            return finish_rows(work.so_far);
        }
        for (int span = first; span <= last; ++span) {
            Products::compute(*this, span, rows_that_see(span), work.of_products, work.span);
            merge_span(span, work.span, work.so_far);
        }
        finish_rows(work.so_far);
    }

    // Records of one span, for the rows that see some of it.
    void compute_span(int span, const Workspace<Products> &work, float *records) const {
        const Rows rows = rows_that_see(span);
        Products::take_queries(*this, rows, work.of_products);
        Products::compute(*this, span, rows, work.of_products, records);
    }

    // Add a span's records to those of the spans before it.
    void merge_span(int span, float *records, float *so_far) const {
        const Rows rows = rows_that_see(span);
        Record from[kLanes], into[kLanes];
        int count = 0;
        for (int row = rows.begin; row < rows.end; ++row) {
            from[count] = record(records, row), into[count] = record(so_far, row);
            if (is_first(span, row))
                std::copy_n(from[count].at, Record::floats(shape_.head_dim), into[count].at);
            else if (++count == kLanes)
                merge(into, from, std::exchange(count, 0), shape_.head_dim);
        }
        if (count) merge(into, from, count, shape_.head_dim);
    }

    void finish_rows(float *so_far) const {
        const float *sinks = request_.layer.sinks;
        for (int row = 0; row < tile_.num_rows; ++row) {
            const int head = head_of(row);
            const float sink = sinks ? sinks[head] : -std::numeric_limits<float>::infinity();
            const std::size_t out_row = token_of(row) * request_.layer.num_heads + head;
            finish(record(so_far, row), sink, shape_.head_dim, request_.out + out_row * shape_.head_dim);
        }
    }

    int head_dim() const { return shape_.head_dim; }
    float softcap() const { return request_.layer.softcap; }
    float scale() const { return request_.layer.scale; }
    const float *query(int row) const {
        return request_.query + token_of(row) * request_.query_stride +
               static_cast<std::size_t>(head_of(row)) * shape_.head_dim;
    }
    Record record(float *records, int row) const { return {records + row * Record::floats(shape_.head_dim)}; }

    // The keys of a page of the sequence; its values follow them.
    const Number *keys(int block) const {
        const std::size_t at = shape_.keys_at(blocks_[block], tile_.kv_head);
        return reinterpret_cast<const Number *>(request_.pages + at);
    }
    const Number *values(int block) const { return keys(block) + shape_.keys(); }

    // What a row sees of a span, and what rows do together.
    Seen seen_of(int span, int row) const {
        const Seen all = seen(row);
        return {std::max(all.begin, span * kSpanTokens), std::min(all.end, (span + 1) * kSpanTokens)};
    }
    // Call f(row, what it sees) for rows one after the other.
    template <class F>
    void each_seen(int span, Rows rows, F &&f) const {
        for (int row = rows.begin; row < rows.end;) {
            const Seen of_query = seen_of(span, row);
            const int end = std::min(rows.end, row + group_ - (tile_.first_row + row) % group_);
            for (; row < end; ++row) f(row, of_query);
        }
    }
    Seen seen_of(int span, Rows rows) const {
        return {seen_of(span, rows.begin).begin, seen_of(span, rows.end - 1).end};
    }

  private:
    int query_of(int row) const { return (tile_.first_row + row) / group_; }
    int head_of(int row) const { return tile_.kv_head * group_ + (tile_.first_row + row) % group_; }
    std::size_t token_of(int row) const { return static_cast<std::size_t>(first_token_ + query_of(row)); }

    Seen seen(int row) const {
        const int end = first_position_ + query_of(row) + 1, window = request_.layer.window;
        return {window > 0 ? std::max(0, end - window) : 0, std::max(end, last_end_)};
    }

    // Whether a row sees nothing before a span of which it sees some.
    bool is_first(int span, int row) const {
        return request_.layer.window > 0 ? seen(row).begin >= span * kSpanTokens : span == 0;
    }

    // Later rows begin and end at later keys, or the same: those that see some of a span stand together.
    Rows rows_that_see(int span) const {
        Rows rows{0, tile_.num_rows};
        while (seen(rows.begin).end <= span * kSpanTokens) ++rows.begin;
        while (seen(rows.end - 1).begin >= (span + 1) * kSpanTokens) --rows.end;
        return rows;
    }

    const Request &request_;
    const Tile tile_;
    const PageShape<Number> shape_;
    const int group_;
    int first_token_, first_position_;
    int last_end_;  // where all rows see to, if that is farther than their own key
    const std::int32_t *blocks_;
};

}  // namespace cortex
