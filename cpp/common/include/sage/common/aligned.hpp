// Storage that starts on a cache line.
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <vector>

namespace sage {

// One cache line, and the width of the widest vector register we use.
inline constexpr std::size_t cache_line_bytes = 64;

// From the threshold on, memory starts on a huge page and the system is asked for huge pages: the scan of an index
// that no cache holds is otherwise slowed by address translation.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} * 1024 * 1024;
inline constexpr std::size_t huge_page_threshold_bytes = 2 * huge_page_bytes;

// Memory of at least `bytes`, aligned to `alignment` or a huge page. Throws std::bad_alloc.
[[nodiscard]] void* allocate_aligned(std::size_t bytes, std::size_t alignment);
// Gives it back; the same numbers as at the allocation.
void deallocate_aligned(void* pointer, std::size_t bytes, std::size_t alignment) noexcept;

// A std::allocator whose memory starts at a multiple of Alignment bytes.
template <class T, std::size_t Alignment = cache_line_bytes>
class AlignedAllocator {
public:
    static_assert((Alignment & (Alignment - 1)) == 0, "Alignment must be a power of two");
    static_assert(Alignment >= alignof(T), "Alignment must not be below the type's own");

    using value_type = T;
    template <class U>
    struct rebind {
        using other = AlignedAllocator<U, Alignment>;
    };

    AlignedAllocator() noexcept = default;
    template <class U>
    // Implicit, as the allocator requirements ask.
    AlignedAllocator(const AlignedAllocator<U, Alignment>& /*other*/) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
            throw std::bad_array_new_length();
        }
        return static_cast<T*>(allocate_aligned(count * sizeof(T), Alignment));
    }
    void deallocate(T* pointer, std::size_t count) noexcept {
        deallocate_aligned(pointer, count * sizeof(T), Alignment);
    }

    template <class U>
    bool operator==(const AlignedAllocator<U, Alignment>& /*other*/) const noexcept {
        return true;
    }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace sage
