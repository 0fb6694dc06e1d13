/* The C interface between Python and the CPU kernels; neurond/kernels/abi.py mirrors every struct.
 *
 * Nothing here allocates what it returns, keeps a pointer beyond what is said, or throws. Pointers are to
 * memory of this process, C-contiguous, of the host's byte order; a NULL where a field may be absent. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CORTEX_ABI 8             /* raised when results change, too: see abi.py */
#define CORTEX_BLOCK_TOKENS 16   /* token slots of one block of K/V */
#define CORTEX_GROUP 32          /* consecutive inputs that share a scale in int8 and int4 weights */

/* Values of cortex_linear.format; the first two also of kv_format, what keys and values are kept in. */
enum { CORTEX_BF16 = 0, CORTEX_INT8 = 1, CORTEX_INT4 = 2 };
/* Values of cortex_layer.activation. */
enum { CORTEX_SILU = 0, CORTEX_GELU_TANH = 1, CORTEX_GELU = 2 };

typedef struct cortex_pool cortex_pool;

/* The variant that this library was compiled as: "amx", "avx512", "avx2", "portable". */
const char *cortex_variant(void);
int32_t cortex_abi(void);

/* Ask the system for what the variant needs besides the processor, for all threads of this process; before anything
 * else but the two above. Returns 0, or the errno of a system that refuses: then nothing may be computed. */
int32_t cortex_ask_permission(void);

/* Threads. `threads` >= 1 counts the caller. NULL if threads cannot be started. */
cortex_pool *cortex_pool_create(int32_t threads);
void cortex_pool_destroy(cortex_pool *pool);

/* A matrix product y = x w^T + bias with w [out_features, in_features] in this variant's layout. */
typedef struct {
    int32_t format;
    int32_t out_features;
    int32_t in_features; /* a multiple of CORTEX_GROUP */
    int32_t reserved;
    const void *data;  /* cortex_packed_bytes() of them, aligned to 64 */
    const float *bias; /* [out_features] or NULL */
} cortex_linear;

size_t cortex_packed_bytes(int32_t format, int32_t out_features, int32_t in_features);

/* Pack rows [first_row, first_row + rows) of w, given as float32 [rows, in_features], into `data`, the
 * whole matrix's buffer, zeroed before the first call. first_row is a multiple of 16; so is `rows` but for
 * the last call. Calls for different rows may run in different threads. */
void cortex_pack_rows(int32_t format, int32_t out_features, int32_t in_features, int32_t first_row,
                      int32_t rows, const float *w, void *data);

/* What the packed rows stand for, as float32 [rows, in_features]: the weights that products are made with. */
void cortex_unpack_rows(const cortex_linear *linear, int32_t first_row, int32_t rows, float *w);

/* y [rows, out_features] = x [rows, in_features] w^T + bias. For tests and benchmarks; scratch is taken. */
void cortex_linear_apply(cortex_pool *pool, const cortex_linear *linear, int32_t rows, const float *x,
                         float *y);

/* Rotary tables of neox-style halves: dimension i turns with dimension i + rotary_dim / 2. */
typedef struct {
    int32_t num_positions;
    int32_t rotary_dim; /* even, at most head_dim; what is beyond is left as it is */
    const float *cos;   /* [num_positions, rotary_dim / 2] */
    const float *sin;
} cortex_rope;

typedef struct {
    const float *input_norm;          /* [hidden] */
    cortex_linear qkv;                /* out: q heads, then k heads, then v heads */
    const float *q_norm;              /* [head_dim] or NULL: RMS norm of each head before rotation */
    const float *k_norm;
    const float *sinks;               /* [num_heads] or NULL */
    cortex_linear o;
    const float *post_attention_norm; /* [hidden] or NULL: norm of attention's output before it is added */
    const float *pre_ffn_norm;        /* [hidden] */
    cortex_linear gate_up;            /* out: gate, then up; 2 * intermediate */
    cortex_linear down;
    const float *post_ffn_norm;       /* [hidden] or NULL */
    int32_t num_heads;
    int32_t num_kv_heads;
    int32_t head_dim; /* a multiple of 16 */
    int32_t rope;     /* index into cortex_model.ropes, or -1 for none */
    int32_t window;   /* keys that a query sees, its own included; 0 for all */
    int32_t activation;
    float scale;
    float softcap; /* 0 for none */
} cortex_layer;

/* A decoder: embedding, layers, norm, head. Norm weights are multiplied as they are (Gemma's 1 + w is
 * folded in). The structs and all they point to outlive every call that is given them. */
typedef struct {
    int32_t vocab_size;
    int32_t hidden;
    int32_t num_layers;
    int32_t num_ropes;
    float norm_eps;
    float embedding_scale;
    float final_softcap; /* 0 for none */
    int32_t reserved;
    const uint16_t *embedding; /* bfloat16 [vocab_size, hidden] */
    const float *final_norm;   /* [hidden] */
    cortex_linear head;
    const cortex_layer *layers;
    const cortex_rope *ropes;
} cortex_model;

/* Bytes of one layer's K/V pages for `num_blocks` blocks. */
size_t cortex_kv_bytes(const cortex_layer *layer, int32_t kv_format, int32_t num_blocks);

/* One step: see neurond/engine/batch.py for what the columns mean. */
typedef struct {
    int32_t num_tokens;    /* T */
    int32_t num_sequences; /* B */
    int32_t num_samples;   /* S */
    int32_t table_width;
    int32_t kv_format; /* of `kv` */
    int32_t num_embeds; /* E */
    const int32_t *token_ids;    /* [T] */
    const int32_t *positions;    /* [T] */
    const int32_t *slots;        /* [T] */
    const int32_t *cu_seqlens_q; /* [B + 1] */
    const int32_t *seq_lens_k;   /* [B] */
    const int32_t *block_tables; /* [B, table_width] */
    const int32_t *sample_rows;  /* [S] */
    float *logits;               /* [S, vocab_size], written, or NULL: they are not wanted */
    float *states;               /* [S, hidden], written, or NULL: sampled rows behind the last norm */
    const int32_t *two_way;      /* [B] or NULL: 1 where every query sees all keys that the window leaves */
    const int32_t *embed_rows;   /* [E] ascending indices into the T tokens */
    const float *embeds;         /* [E, hidden] what these have in place of their embedding */
} cortex_batch;

/* Bytes of scratch that a step of at most so many tokens and samples needs. */
size_t cortex_scratch_bytes(const cortex_model *model, const cortex_pool *pool, int32_t max_tokens,
                            int32_t max_sequences, int32_t max_samples);

/* Compute one step: write K/V of all T tokens into `kv` (one pointer per layer), and logits and states of the
 * sampled rows. Called from one thread at a time for one pool. The logits of a position are the same bits whatever
 * else is in the batch, however its prompt was cut, and however many threads work. Returns 0, or EINVAL where a token
 * is none of the vocabulary or a position is in none of the rotary tables: then nothing was written. */
int32_t cortex_step(cortex_pool *pool, const cortex_model *model, const cortex_batch *batch, void *const *kv,
                    void *scratch);

#ifdef __cplusplus
}
#endif
