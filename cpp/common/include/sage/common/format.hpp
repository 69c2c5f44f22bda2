// What every file of ours begins with.
//
// The first 64 bytes of all kinds of files, in all versions:
//    0  8  magic: which kind of file
//    8  4  CRC-32C of bytes 12 to 63
//   12  4  version of the kind's format
//   16  4  tag of the application whose data it holds, such as "vdb "
//   20  4  version of the application's data
//   24 40  what the kind of file needs
// Numbers are little-endian. The checksum is looked at before the version, so that a damaged file is not taken for one
// of the future.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sage::storage {

// Whose data a file holds: a file of another application is refused, and one of a newer version.
struct Application {
    std::array<char, 4> tag;
    std::uint32_t version;

    bool operator==(const Application&) const = default;
};

struct FileKind {
    std::string_view magic;        // 8 characters
    std::string_view description;  // for messages: "log segment"
    std::uint32_t version;         // the newest that this build reads, and the one that it writes
};

inline constexpr std::size_t file_header_bytes = 64;
inline constexpr std::size_t file_header_body_bytes = 40;

struct FileHeader {
    Application application;  // version: that of the file
    std::array<std::byte, file_header_body_bytes> body{};
};

using FileHeaderBytes = std::array<std::byte, file_header_bytes>;

[[nodiscard]] FileHeaderBytes encode_file_header(const FileKind& kind, const FileHeader& header);

// `start` is the beginning of the file, shorter than a header only when the file is. Throws UnsupportedFormat for a
// foreign file, one of another application and a newer version, Corruption for a short or damaged one.
[[nodiscard]] FileHeader decode_file_header(const FileKind& kind, const Application& expected,
                                            std::span<const std::byte> start, const std::string& path);

// The checksum that stands in an encoded header: names the file's content in other files.
[[nodiscard]] std::uint32_t file_header_checksum(std::span<const std::byte> header);

}  // namespace sage::storage
