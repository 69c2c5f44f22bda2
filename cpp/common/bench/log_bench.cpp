// Appends per second, each of them durable, against the bare loop: write, fdatasync, write, fdatasync.
//
// Every benchmark writes 128-byte records to a file of its own in SAGE_BENCH_DIR (the current folder when it is not
// set): all on one disk, in one run.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sage/common/log.hpp"

namespace {

constexpr std::size_t record_bytes = 128;

std::string bench_directory() {
    const char* named = std::getenv("SAGE_BENCH_DIR");
    std::string name = std::string(named == nullptr ? "." : named) + "/sage-bench-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
        std::abort();
    }
    return name;
}

void bare_loop(benchmark::State& state) {
    const std::string directory = bench_directory();
    const int file = open((directory + "/bare").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    const std::vector<std::byte> record(record_bytes, std::byte{1});
    off_t end = 0;
    for (auto _ : state) {
        if (pwrite(file, record.data(), record.size(), end) != static_cast<ssize_t>(record.size()) ||
#ifdef __APPLE__
            fcntl(file, F_FULLFSYNC) != 0) {
#else
            fdatasync(file) != 0) {
#endif
            state.SkipWithError("write or sync failed");
            break;
        }
        end += static_cast<off_t>(record.size());
    }
    state.SetItemsProcessed(state.iterations());
    close(file);
    std::filesystem::remove_all(directory);
}

// One log for all threads of a run.
struct Shared {
    std::string directory;
    std::unique_ptr<sage::storage::Log> log;
};
Shared shared;

void commits(benchmark::State& state, sage::storage::SyncPolicy policy) {
    if (state.thread_index() == 0) {
        sage::storage::LogOptions options;
        options.policy = policy;
        options.group_delay_max = std::chrono::microseconds(state.range(0));
        shared.directory = bench_directory();
        shared.log = sage::storage::Log::create(sage::storage::system_files(), shared.directory,
                                                {{{'b', 'n', 'c', 'h'}, 1}, 1}, options);
    }
    const std::vector<std::byte> record(record_bytes, std::byte{1});
    for (auto _ : state) {
        benchmark::DoNotOptimize(shared.log->commit(record));
    }
    state.SetItemsProcessed(state.iterations());
    if (state.thread_index() == 0) {
        state.counters["records_per_sync"] =
            static_cast<double>(shared.log->last_sequence()) /
            static_cast<double>(std::max<std::uint64_t>(1, shared.log->sync_count()));
        shared.log.reset();
        std::filesystem::remove_all(shared.directory);
    }
}

BENCHMARK(bare_loop)->UseRealTime();
BENCHMARK_CAPTURE(commits, each, sage::storage::SyncPolicy::each)->Arg(0)->Threads(1)->Threads(8)->UseRealTime();
BENCHMARK_CAPTURE(commits, group, sage::storage::SyncPolicy::group)
    ->Arg(0)
    ->Arg(100)
    ->Threads(1)
    ->Threads(8)
    ->UseRealTime();
BENCHMARK_CAPTURE(commits, none, sage::storage::SyncPolicy::none)->Arg(0)->Threads(1)->UseRealTime();

}  // namespace
