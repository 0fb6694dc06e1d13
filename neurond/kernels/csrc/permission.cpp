// What a process has to ask Linux for before it uses the variant's instructions.
#include <cerrno>
#include <cstdint>

#include "abi.h"
#include "simd.h"

#if defined(CORTEX_AMX) && !defined(CORTEX_TILES)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern "C" int32_t cortex_ask_permission(void) {
#if defined(CORTEX_AMX) && !defined(CORTEX_TILES)
    // Tiles make a thread's saved state nine times as large, so that no process has them unless it asks.
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: Linux 5.16
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) ? errno : 0;
#else
    return 0;
#endif
}
