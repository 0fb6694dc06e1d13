#include "pool.h"

#include <atomic>
#include <chrono>
#include <climits>
#include <exception>
#include <linux/futex.h>
#include <memory>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "abi.h"
#include "pool_governor.h"

namespace cortex {
namespace {

using Word = std::atomic<std::uint32_t>;
static_assert(sizeof(Word) == sizeof(std::uint32_t), "a futex is four plain bytes");

constexpr std::uint64_t kSpinNs = 60'000;

std::uint64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

void sleep_while(Word &word, std::uint32_t value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_all(Word &word) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

void ring(Word &word) {
    word.fetch_add(1);
    wake_all(word);
}

// Whether `ready` came true before a thread that waits should rather sleep.
template <class Ready>
bool spin_until(Ready ready) {
    const std::uint64_t end = now_ns() + kSpinNs;
    do {
        for (int i = 0; i < 32; ++i) {
            if (ready()) return true;
            relax();
        }
    } while (now_ns() < end);
    return false;
}

// Signals go to the process's other threads: what a worker is given is blocked from its first instruction on.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_;
};

class Pool final : public cortex_pool {
  public:
    explicit Pool(int threads)
        : threads_(threads), usable_(static_cast<std::uint32_t>(threads)), delays_(threads), governor_(threads) {}

    ~Pool() override {
        stop_.store(true);
        ring(bell_);
        ring(usable_);
        for (std::thread &thread : workers_) thread.join();
    }

    // Throws std::system_error if a thread cannot be started; the pool may then only be destroyed.
    void start() {
        const SignalsBlocked blocked;
        for (int worker = 1; worker < threads_; ++worker) workers_.emplace_back([this, worker] { work(worker); });
        for (std::uint32_t seen; (seen = watched_.load()) + 1 < static_cast<std::uint32_t>(threads_);)
            sleep_while(watched_, seen);
    }

    int threads() const override { return threads_; }

    void rest() override { resting_.store(true, std::memory_order_relaxed); }

  protected:
    void run_claimed(int items, Call call, void *context) override {
        const std::uint64_t began_ns = now_ns();
        if (usable_.load(std::memory_order_relaxed) == 1) {
            for (int item = 0; item < items; ++item) call(context, item, 0);
        } else {
            publish(items, call, context);
            take_items(0);
            await_others(static_cast<std::uint32_t>(items));
        }
        govern(began_ns);
    }

  private:
    // A phase's number of items and the next that nobody has taken, in one word: who raises the second and finds
    // it below the first has an item of the phase that the fields beside it describe, however late he comes.
    static std::uint32_t items_of(std::uint64_t claim) { return static_cast<std::uint32_t>(claim >> 32); }
    static std::uint32_t next_of(std::uint64_t claim) { return static_cast<std::uint32_t>(claim); }
    static bool open(std::uint64_t claim) { return next_of(claim) < items_of(claim); }

    void publish(int items, Call call, void *context) {
        call_ = call;
        context_ = context;
        finished_.store(0, std::memory_order_relaxed);
        resting_.store(false, std::memory_order_relaxed);
        claim_.store(static_cast<std::uint64_t>(items) << 32);
        if (sleepers_.load()) ring(bell_);
    }

    void take_items(int worker) {
        std::uint32_t taken = 0, items = 0;
        while (open(claim_.load(std::memory_order_relaxed))) {
            const std::uint64_t claim = claim_.fetch_add(1, std::memory_order_acquire);
            if (!open(claim)) break;
            items = items_of(claim);
            call_(context_, static_cast<int>(next_of(claim)), worker);
            ++taken;
        }
        if (!taken) return;
        if (finished_.fetch_add(taken) + taken == items && caller_sleeps_.load()) wake_all(finished_);
    }

    void await_others(std::uint32_t items) {
        auto all_done = [&] { return finished_.load(std::memory_order_acquire) == items; };
        if (spin_until(all_done)) return;
        // Its core is of more use to whoever was taken off his own.
        caller_sleeps_.store(true);
        for (std::uint32_t seen; (seen = finished_.load()) != items;) sleep_while(finished_, seen);
        caller_sleeps_.store(false);
    }

    void govern(std::uint64_t began_ns) {
        if (caller_ != std::this_thread::get_id()) {
            caller_ = std::this_thread::get_id();
            delays_[0].watch_caller();
        }
        const std::uint64_t now = now_ns();
        const auto usable = static_cast<std::uint32_t>(
            governor_.after_phase(now, now - began_ns, [this](int worker) { return delays_[worker].take(); }));
        if (usable_.load(std::memory_order_relaxed) == usable) return;
        if (usable_.exchange(usable) < usable) wake_all(usable_);
    }

    void work(int worker) {
        delays_[worker].watch_caller();
        ring(watched_);
        for (;;) {
            const std::uint32_t usable = usable_.load();
            if (stop_.load()) return;
            if (static_cast<std::uint32_t>(worker) >= usable) {
                sleep_while(usable_, usable);
                continue;
            }
            take_items(worker);
            await_items();
        }
    }

    void await_items() {
        auto wanted = [&] { return open(claim_.load()) || stop_.load(); };
        if (spin_until([&] { return wanted() || resting_.load(std::memory_order_relaxed); }) && wanted()) return;
        const std::uint32_t seen = bell_.load();
        sleepers_.fetch_add(1);
        if (!wanted()) sleep_while(bell_, seen);
        sleepers_.fetch_sub(1);
    }

    const int threads_;
    Call call_ = nullptr;
    void *context_ = nullptr;
    alignas(64) std::atomic<std::uint64_t> claim_{0};
    alignas(64) Word finished_{0};
    std::atomic<bool> caller_sleeps_{false};
    std::atomic<bool> resting_{false};
    // Words that threads sleep on: until a phase begins, until more threads are usable, until all are there.
    alignas(64) Word bell_{0};
    Word usable_;
    Word watched_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    alignas(64) std::vector<RunDelay> delays_;  // each watched by its worker, before the first phase
    Governor governor_;
    std::thread::id caller_;
    std::vector<std::thread> workers_;
};

}  // namespace
}  // namespace cortex

extern "C" {

cortex_pool *cortex_pool_create(int32_t threads) {
    try {
        auto pool = std::make_unique<cortex::Pool>(threads);
        pool->start();
        return pool.release();
    } catch (const std::exception &) {  // no threads or no memory
        return nullptr;
    }
}

void cortex_pool_destroy(cortex_pool *pool) { delete pool; }

}  // extern "C"
