// Thresholds of top-k and top-p over one row, without sorting it.
#pragma once

#include <cmath>
#include <functional>

#include "sample_row.h"

namespace cortex {

// Copy all values of at least `bound`, which is finite, into `found` [blocks * kBlock]; return how many.
inline int collect(const Row &row, const float *peaks, float bound, float *found) {
    float spare[kBlock];
    int count = 0;
    for (int b = 0; b < row.blocks(); ++b) {
        if (peaks[b] < bound) continue;
        const float *x = row.block(b, spare);
        for (int i = 0; i < kBlock; ++i) {  // without a branch: which values pass is hard to predict
            found[count] = x[i];
            count += x[i] >= bound;
        }
    }
    return count;
}

// Write the largest value of every lane of every block; return how many.
inline int lane_peaks(const Row &row, float *found) {
    float spare[kBlock];
    for (int b = 0; b < row.blocks(); ++b) {
        const float *x = row.block(b, spare);
        F16 peak = load(x);
        for (int i = kLanes; i < kBlock; i += kLanes) peak = max(peak, load(x + i));
        store(found + b * kLanes, peak);
    }
    return row.blocks() * kLanes;
}

// Return a bound that at least k values reach, and not many more: k groups have one of at least the k-th largest
// of their largest values.
inline float bound_of_largest(const Row &row, const float *peaks, int k, float *found) {
    int groups = row.blocks();
    if (k <= groups)
        std::copy(peaks, peaks + groups, found);
    else
        groups = lane_peaks(row, found);
    if (k > groups) return kLowest;
    std::nth_element(found, found + k - 1, found + groups, std::greater<float>());
    return std::max(kLowest, found[k - 1]);
}

// Put the k largest finite values into `found`, in no order but the smallest last; return how many there are.
inline int collect_largest(const Row &row, const float *peaks, int k, float *found) {
    const float bound = bound_of_largest(row, peaks, k, found);
    const int count = collect(row, peaks, bound, found);
    if (count < k) return count;
    std::nth_element(found, found + k - 1, found + count, std::greater<float>());
    return k;
}

struct Span {
    float bottom, top;
};

// Of at least kLanes values.
inline Span span_of(const float *values, int count) {
    F16 least = load(values + count - kLanes), most = least;
    for (int i = 0; i + kLanes <= count; i += kLanes) {
        least = min(least, load(values + i));
        most = max(most, load(values + i));
    }
    return {-max_lane(zero() - least), max_lane(most)};
}

// Weights of values by how far below the largest they are, in bins of equal width.
class Histogram {
  public:
    static constexpr int kBins = 512;

    explicit Histogram(Span span) : top_(span.top), scale_(kBins / (span.top - span.bottom)) {}

    // Whether the first and the last bin part the smallest value from the largest.
    bool divides() const { return scale_ > 0.0f && scale_ < kInfinity; }

    void bins_of(const float *values, std::int32_t *bins) const {
        for (int i = 0; i < kLanes; ++i)
            bins[i] = static_cast<std::int32_t>(std::min((top_ - values[i]) * scale_, kBins - 1.0f));
    }

    void add(const float *values, const Weighing &weighing) {
        std::int32_t bins[kLanes];
        float weights[kLanes];
        bins_of(values, bins);
        store(weights, weighing(load(values)));
        for (int i = 0; i < kLanes; ++i) masses_[bins[i]] += static_cast<double>(weights[i]);
    }

    // Return the bin in which the sum from the top reaches `limit`, and leave of `limit` what is due to it.
    int reach(double &limit) const {
        int last = 0;
        for (int bin = 0; bin < kBins; ++bin) {
            if (masses_[bin] == 0.0) continue;
            last = bin;
            if (masses_[bin] >= limit) break;
            limit -= masses_[bin];
        }
        return last;
    }

  private:
    float top_, scale_;
    double masses_[kBins] = {};
};

// Fill `values` up with -inf to whole vectors; return their length then.
inline int fill_up(float *values, int count) {
    const int whole = (count + kLanes - 1) / kLanes * kLanes;
    std::fill(values + count, values + whole, -kInfinity);
    return whole;
}

// Leave of `values` those of the bin in which the sum of weights reaches `limit`; return how many.
inline int narrow(float *values, int count, Histogram &histogram, const Weighing &weighing, double &limit) {
    const int whole = fill_up(values, count);
    for (int i = 0; i < whole; i += kLanes) histogram.add(values + i, weighing);
    const int reached = histogram.reach(limit);
    int left = 0;
    for (int i = 0; i < whole; i += kLanes) {
        std::int32_t bins[kLanes];
        histogram.bins_of(values + i, bins);
        for (int lane = 0; lane < kLanes; ++lane) {
            const float value = values[i + lane];
            values[left] = value;
            left += bins[lane] == reached && value != -kInfinity;
        }
    }
    return left;
}

// Return the smallest of `values` that is kept while those before it, in descending order, weigh less than
// `limit`. `values` are finite, have room up to whole vectors, and are lost.
inline float last_within(float *values, int count, const Weighing &weighing, double limit) {
    constexpr int kSorted = 192;  // so many are sorted as fast as told apart
    while (count > kSorted) {
        const Span span = span_of(values, count);
        if (span.bottom == span.top) return span.top;
        Histogram histogram(span);
        if (!histogram.divides()) break;
        count = narrow(values, count, histogram, weighing, limit);
    }
    std::sort(values, values + count, std::greater<float>());
    const int whole = fill_up(values, count);
    float last = values[0], weights[kLanes];
    double before = 0.0;
    for (int i = 0; i < whole; ++i) {
        if (i % kLanes == 0) store(weights, weighing(load(values + i)));
        const float weight = weights[i % kLanes];
        if (weight == 0.0f || before >= limit) break;
        last = values[i];
        before += static_cast<double>(weight);
    }
    return last;
}

inline double sum_of_weights(float *values, int count, const Weighing &weighing) {
    const int whole = fill_up(values, count);
    double total = 0.0;
    for (int i = 0; i < whole; i += kLanes) total += static_cast<double>(sum(weighing(load(values + i))));
    return total;
}

struct Filters {
    int top_k;  // 0 for none
    float top_p, min_p;
};

// Raise the floor of `weighing` to what the filters keep. `masses` [blocks] and `found` [blocks * kBlock] are
// overwritten.
inline void filter(const Row &row, const float *peaks, const Filters &filters, Weighing &weighing, double *masses,
                   float *found) {
    float threshold = weighing.floor;
    if (filters.top_k > 0 && filters.top_k < row.count) {
        const int count = collect_largest(row, peaks, filters.top_k, found);
        if (count == filters.top_k) threshold = std::max(threshold, found[count - 1]);
        if (filters.top_p < 1.0f) {
            const double limit = filters.top_p * sum_of_weights(found, count, weighing);
            threshold = std::max(threshold, last_within(found, count, weighing, limit));
        }
    } else if (filters.top_p < 1.0f) {
        const double total = weigh(row, peaks, weighing, masses);
        // All that weigh less than this weigh less than 1 - top_p together.
        const double ratio = (1.0 - filters.top_p) * total / row.count;
        const float bound = std::max(threshold, weighing.at_ratio(static_cast<float>(ratio)));
        const int count = collect(row, peaks, std::min(bound, weighing.highest), found);
        threshold = last_within(found, count, weighing, filters.top_p * total);
    }
    weighing.floor = std::max(threshold, weighing.at_ratio(filters.min_p));
}

}  // namespace cortex
