// How many threads of a pool are worth using now.
//
// A thread that the kernel keeps off its core, for something else wants it, holds up the phase whose item it has
// taken: two threads beside one foreign busy process are slower than one alone. The kernel counts the time that
// a thread was ready but did not run; where that is more of the time spent in phases than a thread is worth, the
// pool gives up a thread for a while, and then tries again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

namespace cortex {

// Nanoseconds that one thread has waited for a core since it began.
class RunDelay {
  public:
    RunDelay() = default;
    RunDelay(const RunDelay &) = delete;
    RunDelay &operator=(const RunDelay &) = delete;
    ~RunDelay() { close_file(); }

    // Watch the calling thread from now on.
    void watch_caller() {
        close_file();
        file_ = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        last_ns_ = total_ns();
    }

    // What has been added since the last call; 0 where the kernel does not tell.
    std::uint64_t take() {
        const std::uint64_t total = total_ns(), added = total - std::min(total, last_ns_);
        last_ns_ = total;
        return added;
    }

  private:
    std::uint64_t total_ns() const {
        char text[96];
        const ssize_t length = file_ < 0 ? 0 : pread(file_, text, sizeof text - 1, 0);
        text[std::max<ssize_t>(length, 0)] = 0;
        unsigned long long running = 0, waiting = 0;
        return std::sscanf(text, "%llu %llu", &running, &waiting) == 2 ? waiting : 0;
    }

    void close_file() {
        if (file_ >= 0) close(file_);
    }

    int file_ = -1;
    std::uint64_t last_ns_ = 0;
};

// Used by the pool's caller alone, but for watch(), which each worker calls before the first phase.
class Governor {
  public:
    explicit Governor(int threads) : delays_(threads), threads_(threads), usable_(threads) {}

    // Watch the calling thread as worker `worker`.
    void watch(int worker) { delays_[worker].watch_caller(); }

    // A phase has ended at `now_ns`, `busy_ns` after it began: how many threads may take part in the next.
    int after_phase(std::uint64_t now_ns, std::uint64_t busy_ns) {
        busy_ns_ += busy_ns;
        if (usable_ < threads_ && now_ns >= next_trial_ns_) {
            usable_ = threads_;
            begin_window();
        } else if (usable_ > 1 && busy_ns_ >= kWindowNs) {
            judge(now_ns);
        }
        return usable_;
    }

  private:
    // Many turns of the kernel's scheduler (3 to 4 ms each): what a step's own messages cost other processes comes
    // in bursts of a millisecond, and is no reason to give up anything.
    static constexpr std::uint64_t kWindowNs = 40'000'000;
    static constexpr std::uint64_t kShortestPauseNs = 50'000'000;
    static constexpr std::uint64_t kLongestPauseNs = 800'000'000;

    void begin_window() {
        busy_ns_ = 0;
        delayed_ns();
    }

    std::uint64_t delayed_ns() {
        std::uint64_t sum = 0;
        for (int worker = 0; worker < threads_; ++worker) {
            const std::uint64_t delay = delays_[worker].take();
            if (worker < usable_) sum += delay;
        }
        return sum;
    }

    // While one of n threads waits for its core, the others soon wait for its item: all n do the work of n times the
    // time that is left, and n - 1 undisturbed ones that of n - 1. They are even where 1/n of the time is lost; a
    // busy neighbour takes half of a core.
    void judge(std::uint64_t now_ns) {
        const std::uint64_t busy_ns = busy_ns_;
        busy_ns_ = 0;
        const double lost = static_cast<double>(delayed_ns()) / static_cast<double>(busy_ns);
        if (lost * usable_ < 0.8) {
            if (usable_ == threads_) pause_ns_ = kShortestPauseNs;
            return;
        }
        usable_ = std::max(1, usable_ - std::max(1, static_cast<int>(lost + 0.5)));
        next_trial_ns_ = now_ns + pause_ns_;
        pause_ns_ = std::min(2 * pause_ns_, kLongestPauseNs);
    }

    std::vector<RunDelay> delays_;
    int threads_, usable_;
    std::uint64_t busy_ns_ = 0, next_trial_ns_ = 0, pause_ns_ = kShortestPauseNs;
};

}  // namespace cortex
