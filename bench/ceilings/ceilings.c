/* Loops that do one thing as fast as this processor can; compiled with -march=native. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Independent accumulators, in registers if the loops over them are unrolled: as many as the latency and
 * throughput of a multiply-add ask for. */
#define CHAINS 12

/* Add up `bytes` (a multiple of 256) at `data`. */
int64_t read_all(const void *data, size_t bytes) {
    const __m256i *p = data;
    __m256i sums[8] = {0};
    for (size_t i = 0; i < bytes / 32; i += 8)
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(p + i + j));
    for (int j = 1; j < 8; j++) sums[0] = _mm256_add_epi64(sums[0], sums[j]);
    return _mm256_extract_epi64(sums[0], 0) + _mm256_extract_epi64(sums[0], 1) +
           _mm256_extract_epi64(sums[0], 2) + _mm256_extract_epi64(sums[0], 3);
}

#ifdef __AVX512F__
typedef __m512 floats;
#define FLOATS(operation) _mm512_##operation##_ps
#else
typedef __m256 floats;
#define FLOATS(operation) _mm256_##operation##_ps
#endif

/* Returns multiply-adds of float32 done; `out` keeps the compiler from leaving them out. */
int64_t multiply_floats(int64_t rounds, float *out) {
    floats sums[CHAINS], a = FLOATS(set1)(0.5f), b = FLOATS(set1)(0.25f);
    for (int j = 0; j < CHAINS; j++) sums[j] = FLOATS(set1)((float)j);
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = FLOATS(fmadd)(sums[j], a, b);
    for (int j = 1; j < CHAINS; j++) sums[0] = FLOATS(add)(sums[0], sums[j]);
    FLOATS(storeu)(out, sums[0]);
    return rounds * CHAINS * (int64_t)(sizeof(floats) / sizeof(float));
}

/* Returns multiply-adds of bfloat16 done, with the widest instructions there are: tiles where the system lets us have
 * them, pairs, or floats. */
int64_t multiply_bf16(int64_t rounds, float *out) {
#ifdef __AMX_BF16__
    if (syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tiles */) == 0) {
        /* Constant: some compilers do not know that all of it is read. */
        static const struct {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } __attribute__((aligned(64))) shapes = {
            .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
        _tile_loadconfig(&shapes);
        for (int64_t i = 0; i < rounds / 8; i++) {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 5);
            _tile_dpbf16ps(2, 4, 5);
            _tile_dpbf16ps(3, 4, 5);
        }
        _tile_release();
        return rounds / 8 * 4 * 16 * 16 * 32;
    }
#endif
#ifdef __AVX512BF16__
    __m512 sums[CHAINS];
    __m512bh a = (__m512bh)_mm512_set1_ps(0.5f), b = (__m512bh)_mm512_set1_ps(0.25f);
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_set1_ps((float)j);
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_dpbf16_ps(sums[j], a, b);
    for (int j = 1; j < CHAINS; j++) sums[0] = _mm512_add_ps(sums[0], sums[j]);
    _mm512_storeu_ps(out, sums[0]);
    return rounds * CHAINS * 32;
#else
    return multiply_floats(rounds, out);
#endif
}

/* The widest multiply-add of bytes there is: into int32 with VNNI, else in pairs into int16, which is all that
 * AVX2 has. */
#ifdef __AVX512VNNI__
typedef __m512i bytes;
#define BYTES(operation) _mm512_##operation
#define STORE_BYTES _mm512_storeu_si512
static inline bytes multiply_add(bytes sum, bytes a, bytes b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
typedef __m256i bytes;
#define BYTES(operation) _mm256_##operation
#define STORE_BYTES _mm256_storeu_si256
static inline bytes multiply_add(bytes sum, bytes a, bytes b) {
    __asm__("" : "+x"(a)); /* or the product would be computed once */
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b));
}
#endif

/* Returns multiply-adds of bytes done. */
int64_t multiply_bytes(int64_t rounds, int32_t *out) {
    bytes sums[CHAINS] = {0}, a = BYTES(set1_epi8)(out[0] & 3), b = BYTES(set1_epi8)(out[1] & 3);
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = multiply_add(sums[j], a, b);
    for (int j = 1; j < CHAINS; j++) sums[0] = BYTES(add_epi32)(sums[0], sums[j]);
    STORE_BYTES((bytes *)out, sums[0]);
    return rounds * CHAINS * (int64_t)sizeof(bytes);
}
