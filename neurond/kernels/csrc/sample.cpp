// From logits to tokens: what a row asks for on its logits, then the largest or a draw. Rows are items of the
// pool, each computed by one thread from start to end.
#include "sample.h"

#include "pool.h"
#include "sample_filters.h"

namespace cortex {
namespace {

// One worker's memory, for rows of one length.
struct Scratch {
    double *masses;  // [blocks]
    float *peaks;    // [blocks]
    float *found;    // [blocks * kBlock]
    float *changed;  // [vocab_size], in the room of whole blocks

    static std::size_t bytes(int vocab_size) {
        const std::size_t blocks = static_cast<std::size_t>(Row{nullptr, vocab_size}.blocks());
        return blocks * (sizeof(double) + 2 * sizeof(float) + 2 * kBlock * sizeof(float));
    }

    Scratch(void *base, int worker, int vocab_size) {
        const std::size_t blocks = static_cast<std::size_t>(Row{nullptr, vocab_size}.blocks());
        const std::size_t before = bytes(vocab_size) * static_cast<std::size_t>(worker);
        masses = reinterpret_cast<double *>(static_cast<char *>(base) + before);
        peaks = reinterpret_cast<float *>(masses + blocks);
        found = peaks + 2 * blocks;  // as many again as peaks keep the next worker's doubles aligned
        changed = found + blocks * kBlock;
    }
};

std::uint64_t mix(std::uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBu;
    return state ^ (state >> 31);
}

// The number in [0, 1) of neurond/engine/randomness.py, with the same 48 bits.
double uniform(const cortex_sample_row &params) {
    constexpr std::uint64_t kGamma = 0x9E3779B97F4A7C15u;
    std::uint64_t state = mix(params.seed + kGamma);
    state = mix(state + (params.choice + 1) * kGamma);
    state = mix(state + (params.step + 1) * kGamma);
    return static_cast<double>(state >> 16) / static_cast<double>(std::uint64_t{1} << 48);
}

void forbid(const std::uint32_t *allowed, float *logits, int count) {
    for (int start = 0; start < count; start += 32) {
        const std::uint32_t word = allowed[start / 32];
        if (word == ~std::uint32_t{0}) continue;
        const int width = std::min(32, count - start);
        for (int bit = 0; bit < width; ++bit)
            if (!(word >> bit & 1)) logits[start + bit] = -kInfinity;
    }
}

bool is_changed(const cortex_sample_row &params) {
    return params.allowed || params.num_repeated || params.num_added;
}

void change(const cortex_sampling &sampling, const cortex_sample_row &params, float *logits) {
    const auto is_token = [&](std::int32_t id) { return id >= 0 && id < sampling.vocab_size; };
    if (params.allowed) forbid(params.allowed, logits, sampling.vocab_size);
    const float penalty = params.repetition_penalty;
    for (int i = params.first_repeated; i < params.first_repeated + params.num_repeated; ++i) {
        if (!is_token(sampling.repeated[i])) continue;
        float &logit = logits[sampling.repeated[i]];
        logit = logit > 0.0f ? logit / penalty : logit * penalty;
    }
    for (int i = params.first_added; i < params.first_added + params.num_added; ++i)
        if (is_token(sampling.added_tokens[i])) logits[sampling.added_tokens[i]] += sampling.added_values[i];
}

// Keep a token among the `wanted` largest so far, behind its equals.
void keep_if_top(int token, float logit, int wanted, cortex_sampled &sampled) {
    float *logits = sampled.top_logprobs;
    if (sampled.num_top == wanted && logit <= logits[wanted - 1]) return;
    int place = sampled.num_top == wanted ? wanted - 1 : sampled.num_top++;
    for (; place > 0 && logits[place - 1] < logit; --place) {
        logits[place] = logits[place - 1];
        sampled.top_tokens[place] = sampled.top_tokens[place - 1];
    }
    logits[place] = logit;
    sampled.top_tokens[place] = token;
}

// Write the `wanted` largest logits, -inf among them, and their tokens.
void find_top(const Row &row, int wanted, const Scratch &scratch, cortex_sampled &sampled) {
    if (!wanted) return;
    float bound = bound_of_largest(row, scratch.peaks, wanted, scratch.found);
    if (bound == kLowest) bound = -kInfinity;
    for (int b = 0; b < row.blocks(); ++b) {
        if (scratch.peaks[b] < bound) continue;
        const int end = std::min(row.count, (b + 1) * kBlock);
        for (int token = b * kBlock; token < end; ++token)
            if (row.values[token] >= bound) keep_if_top(token, row.values[token], wanted, sampled);
    }
}

// Write the log probabilities of the most likely tokens; return what a logit exceeds its log probability by.
double tell_top(const Row &row, float highest, int wanted, const Scratch &scratch, cortex_sampled &sampled) {
    const double total = weigh(row, scratch.peaks, Weighing(highest, 1.0f), scratch.masses);
    const double normaliser = highest + std::log(total);
    find_top(row, std::min(wanted, row.count), scratch, sampled);
    for (int i = 0; i < sampled.num_top; ++i)
        sampled.top_logprobs[i] = static_cast<float>(sampled.top_logprobs[i] - normaliser);
    return normaliser;
}

int choose(const Row &row, float highest, const cortex_sample_row &params, const Scratch &scratch) {
    if (!(params.temperature > 0.0f)) return first_of(row, scratch.peaks, highest);
    Weighing weighing(highest, params.temperature);
    filter(row, scratch.peaks, {params.top_k, params.top_p, params.min_p}, weighing, scratch.masses, scratch.found);
    const double total = weigh(row, scratch.peaks, weighing, scratch.masses);
    return find_share(row, weighing, scratch.masses, total, uniform(params));
}

void sample_row(const cortex_sampling &sampling, int index, const Scratch &scratch) {
    const cortex_sample_row &params = sampling.rows[index];
    cortex_sampled &sampled = sampling.sampled[index];
    float *logits = sampling.logits + static_cast<std::size_t>(index) * static_cast<std::size_t>(sampling.vocab_size);
    const Row raw{logits, sampling.vocab_size};
    sampled = {};
    Row row = raw;
    double normaliser = 0.0;
    float highest = 0.0f;
    if (params.wants_logprobs) {
        highest = scan(raw, scratch.peaks);
        if (!std::isfinite(highest)) return;
        normaliser = tell_top(raw, highest, params.num_top, scratch, sampled);
    }
    if (is_changed(params)) {
        if (params.wants_logprobs) {  // which are of the logits as they came
            std::copy(logits, logits + raw.count, scratch.changed);
            row.values = logits = scratch.changed;
        }
        change(sampling, params, logits);
    }
    if (is_changed(params) || !params.wants_logprobs) highest = scan(row, scratch.peaks);
    if (!std::isfinite(highest)) return;
    sampled.finite = 1;
    sampled.token = choose(row, highest, params, scratch);
    sampled.logprob = static_cast<float>(raw.values[sampled.token] - normaliser);
}

}  // namespace
}  // namespace cortex

extern "C" size_t cortex_sample_scratch_bytes(const cortex_pool *pool, int32_t vocab_size) {
    return cortex::Scratch::bytes(vocab_size) * static_cast<std::size_t>(pool->threads());
}

extern "C" void cortex_sample(cortex_pool *pool, const cortex_sampling *sampling, void *scratch) {
    // Behind the choice of tokens stands the end of a step: until the next one others need the cores, those who
    // hand the tokens on first of all. One row is the caller's own work.
    if (sampling->num_rows == 1) pool->rest();
    pool->run(sampling->num_rows, [&](int row, int worker) {
        cortex::sample_row(*sampling, row, cortex::Scratch(scratch, worker, sampling->vocab_size));
    });
    pool->rest();
}
