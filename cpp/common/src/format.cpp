#include "sage/common/format.hpp"

#include <algorithm>
#include <cstring>

#include "bytes.hpp"
#include "sage/common/crc32c.hpp"
#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

constexpr std::size_t magic_bytes = 8;
constexpr std::size_t checksum_at = 8;
constexpr std::size_t covered_at = 12;
constexpr std::size_t tag_at = 16;
constexpr std::size_t application_version_at = 20;
constexpr std::size_t body_at = 24;

// What stands in a file may be anything: only what can be printed is.
std::string printable(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        const char character = static_cast<char>(byte);
        text += character >= ' ' && character <= '~' ? character : '?';
    }
    return text;
}

}  // namespace

FileHeaderBytes encode_file_header(const FileKind& kind, const FileHeader& header) {
    FileHeaderBytes bytes{};
    std::memcpy(bytes.data(), kind.magic.data(), magic_bytes);
    put(bytes, covered_at, kind.version);
    std::memcpy(bytes.data() + tag_at, header.application.tag.data(), header.application.tag.size());
    put(bytes, application_version_at, header.application.version);
    std::copy(header.body.begin(), header.body.end(), bytes.begin() + body_at);
    put(bytes, checksum_at, crc32c(std::span(bytes).subspan(covered_at)));
    return bytes;
}

FileHeader decode_file_header(const FileKind& kind, const Application& expected, std::span<const std::byte> start,
                              const std::string& path) {
    const std::size_t known = std::min(start.size(), magic_bytes);
    if (known != 0 && std::memcmp(start.data(), kind.magic.data(), known) != 0) {
        throw UnsupportedFormat("'" + path + "' is no " + std::string(kind.description) + " of SAGE: it must begin " +
                                "with '" + std::string(kind.magic) + "', it begins with '" + printable(start.first(known)) + "'");
    }
    if (start.size() < file_header_bytes) {
        throw Corruption("'" + path + "' is cut short: a " + std::string(kind.description) + " begins with " +
                         std::to_string(file_header_bytes) + " bytes of header, the file has " +
                         std::to_string(start.size()));
    }
    start = start.first(file_header_bytes);
    const auto stored = get<std::uint32_t>(start, checksum_at);
    const std::uint32_t computed = crc32c(start.subspan(covered_at));
    if (stored != computed) {
        throw Corruption("'" + path + "' is damaged: the checksum of its header (offset 0, 64 bytes) must be " +
                         hex(stored) + ", it is " + hex(computed));
    }
    const auto version = get<std::uint32_t>(start, covered_at);
    if (version == 0 || version > kind.version) {
        throw UnsupportedFormat("'" + path + "' was written by a newer SAGE: it is a " + std::string(kind.description) +
                                " of version " + std::to_string(version) + ", this one reads up to version " +
                                std::to_string(kind.version));
    }
    FileHeader header{};
    std::memcpy(header.application.tag.data(), start.data() + tag_at, header.application.tag.size());
    header.application.version = get<std::uint32_t>(start, application_version_at);
    if (header.application.tag != expected.tag) {
        throw UnsupportedFormat("'" + path + "' holds data of '" +
                                printable(start.subspan(tag_at, expected.tag.size())) + "', expected '" + printable(std::as_bytes(std::span(expected.tag))) +
                                "'; is it the folder of another kind of store?");
    }
    if (header.application.version > expected.version) {
        throw UnsupportedFormat("'" + path + "' was written by a newer SAGE: its data have version " +
                                std::to_string(header.application.version) + ", this one reads up to version " +
                                std::to_string(expected.version));
    }
    std::copy_n(start.begin() + body_at, header.body.size(), header.body.begin());
    return header;
}

std::uint32_t file_header_checksum(std::span<const std::byte> header) {
    return get<std::uint32_t>(header, checksum_at);
}

}  // namespace sage::storage
