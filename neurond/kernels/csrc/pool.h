// Threads that claim work in small pieces: a phase is a number of items, whoever is free takes the next.
//
// Nobody waits at a barrier for a thread that the kernel has taken off its core before it claimed something,
// and threads that find nothing to do spin for some microseconds and then sleep.
#pragma once

#include <type_traits>

struct cortex_pool {
    virtual ~cortex_pool() = default;

    // Threads that may work at once, the caller included: workers have numbers below this.
    virtual int threads() const = 0;

    // Call f(item, worker) once for each item in [0, items), on any thread, in any order; return when all are
    // done. f must not throw. Not reentrant; one caller at a time.
    template <class F>
    void run(int items, F &&f) {
        if (items == 1 || threads() == 1) {
            for (int item = 0; item < items; ++item) f(item, 0);
            return;
        }
        using Plain = std::remove_reference_t<F>;
        run_claimed(
            items, [](void *context, int item, int worker) { (*static_cast<Plain *>(context))(item, worker); },
            const_cast<void *>(static_cast<const void *>(&f)));
    }

    // Nothing is to be done for a while: whoever waits sleeps at once, and leaves his core to others. Ends with
    // the next run().
    virtual void rest() = 0;

  protected:
    using Call = void (*)(void *context, int item, int worker);
    virtual void run_claimed(int items, Call call, void *context) = 0;
};
