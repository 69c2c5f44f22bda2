#include "sage/common/testing/killed_program.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

extern char** environ;

namespace sage::storage::testing {
namespace {

// The program, what it prints in `output`.
pid_t start(const std::string& program, const std::string& folder, int& output) {
    int ends[2];
    if (pipe(ends) != 0) {
        throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    std::string name = program;
    std::string argument = folder;
    char* arguments[] = {name.data(), argument.data(), nullptr};
    pid_t process = 0;
    const int code = posix_spawn(&process, program.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (code != 0) {
        close(ends[0]);
        throw std::runtime_error("cannot start " + program + ": " + std::strerror(code));
    }
    output = ends[0];
    return process;
}

}  // namespace

std::string output_until_killed(const std::string& program, const std::string& folder,
                                std::chrono::milliseconds delay) {
    int output = -1;
    const pid_t process = start(program, folder, output);
    const auto end = std::chrono::steady_clock::now() + delay;
    bool killed = false;
    std::string text;
    char buffer[4096];
    for (ssize_t count = 1; count > 0;) {
        // The first line says that the store is open; then it may die at any moment.
        if (!killed && !text.empty() && std::chrono::steady_clock::now() >= end) {
            killed = kill(process, SIGKILL) == 0;
        }
        count = read(output, buffer, sizeof buffer);
        text.append(buffer, count > 0 ? static_cast<std::size_t>(count) : 0);
    }
    close(output);
    int status = 0;
    if (waitpid(process, &status, 0) != process || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        throw std::runtime_error(program + " ended by itself, its status is " + std::to_string(status));
    }
    if (!text.ends_with('\n')) {
        throw std::runtime_error(program + " printed no whole line: '" + text + "'");
    }
    return text;
}

}  // namespace sage::storage::testing
