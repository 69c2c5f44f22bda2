// A program that writes is killed with SIGKILL, again and again, on the same store.
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "kill_state.hpp"
#include "storage_support.hpp"

extern char** environ;

namespace sage::storage {
namespace {

// The writer, its standard output in `output`.
pid_t start_writer(const std::string& directory, int& output) {
    int ends[2];
    if (pipe(ends) != 0) {
        throw IoError("pipe", errno);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    std::string program = SAGE_KILL_WRITER;
    std::string argument = directory;
    char* arguments[] = {program.data(), argument.data(), nullptr};
    pid_t process = 0;
    const int code = posix_spawn(&process, program.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (code != 0) {
        throw IoError("cannot start " + program, code);
    }
    output = ends[0];
    return process;
}

TEST(KilledWriter, LosesNothingThatItAcknowledged) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    std::mt19937 random(7);
    std::array<std::uint64_t, 4> acknowledged{};
    for (int turn = 0; turn < 15; ++turn) {
        int output = -1;
        const pid_t process = start_writer(directory, output);
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 150);
        bool killed = false;
        std::string text;
        char buffer[4096];
        for (ssize_t count = 1; count > 0;) {
            // The first line says that the store is open; then it may die at any moment.
            if (!killed && !text.empty() && std::chrono::steady_clock::now() >= end) {
                EXPECT_EQ(kill(process, SIGKILL), 0);
                killed = true;
            }
            count = read(output, buffer, sizeof buffer);
            text.append(buffer, count > 0 ? static_cast<std::size_t>(count) : 0);
        }
        close(output);
        int status = 0;
        ASSERT_EQ(waitpid(process, &status, 0), process);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the writer ended by itself: " << status;
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t line_end = text.find('\n', begin);
            ASSERT_NE(line_end, std::string::npos);
            const auto thread = static_cast<std::size_t>(text[begin] - '0');
            const std::uint64_t number = std::stoull(text.substr(begin + 2));
            acknowledged.at(thread) = std::max(acknowledged.at(thread), number);
            begin = line_end + 1;
        }
        Counters found;
        Store::verify(system_files(), directory, Counters::application);
        Store::read(system_files(), directory, Counters::application, found.visitor());
        for (std::size_t thread = 0; thread < acknowledged.size(); ++thread) {
            ASSERT_GE(found.last[thread], acknowledged[thread]) << "turn " << turn;
        }
    }
    EXPECT_GT(acknowledged[0] + acknowledged[1] + acknowledged[2] + acknowledged[3], 100U);
}

}  // namespace
}  // namespace sage::storage
