// Reads any bytes as a log's segment: the only way out is a record, an end or an Error.
#include <algorithm>
#include <cstdlib>

#include "bytes.hpp"
#include "log_format.hpp"
#include "sage/common/crc32c.hpp"
#include "sage/common/error.hpp"
#include "storage_fuzz.hpp"

namespace sage::storage::fuzz {
namespace {

constexpr LogIdentity identity{application, log_id};

// A header's checksum covers where it stands: the encoder knows how. The payload's is that of what is there.
void mend_records(std::vector<std::byte>& content) {
    std::uint64_t offset = file_header_bytes;
    while (offset + log_format::record_header_bytes <= content.size()) {
        const auto frame = std::span(content).subspan(offset);
        const std::uint64_t padded = round_up(get<std::uint32_t>(frame, 8), log_format::record_alignment);
        if (padded <= frame.size() - log_format::record_header_bytes) {
            put(frame, 4, crc32c(frame.subspan(log_format::record_header_bytes, padded)));
        }
        std::vector<std::byte> place(24);
        put(std::span(place), 0, log_id);
        put(std::span(place), 8, std::uint64_t{1});
        put(std::span(place), 16, offset);
        put(frame, 0, crc32c(frame.subspan(4, log_format::record_header_bytes - 4), crc32c(place)));
        offset += log_format::record_header_bytes + padded;
    }
}

}  // namespace
}  // namespace sage::storage::fuzz

sage::fuzz::Inputs sage::fuzz::seeds() {
    using namespace storage;
    using namespace storage::fuzz;
    namespace testing = storage::testing;
    testing::FaultFileSystem files;
    files.create_directories("log");
    Inputs inputs;
    const auto keep = [&] {
        const auto content = files.content("log/" + log_format::segment_name(1));
        std::vector<std::uint8_t> input{mend_checksums};
        for (const std::byte byte : std::span(content).first(std::min<std::size_t>(content.size(), 2000))) {
            input.push_back(static_cast<std::uint8_t>(byte));
        }
        inputs.push_back(input);
        input[0] = 0;
        inputs.push_back(input);
    };
    const auto log = Log::create(files, "log", identity, {});
    keep();
    for (const std::size_t size : {0, 5, 8, 300}) {
        log->commit(std::vector<std::byte>(size, std::byte{7}));
        keep();
    }
    log->close();
    keep();
    return inputs;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace sage::storage;
    if (size == 0) {
        return 0;
    }
    const Bytes bytes = std::as_bytes(std::span(data + 1, size - 1));
    std::vector<std::byte> content(bytes.begin(), bytes.end());
    if ((data[0] & fuzz::mend_checksums) != 0) {
        fuzz::mend_file_header(content);
        fuzz::mend_records(content);
    }
    sage::storage::testing::FaultFileSystem files;
    files.create_directories("log");
    files.set_content("log/" + log_format::segment_name(1), content);
    try {
        std::uint64_t records = 0;
        const auto count = [&](std::uint64_t sequence, Bytes payload) {
            if (sequence != ++records || payload.size() > size) {
                std::abort();
            }
        };
        LogReader(files, "log", fuzz::identity, 1).replay(count);
        const std::uint64_t before = records;
        records = 0;
        // What can be read can be written on, and then has one record more.
        const auto log = Log::open(files, "log", fuzz::identity, {}, 1, count);
        if (records != before || log->commit({}) != before + 1) {
            std::abort();
        }
        records = 0;
        LogReader(files, "log", fuzz::identity, 1).replay(count);
        if (records != before + 1) {
            std::abort();
        }
    } catch (const sage::Error&) {  // refused, as it should be
    }
    return 0;
}
