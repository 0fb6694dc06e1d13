// What a decoder does to one row besides products and attention. Nothing here depends on other rows.
#pragma once

#include "abi.h"

namespace cortex {

// out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
void rms_norm(const float *x, const float *weight, int size, float eps, float *out);

// out = embedding[token] * scale; scale is applied as bfloat16 models do, to the bfloat16 value in float.
void embed(const uint16_t *embedding, int token, int size, float scale, float *out);

// Turn one head [head_dim] by its position, in place.
void rotate(const cortex_rope &rope, int position, float *head);

// out[i] = activation(gate[i]) * up[i]; out may be gate.
void activate(int activation, const float *gate, const float *up, int size, float *out);

// x = cap * tanh(x / cap), in place.
void softcap(float cap, int size, float *x);

}  // namespace cortex
