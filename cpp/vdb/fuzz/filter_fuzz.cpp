// Any bytes as an encoded filter: refused, or it has this one form and both ways to evaluate it agree.
#include <span>
#include <string>
#include <vector>

#include "fuzz_target.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/filter.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb {
namespace {

using fuzz::require;
using fuzz::same;

void run(std::span<const std::byte> bytes) {
    Filter filter;
    try {
        filter = decode_filter(bytes);
    } catch (const InvalidArgument&) {
        return;
    }
    // One filter has one form.
    require(same(bytes, encode(filter)));
    static_cast<void>(describe(filter));
    static Metadata* const metadata = [] {
        auto* made = new Metadata();
        for (Slot slot = 0; slot < 100; ++slot) {
            made->replace(slot, {{"i", std::int64_t{slot % 7}},
                                 {"f", slot / 8.0},
                                 {"b", slot % 2 == 0},
                                 {"s", std::string(1, static_cast<char>('a' + slot % 5))},
                                 {"l", Strings{"x", std::to_string(slot % 3)}},
                                 {"t", Time{slot}}});
        }
        return made;
    }();
    try {
        const BoundFilter bound(metadata->snapshot(), filter);
        const SlotSet found = bound.evaluate();
        for (Slot slot = 0; slot < 100; ++slot) {
            require(found.contains(slot) == bound.matches(slot));
        }
        const Selectivity estimate = bound.estimate();
        require(estimate.at_least <= found.count() && found.count() <= estimate.at_most);
    } catch (const InvalidArgument&) {
        return;
    }
}

}  // namespace
}  // namespace sage::vdb

sage::fuzz::Inputs sage::fuzz::seeds() {
    using namespace vdb;
    const Filter lists = field("l").contains("x") && field("t").between(Time{3}, Time{40});
    const Filter sets = field("i") >= std::int64_t{2} && field("s").in({Value(std::string("a")), Value(std::string("b"))});
    const Filter filter = sets || !lists || field("f") < 3.5 || field("b") == true;
    return {input_of(encode(filter)), input_of(encode(lists)), input_of(encode(field("i").exists()))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sage::vdb::run(std::as_bytes(std::span(data, size)));
    return 0;
}
