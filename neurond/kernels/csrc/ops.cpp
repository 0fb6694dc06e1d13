#include "ops.h"

#include <algorithm>
#include <cmath>

#include "activation.h"
#include "approx.h"
#include "simd.h"

namespace cortex {
namespace {

// Call f(offset, lanes) for each 16 of `size`, the last ones of which may be fewer.
template <class F>
void each_vector(int size, F &&f) {
    for (int i = 0; i < size; i += kLanes) f(i, std::min(kLanes, size - i));
}

F16 load(const float *p, int lanes) {
    if (lanes == kLanes) return cortex::load(p);
    float padded[kLanes] = {};
    std::copy_n(p, lanes, padded);
    return cortex::load(padded);
}

void store(float *p, F16 v, int lanes) {
    if (lanes == kLanes) return cortex::store(p, v);
    float padded[kLanes];
    cortex::store(padded, v);
    std::copy_n(padded, lanes, p);
}

template <class Activation>
void gate(Activation activation, const float *gate, const float *up, int size, float *out) {
    each_vector(size, [&](int i, int lanes) {
        store(out + i, activation(load(gate + i, lanes), Sigmoid()) * load(up + i, lanes), lanes);
    });
}

}  // namespace

void rms_norm(const float *x, const float *weight, int size, float eps, float *out) {
    F16 squares = zero();
    each_vector(size, [&](int i, int lanes) {
        const F16 values = load(x + i, lanes);
        squares = fma(values, values, squares);
    });
    const F16 scale = splat(1.0f / std::sqrt(sum(squares) / static_cast<float>(size) + eps));
    each_vector(size, [&](int i, int lanes) {
        store(out + i, load(x + i, lanes) * scale * load(weight + i, lanes), lanes);
    });
}

void embed(const uint16_t *embedding, int token, int size, float scale, float *out) {
    const bf16 *row = embedding + static_cast<std::size_t>(token) * static_cast<std::size_t>(size);
    const int whole = size / kLanes * kLanes;
    for (int i = 0; i < whole; i += kLanes) store(out + i, load_bf16(row + i) * splat(scale));
    for (int i = whole; i < size; ++i) out[i] = from_bf16(row[i]) * scale;
}

void rotate(const cortex_rope &rope, int position, float *head) {
    const int half_dim = rope.rotary_dim / 2;
    const std::size_t row = static_cast<std::size_t>(position) * static_cast<std::size_t>(half_dim);
    float *first = head, *second = head + half_dim;
    each_vector(half_dim, [&](int i, int lanes) {
        const F16 cos = load(rope.cos + row + i, lanes), sin = load(rope.sin + row + i, lanes);
        const F16 x = load(first + i, lanes), y = load(second + i, lanes);
        store(first + i, x * cos - y * sin, lanes);
        store(second + i, y * cos + x * sin, lanes);
    });
}

void activate(int activation, const float *x, const float *up, int size, float *out) {
    with_activation(activation, [&](auto f) { gate(f, x, up, size, out); });
}

void softcap(float cap, int size, float *x) {
    each_vector(size, [&](int i, int lanes) { store(x + i, softcap(load(x + i, lanes), cap), lanes); });
}

}  // namespace cortex
