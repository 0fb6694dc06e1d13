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

// Decides from what it is told, reads no clock and no file. Used by the pool's caller alone.
class Governor {
  public:
    explicit Governor(int threads) : delays_ns_(threads), threads_(threads), usable_(threads) {}

    // A phase has ended at `now_ns`, `busy_ns` after it began: how many threads may take part in the next.
    // take_delay_ns(worker) is what has been added to a worker's RunDelay since it was last asked for.
    template <class TakeDelay>
    int after_phase(std::uint64_t now_ns, std::uint64_t busy_ns, TakeDelay &&take_delay_ns) {
        busy_ns_ += busy_ns;
        if (usable_ < threads_ && now_ns >= next_trial_ns_) {
            usable_ = threads_;
            busy_ns_ = 0;
            take_delays(take_delay_ns);
        } else if (usable_ > 1 && busy_ns_ >= kWindowNs) {
            take_delays(take_delay_ns);
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
    // Parts of a window that a worker may wait without being held up by others, at least and at most.
    static constexpr std::uint64_t kLeastTolerated = 20, kMostTolerated = 4;

    template <class TakeDelay>
    void take_delays(TakeDelay &take_delay_ns) {
        for (int worker = 0; worker < threads_; ++worker) delays_ns_[worker] = take_delay_ns(worker);
    }

    // What the workers have lost that others hold up. Whoever is woken waits a moment for his core, 0.05 to 0.2 ms
    // each time where it has to be woken itself: many workers' moments add up to more than a busy neighbour takes.
    // But they wait at the same time, and before they have taken anything; and what all have in common no thread less
    // would win back.
    double lost_ns(std::uint64_t busy_ns) {
        sorted_ns_.assign(delays_ns_.begin(), delays_ns_.begin() + usable_);
        const auto middle = sorted_ns_.begin() + (usable_ - 1) / 2;
        std::nth_element(sorted_ns_.begin(), middle, sorted_ns_.end());
        const std::uint64_t tolerated =
            std::min(std::max(2 * *middle, busy_ns / kLeastTolerated), busy_ns / kMostTolerated);
        double lost = 0.0;
        for (const std::uint64_t delay : sorted_ns_)
            if (delay > tolerated) lost += static_cast<double>(delay);
        return lost;
    }

    // While one of n threads waits for its core, the others soon wait for its item: all n do the work of n times the
    // time that is left, and n - 1 undisturbed ones that of n - 1. They are even where 1/n of the time is lost; a
    // busy neighbour takes half of a core.
    void judge(std::uint64_t now_ns) {
        const std::uint64_t busy_ns = busy_ns_;
        busy_ns_ = 0;
        const double lost = lost_ns(busy_ns) / static_cast<double>(busy_ns);
        if (lost * usable_ < 0.8) {
            if (usable_ == threads_) pause_ns_ = kShortestPauseNs;
            return;
        }
        usable_ = std::max(1, usable_ - std::max(1, static_cast<int>(lost + 0.5)));
        next_trial_ns_ = now_ns + pause_ns_;
        pause_ns_ = std::min(2 * pause_ns_, kLongestPauseNs);
    }

    std::vector<std::uint64_t> delays_ns_, sorted_ns_;
    int threads_, usable_;
    std::uint64_t busy_ns_ = 0, next_trial_ns_ = 0, pause_ns_ = kShortestPauseNs;
};

}  // namespace cortex
