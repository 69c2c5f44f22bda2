// The bytes themselves: docs/reference/storage-format.md shows these files, and its example reads them in Python. A
// change here is a change of the format: it needs a new version, and the old one must stay readable.
#include "sage/common/format.hpp"

#include <gtest/gtest.h>

#include "sage/common/store.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

constexpr Application application{{'d', 'o', 'c', 's'}, 1};

std::string hex_of(Bytes bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        text += "0123456789abcdef"[static_cast<unsigned>(byte) >> 4U];
        text += "0123456789abcdef"[static_cast<unsigned>(byte) & 15U];
    }
    return text;
}

TEST(StorageFormat, OfALogSegment) {
    testing::FaultFileSystem files;
    files.create_directories("log");
    const auto log = Log::create(files, "log", {application, 7}, {});
    log->commit(as_bytes("hello"));
    log->close();
    EXPECT_EQ(hex_of(files.content("log/log-00000000000000000001.sagelog")),
              "534147454c4f470a3731df6701000000646f6373010000000700000000000000"
              "0100000000000000000000000000000000000000000000000000000000000000"
              "2e9dff56b3ed0390050000000100000001000000000000004000000000000000"
              "68656c6c6f0000004dbbc8970000000000000000020000000200000000000000"
              "6800000000000000");
}

TEST(StorageFormat, OfASnapshot) {
    testing::FaultFileSystem files;
    SnapshotWriter writer(files, "snap", application);
    writer.add_section("greeting", as_bytes("hello"));
    writer.commit();
    EXPECT_EQ(hex_of(files.content("snap")),
              "53414745534e41504e48269001000000646f6373010000008000000000000000"
              "2000000000000000f7e4a04f01000000a0000000000000000000000000000000"
              "68656c6c6f000000000000000000000000000000000000000000000000000000"
              "0000000000000000000000000000000000000000000000000000000000000000"
              "400000000000000005000000000000004cbb719a080000006772656574696e67");
}

TEST(StorageFormat, OfAManifest) {
    const Manifest manifest{.generation = 2, .log_id = 7, .covered = 1, .snapshot = {{160, 0x9026484E}}};
    EXPECT_EQ(hex_of(encode_manifest(application, manifest)),
              "534147454d414e49fd0d436601000000646f6373010000000200000000000000"
              "07000000000000000100000000000000a0000000000000004e48269001000000");
}

}  // namespace
}  // namespace sage::storage
