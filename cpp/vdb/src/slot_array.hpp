// Rows by slot that never move. Internal.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "sage/common/aligned.hpp"

namespace sage::vdb {

// Rows of `stride` elements in chunks that double: slots below 1024 in the first, [1024, 2048) in the second,
// [2048, 4096) in the third. A row's address needs one small table and no lock, memory that was never touched is not
// resident, and an index of a few rows is small.
//
// Threads: one caller of reserve(); row() of a slot below the reserved end from any thread that learned of the slot
// after it was reserved.
template <class T>
class SlotArray {
    static constexpr unsigned first_bits = 10;
    static constexpr std::size_t chunks = 32 - first_bits;

public:
    explicit SlotArray(std::size_t stride) : stride_(stride) {}
    SlotArray(const SlotArray&) = delete;
    SlotArray& operator=(const SlotArray&) = delete;
    ~SlotArray() {
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
            if (const std::uintptr_t biased = table_[chunk].load(std::memory_order_relaxed); biased != 0) {
                deallocate_aligned(reinterpret_cast<void*>(biased + first(chunk) * row_bytes()),
                                   rows_of(chunk) * row_bytes(), cache_line_bytes);
            }
        }
    }

    // Makes room for slots below `end`; `prepare` is called with each new chunk's memory and size in elements.
    template <class Prepare>
    void reserve(std::size_t end, Prepare prepare) {
        for (std::size_t chunk = 0; chunk < chunks && first(chunk) < end; ++chunk) {
            if (table_[chunk].load(std::memory_order_relaxed) != 0) {
                continue;
            }
            void* memory = allocate_aligned(rows_of(chunk) * row_bytes(), cache_line_bytes);
            prepare(static_cast<T*>(memory), rows_of(chunk) * stride_);
            // The address that slot 0 would have: integers, because such a pointer does not exist.
            table_[chunk].store(reinterpret_cast<std::uintptr_t>(memory) - first(chunk) * row_bytes(),
                                std::memory_order_release);
        }
    }

    [[nodiscard]] T* row(std::uint32_t slot) const {
        const auto chunk = static_cast<std::size_t>(std::bit_width(slot | ((1U << first_bits) - 1U))) - first_bits;
        const std::uintptr_t biased = table_[chunk].load(std::memory_order_acquire);
        return reinterpret_cast<T*>(biased + std::size_t{slot} * row_bytes());
    }

    [[nodiscard]] std::size_t stride() const noexcept { return stride_; }

private:
    static std::size_t first(std::size_t chunk) { return chunk == 0 ? 0 : std::size_t{1} << (first_bits + chunk - 1); }
    static std::size_t rows_of(std::size_t chunk) { return chunk == 0 ? std::size_t{1} << first_bits : first(chunk); }
    [[nodiscard]] std::size_t row_bytes() const { return stride_ * sizeof(T); }

    std::size_t stride_;
    std::array<std::atomic<std::uintptr_t>, chunks> table_{};
};

}  // namespace sage::vdb
