// Which rows an exact search need not read: 8-bit codes of all rows, and how far they may be off. Internal.
//
// The codes of a row take a quarter of its memory, and what a search of all rows takes is memory. From the product of
// the codes and the lengths of what rounding left out follows (by Cauchy and Schwarz) a cost that the row cannot be
// below; only rows that may be among the best are read and scored. What is found is what a look at every row finds,
// to the last bit (the idea is the VA-file of Weber, Schek & Blott, VLDB 1998).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sage/common/aligned.hpp"
#include "sage/common/codes.hpp"
#include "sage/vdb/metric.hpp"
#include "slot_array.hpp"

namespace sage::vdb {

// Threads: as SlotArray. A row's sketch is written before the row can be found, and read by any number of searches.
class RowSketch {
public:
    using Slot = std::uint32_t;
    // Shorter rows are as quick to read as their codes.
    static constexpr std::size_t dimension_min = 32;

    RowSketch(std::size_t dimension, Metric metric);

    void reserve(std::size_t end);
    // `vector` is the row as it is stored.
    void encode(Slot slot, const float* vector);

    struct Query {
        AlignedVector<std::int8_t> codes;
        float step = 0.0F;
        std::int32_t offset = 0;   // 128 times the sum of the codes
        float length = 0.0F;       // of the query, not below the true one
        float left_out = 0.0F;     // length of what the codes are off by
        float squares_low = 0.0F;  // l2: not above the square of the length
    };
    void prepare(const float* query, Query& prepared) const;

    // A bit for each of the 64 slots from `first` on (a multiple of 64) that is in `wanted` and may cost `limit` or
    // less.
    [[nodiscard]] std::uint64_t within(const Query& query, Slot first, std::uint64_t wanted, float limit) const;

    [[nodiscard]] std::size_t row_bytes() const noexcept { return codes_.stride() + sizeof(Bound); }

private:
    struct Bound {
        float step;
        float squares_low;  // l2: not above the square of the row's length
        float length;       // of the decoded codes, not below
        float left_out;     // length of what they are off by, not below
    };

    std::size_t dimension_;
    Metric metric_;
    const distance::CodeKernels& kernels_;
    // What sums in float may be off by, as a share of the product of the lengths.
    float rounding_;
    SlotArray<std::uint8_t> codes_;
    SlotArray<Bound> bounds_{1};
};

}  // namespace sage::vdb
