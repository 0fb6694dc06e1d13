// Memory that is cut into arrays.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cortex {

// Cuts memory into arrays; without memory it tells how much they take.
class Carver {
  public:
    explicit Carver(void *memory) : begin_(reinterpret_cast<std::uintptr_t>(memory)) {}

    template <class T>
    T *take(std::size_t count) {
        T *array = reinterpret_cast<T *>(begin_ + used_);
        used_ += (sizeof(T) * count + 63) / 64 * 64;
        return array;
    }
    std::size_t used() const { return used_; }

  private:
    std::uintptr_t begin_;
    std::size_t used_ = 0;
};

}  // namespace cortex
