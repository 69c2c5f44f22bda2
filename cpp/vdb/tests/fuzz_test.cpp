// The fuzzers' functions on damaged buffers, in bounded time and with every compiler.
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "sage/vdb/bm25.hpp"
#include "sage/vdb/filter.hpp"
#include "sage/vdb/metadata.hpp"
#include "targets.hpp"

namespace sage::vdb {
namespace {

using Bytes = std::vector<std::byte>;

Bytes metadata_seed() {
    Metadata metadata;
    for (Slot slot = 0; slot < 12; ++slot) {
        metadata.replace(slot * 3, {{"i", std::int64_t{slot}},
                                    {"f", slot / 3.0},
                                    {"b", slot % 2 == 0},
                                    {"s", std::string(slot % 3, 'x')},
                                    {"l", Strings(slot % 4, std::string(slot % 2, 'y'))},
                                    {"t", Time{slot}}});
    }
    return metadata.snapshot().save();
}

Bytes bm25_seed() {
    Bm25Index index;
    index.replace(0, "a b c the");
    index.replace(4, "the the 0 and more");
    index.replace(5, "");
    index.replace(300, "c b a");
    return index.snapshot().save();
}

Bytes filter_seed() {
    return encode((field("i") >= std::int64_t{2} && field("s").in({Value(std::string("a")), Value(std::string("b"))})) ||
                  !(field("l").contains("x") && field("t").between(Time{3}, Time{40})) || field("f") < 3.5 || field("b") == true);
}

Bytes mutated(const Bytes& seed, std::mt19937& random) {
    Bytes bytes = seed;
    const auto draw = [&random](std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(random); };
    for (std::size_t left = 1 + draw(4); left > 0 && !bytes.empty(); --left) {
        const std::size_t at = draw(bytes.size());
        const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        switch (draw(5)) {
            case 0: bytes[at] ^= static_cast<std::byte>(1U << draw(8)); break;
            case 1: bytes[at] = static_cast<std::byte>(draw(256)); break;
            case 2: bytes.insert(place, static_cast<std::byte>(draw(256))); break;
            case 3: bytes.erase(place); break;
            default: bytes.resize(at); break;
        }
    }
    return bytes;
}

void expect_no_crash(const Bytes& seed, const std::function<void(std::span<const std::byte>)>& target) {
    std::mt19937 random(7);
    target(seed);
    for (int turn = 0; turn < 20'000; ++turn) {
        target(mutated(seed, random));
    }
}

TEST(Fuzz, FiltersHoldDamage) { expect_no_crash(filter_seed(), fuzz::fuzz_filter); }
TEST(Fuzz, MetadataHoldDamage) { expect_no_crash(metadata_seed(), fuzz::fuzz_metadata); }
TEST(Fuzz, TextIndexesHoldDamage) { expect_no_crash(bm25_seed(), fuzz::fuzz_bm25); }

}  // namespace
}  // namespace sage::vdb
