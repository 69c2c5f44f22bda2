// A program that writes to a store until it is killed: kill_writer FOLDER.
//
// Four threads append "<thread>:<n>" with rising n; a fifth makes checkpoints. What is acknowledged is printed, a line
// each.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kill_state.hpp"

namespace {

using sage::storage::Counters;

void run(const std::string& directory) {
    Counters counters;
    sage::storage::LogOptions options;
    options.segment_bytes_max = 20000;
    const auto store = sage::storage::Store::open(sage::storage::system_files(), directory,
                                                  sage::storage::Counters::application, options, counters.visitor());
    std::mutex mutex;
    std::vector<std::jthread> threads;
    for (std::size_t thread = 0; thread < counters.last.size(); ++thread) {
        threads.emplace_back([&, thread] {
            for (;;) {
                std::string record;
                {
                    const std::lock_guard<std::mutex> guard(mutex);
                    record = std::to_string(thread) + ":" + std::to_string(counters.last[thread] + 1);
                    counters.sequence = store->log().append(std::as_bytes(std::span(record)));
                    counters.apply(record);
                }
                store->log().settle(store->log().last_sequence());
                record += '\n';
                // One write: a line of a pipe is there whole or not at all. A reader that is gone ends the program.
                if (write(STDOUT_FILENO, record.data(), record.size()) != static_cast<ssize_t>(record.size())) {
                    _exit(3);
                }
            }
        });
    }
    for (;;) {
        Counters copy;
        {
            const std::lock_guard<std::mutex> guard(mutex);
            copy = counters;
        }
        store->checkpoint(copy.sequence, [&](sage::storage::SnapshotWriter& writer) {
            const std::string text = copy.text();
            writer.add_section("counters", std::as_bytes(std::span(text)));
        });
        usleep(3000);
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fputs("usage: kill_writer FOLDER\n", stderr);
        return 2;
    }
    try {
        run(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
