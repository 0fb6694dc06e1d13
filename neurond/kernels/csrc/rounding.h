// Division of sizes that leave a rest.
#pragma once

namespace cortex {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace cortex
