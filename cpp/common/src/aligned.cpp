#include "sage/common/aligned.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sage {
namespace {

std::align_val_t alignment_for(std::size_t bytes, std::size_t alignment) {
    const bool huge = bytes >= huge_page_threshold_bytes && alignment < huge_page_bytes;
    return std::align_val_t{huge ? huge_page_bytes : alignment};
}

}  // namespace

void* allocate_aligned(std::size_t bytes, std::size_t alignment) {
    void* pointer = ::operator new(bytes, alignment_for(bytes, alignment));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= huge_page_threshold_bytes) {
        // Advice: a kernel without huge pages refuses it, and everything works as before.
        static_cast<void>(madvise(pointer, bytes - bytes % huge_page_bytes, MADV_HUGEPAGE));
    }
#endif
    return pointer;
}

void deallocate_aligned(void* pointer, std::size_t bytes, std::size_t alignment) noexcept {
    ::operator delete(pointer, alignment_for(bytes, alignment));
}

}  // namespace sage
