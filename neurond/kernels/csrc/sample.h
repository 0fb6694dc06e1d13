/* The C interface of sampling; neurond/kernels/sample_abi.py mirrors it. What sampling means, and in which
 * order, is told in neurond/engine/sampler.py, which gives the same tokens but for rounding. */
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CORTEX_MAX_LOGPROBS 20

/* How the token of one row is chosen. */
typedef struct {
    uint64_t seed; /* with choice and step the key of the row's one random number */
    uint64_t choice;
    uint64_t step;
    const uint32_t *allowed; /* [(vocab_size + 31) / 32] a bit per token, lowest first; NULL allows all */
    int32_t first_repeated;  /* the row's part of `repeated`, */
    int32_t num_repeated;
    int32_t first_added; /* and of `added_tokens` and `added_values` */
    int32_t num_added;
    float repetition_penalty; /* over 0 */
    float temperature;        /* 0 takes the most likely token */
    int32_t top_k;            /* 0 for none */
    float top_p;              /* 1 for none */
    float min_p;              /* 0 for none */
    int32_t wants_logprobs;
    int32_t num_top; /* at most CORTEX_MAX_LOGPROBS, with logprobs only */
    int32_t reserved;
} cortex_sample_row;

/* The token chosen for one row. Log probabilities are natural and of the logits as they came. */
typedef struct {
    int32_t finite; /* 0: the logits allow no choice, and the rest means nothing */
    int32_t token;
    float logprob;
    int32_t num_top; /* what was asked for, at most vocab_size */
    int32_t top_tokens[CORTEX_MAX_LOGPROBS]; /* most likely first, among equals the lowest id */
    float top_logprobs[CORTEX_MAX_LOGPROBS];
} cortex_sampled;

typedef struct {
    int32_t num_rows; /* S */
    int32_t vocab_size;
    float *logits; /* [S, vocab_size], overwritten */
    const cortex_sample_row *rows; /* [S] */
    const int32_t *repeated;       /* tokens that the repetition penalty is for, distinct within a row */
    const int32_t *added_tokens;   /* tokens whose logits are changed by a value, */
    const float *added_values;     /* in order; more than one for a token add up */
    cortex_sampled *sampled;       /* [S], written */
} cortex_sampling;

/* Bytes of scratch that a call needs, aligned to 8. */
size_t cortex_sample_scratch_bytes(const cortex_pool *pool, int32_t vocab_size);

/* Choose a token for each row. Ids in the lists that are no tokens are passed over. What a row gets depends on
 * its logits and parameters alone: not on other rows, nor on the number of threads. */
void cortex_sample(cortex_pool *pool, const cortex_sampling *sampling, void *scratch);

#ifdef __cplusplus
}
#endif
