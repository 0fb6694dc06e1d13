/* Loops that do one thing as fast as this processor can; compiled with -march=native, by GCC or Clang. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Independent accumulators, in registers if the loops over them are unrolled: as many as the latency and
 * throughput of a multiply-add ask for. */
#define CHAINS 12

#define LINES 8
#define LINE 64
#ifdef __AVX512F__
#define REGISTER 64
#elif defined __AVX2__
#define REGISTER 32
#else
#define REGISTER 16
#endif

typedef uint64_t words __attribute__((vector_size(REGISTER)));

/* Add `bytes` at `data` to `total`, as so many streams side by side which begin at equal distances; fetch what lies
 * `ahead` bytes further on in each, into the first cache (`locality` 3) or the second (2), or nothing (0). */
static inline __attribute__((always_inline)) void read_streams(words *total, const char *data, size_t bytes,
                                                               int streams, size_t ahead, int locality) {
    const size_t each = bytes / streams, step = LINES / streams * LINE;
    words sums[LINES] = {0};
    for (size_t i = 0; i < each; i += step)
#pragma GCC unroll 8
        for (int j = 0; j < LINES; j++) {
            const char *line = data + j % streams * each + i + j / streams * LINE;
            if (locality == 3) __builtin_prefetch(line + ahead, 0, 3);
            if (locality == 2) __builtin_prefetch(line + ahead, 0, 2);
#pragma GCC unroll 4
            for (int k = 0; k < LINE / REGISTER; k++) sums[j] += ((const words *)line)[k];
        }
    for (int j = 0; j < LINES; j++) *total += sums[j];
}

/* Which of these is fastest depends on the processor, and on which cache or memory the data comes from. */
const int32_t read_patterns = 5;

/* Add up the 64-bit words of `bytes` (a multiple of 512) at `data` (a multiple of 64), `passes` times. */
uint64_t read_all(const void *data, size_t bytes, int64_t passes, int32_t pattern) {
    words total = {0};
    for (int64_t pass = 0; pass < passes; pass++) {
        __asm__ volatile("" ::: "memory"); /* or one pass would do for all */
        switch (pattern) {
        case 0: read_streams(&total, data, bytes, 1, 0, 0); break;
        case 1: read_streams(&total, data, bytes, 1, 1024, 3); break;
        case 2: read_streams(&total, data, bytes, 4, 1024, 3); break;
        case 3: read_streams(&total, data, bytes, 4, 4096, 2); break;
        case 4: read_streams(&total, data, bytes, 8, 2048, 2); break;
        }
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(words) / sizeof(uint64_t); i++) sum += total[i];
    return sum;
}

/* Returns multiply-adds of float32 done; `out` keeps the compiler from leaving them out. */
int64_t multiply_floats(int64_t rounds, float *out) {
    typedef float floats __attribute__((vector_size(REGISTER)));
    const floats zeros = {0}, a = zeros + 0.5f, b = zeros + 0.25f;
    floats sums[CHAINS];
    for (int j = 0; j < CHAINS; j++) sums[j] = zeros + (float)j;
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = sums[j] * a + b;
    for (int j = 1; j < CHAINS; j++) sums[0] += sums[j];
    memcpy(out, &sums[0], sizeof(floats));
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
 * AVX2 has; elsewhere, where no instruction is known here, into bytes. */
#ifdef __AVX512VNNI__
typedef __m512i bytes;
static inline bytes multiply_add(bytes sum, bytes a, bytes b) { return _mm512_dpbusd_epi32(sum, a, b); }
#elif defined __AVX2__
typedef __m256i bytes;
static inline bytes multiply_add(bytes sum, bytes a, bytes b) {
    __asm__("" : "+x"(a) : "x"(sum)); /* or the product would be computed once */
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b));
}
#else
typedef uint8_t bytes __attribute__((vector_size(16)));
static inline bytes multiply_add(bytes sum, bytes a, bytes b) { return sum * a + b; }
#endif

/* Returns multiply-adds of bytes done. */
int64_t multiply_bytes(int64_t rounds, int32_t *out) {
    bytes sums[CHAINS], a, b;
    memset(&a, out[0], sizeof(bytes));
    memset(&b, out[1], sizeof(bytes));
    for (int j = 0; j < CHAINS; j++) memset(&sums[j], j, sizeof(bytes)); /* chains that begin alike would be one */
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = multiply_add(sums[j], a, b);
    for (int j = 1; j < CHAINS; j++) sums[0] ^= sums[j];
    memcpy(out, &sums[0], sizeof(bytes));
    return rounds * CHAINS * (int64_t)sizeof(bytes);
}
