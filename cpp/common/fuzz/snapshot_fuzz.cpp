// Reads any bytes as a snapshot and as a manifest: the only way out is a sound one or an Error.
#include <algorithm>
#include <cstdlib>

#include "bytes.hpp"
#include "sage/common/crc32c.hpp"
#include "sage/common/error.hpp"
#include "sage/common/store.hpp"
#include "storage_fuzz.hpp"

namespace sage::storage::fuzz {
namespace {

// The table's checksum, wherever the header says the table is.
void mend_table(std::vector<std::byte>& content) {
    if (content.size() < file_header_bytes) {
        return;
    }
    const auto offset = get<std::uint64_t>(content, 24);
    if (offset <= content.size()) {
        put(std::span(content), 24 + 8, static_cast<std::uint64_t>(content.size() - offset));
        put(std::span(content), 24 + 16, crc32c(std::span(content).subspan(offset)));
        put(std::span(content), 24 + 24, static_cast<std::uint64_t>(content.size()));
    }
}

}  // namespace
}  // namespace sage::storage::fuzz

sage::fuzz::Inputs sage::fuzz::seeds() {
    using namespace storage;
    using namespace storage::fuzz;
    namespace testing = storage::testing;
    testing::FaultFileSystem files;
    Inputs inputs;
    const auto keep = [&](std::span<const std::byte> content) {
        std::vector<std::uint8_t> input{mend_checksums};
        for (const std::byte byte : content) {
            input.push_back(static_cast<std::uint8_t>(byte));
        }
        inputs.push_back(input);
        input[0] = 0;
        inputs.push_back(input);
    };
    for (int count = 0; count < 4; ++count) {
        {
            SnapshotWriter writer(files, "snap", application);
            for (int i = 0; i < count; ++i) {
                writer.begin_section("section " + std::to_string(i));
                writer.write(std::vector<std::byte>(static_cast<std::size_t>(40 * i)));
            }
            writer.commit();
        }
        keep(files.content("snap"));
    }
    keep(encode_manifest(application, {.generation = 3, .log_id = log_id, .covered = 9, .snapshot = {{640, 5}}}));
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
        fuzz::mend_table(content);
        fuzz::mend_file_header(content);
    }
    try {
        const Manifest manifest = decode_manifest(fuzz::application, content, "MANIFEST");
        if (decode_manifest(fuzz::application, encode_manifest(fuzz::application, manifest), "MANIFEST") != manifest) {
            std::abort();
        }
    } catch (const sage::Error&) {  // refused, as it should be
    }
    sage::storage::testing::FaultFileSystem files;
    files.set_content("snap", content);
    try {
        const Snapshot snapshot(files, "snap", fuzz::application);
        for (const SectionInfo& section : snapshot.sections()) {
            const Bytes found = snapshot.section(section.name);
            if (found.size() != section.bytes || found.size() > size) {
                std::abort();
            }
            volatile std::byte touched{};
            for (const std::byte byte : found) {
                touched = byte;
            }
            static_cast<void>(touched);
        }
        snapshot.verify();
    } catch (const sage::Error&) {  // refused, as it should be
    }
    return 0;
}
