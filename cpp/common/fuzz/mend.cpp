#include "bytes.hpp"
#include "sage/common/crc32c.hpp"
#include "storage_fuzz.hpp"

namespace sage::storage::fuzz {

void mend_file_header(std::vector<std::byte>& content) {
    if (content.size() >= file_header_bytes) {
        put(std::span(content), 8, crc32c(std::span(content).subspan(12, file_header_bytes - 12)));
    }
}

}  // namespace sage::storage::fuzz
