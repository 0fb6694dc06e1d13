// The tile registers of AMX: eight matrices of up to 16 rows of 64 bytes each, and what multiplies them.
//
// A register is named by a number that is known when compiling. `Tiles` gives them their shapes and owns them: they
// hold nothing before it, and nothing afterwards. Whoever holds one calls nothing that makes another.
//
// A product C += A B takes A as rows of inputs, and B as rows of pairs: what row k of B is multiplied with is the pair k
// of a row of A. Row r of C depends on row r of A alone: its bits are the same however many rows there are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cortex {

constexpr int kMostTileRows = 16;
constexpr std::size_t kTileRowBytes = 64;

// What LDTILECFG reads: palette 1, then of each register the bytes of a row and the number of rows.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};

    constexpr TileShapes &set(int tile, int num_rows, std::size_t bytes = kTileRowBytes) {
        rows[tile] = static_cast<std::uint8_t>(num_rows);
        row_bytes[tile] = static_cast<std::uint16_t>(bytes);
        return *this;
    }
};

}  // namespace cortex

// Tests name a header here that emulates the instructions.
#ifdef CORTEX_TILES
#include CORTEX_TILES
#else

namespace cortex {

// In assembly, because compilers' intrinsics take no template's argument for a register, and some of GCC's do not say
// that they read memory.
inline void load_tile_shapes(const TileShapes &shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
inline void release_tiles() { asm volatile("tilerelease"); }

template <int T>
inline void zero_tile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
// Rows lie `stride` bytes apart.
template <int T>
inline void load_tile(const void *rows, std::size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(T) : "memory");
}
// The same of what is not used again soon: in the first cache it does not take the place of what is.
template <int T>
inline void load_passing_tile(const void *rows, std::size_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void store_tile(void *rows, std::size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(T) : "memory");
}

// C += A B of bfloat16, in float32: of each pair of pairs the even products and the odd ones are summed apart
// and then added. Numbers below 2^-126 count as 0.
template <int C, int A, int B>
inline void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace cortex

#endif

namespace cortex {

// The calling thread's tile registers, in these shapes. A thread that holds none costs a context switch nothing more.
class Tiles {
  public:
    explicit Tiles(const TileShapes &shapes) { load_tile_shapes(shapes); }
    Tiles(const Tiles &) = delete;
    Tiles &operator=(const Tiles &) = delete;
    ~Tiles() { release_tiles(); }
};

}  // namespace cortex
