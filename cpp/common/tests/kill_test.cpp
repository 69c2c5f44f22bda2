// A program that writes is killed with SIGKILL, again and again, on the same store.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "kill_state.hpp"
#include "sage/common/testing/killed_program.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

TEST(KilledWriter, LosesNothingThatItAcknowledged) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    std::mt19937 random(7);
    std::array<std::uint64_t, 4> acknowledged{};
    for (int turn = 0; turn < 15; ++turn) {
        const std::string text = testing::output_until_killed(SAGE_KILL_WRITER, directory,
                                                              std::chrono::milliseconds(random() % 150));
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t line_end = text.find('\n', begin);
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
    // Every turn went on behind the one before, by a line at least.
    EXPECT_GE(acknowledged[0] + acknowledged[1] + acknowledged[2] + acknowledged[3], 15U);
}

}  // namespace
}  // namespace sage::storage
