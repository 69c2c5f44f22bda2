// The bytes of a log; docs/reference/storage-format.md describes them.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "sage/common/log.hpp"

namespace sage::storage::log_format {

inline constexpr FileKind segment_kind{"SAGELOG\n", "log segment", 1};
inline constexpr std::size_t record_header_bytes = 32;
inline constexpr std::size_t record_alignment = 8;

enum class Kind : std::uint16_t {
    record = 1,
    closed = 2,  // no payload and no number of its own: everything before it was synced
};

struct RecordHeader {
    std::uint32_t payload_checksum;
    std::uint32_t payload_bytes;
    Kind kind;
    std::uint64_t sequence;
    std::uint64_t synced;  // how many bytes of the segment were durable when this was written
};

// Where a header stands goes into its checksum: bytes that were valid elsewhere are not valid here.
struct Place {
    std::uint64_t log_id;
    std::uint64_t first_sequence;  // of the segment
    std::uint64_t offset;
};

[[nodiscard]] std::string segment_name(std::uint64_t first_sequence);
[[nodiscard]] std::optional<std::uint64_t> parse_segment_name(const std::string& name);

[[nodiscard]] FileHeaderBytes encode_segment_header(const LogIdentity& identity, std::uint64_t first_sequence);
// Throws as decode_file_header does, and when it belongs to another log or has another number than its name.
void check_segment_header(const File& file, const LogIdentity& identity, std::uint64_t first_sequence);

// How many bytes a record takes.
[[nodiscard]] std::uint64_t frame_bytes(std::uint64_t payload_bytes);
// Header, payload and padding.
void encode_frame(Kind kind, std::uint64_t sequence, std::uint64_t synced, Bytes payload, const Place& place,
                  std::vector<std::byte>& out);
// The header only; nothing when its checksum does not hold or it breaks a limit.
[[nodiscard]] std::optional<RecordHeader> decode_header(Bytes bytes, const Place& place);

struct SegmentScan {
    std::uint64_t end = 0;     // where the whole records end
    std::uint64_t synced = 0;  // the greatest proof of a whole record: so many bytes were durable
    std::uint64_t records = 0;
    std::uint64_t next_sequence = 0;
    bool closed = false;         // the last one is a note of a close, which had everything before it synced
    std::uint64_t dropped = 0;   // bytes from `end` to the last one that is not zero
    std::string dropped_why;     // what is wrong at `end`; empty when the file ends there or only zeros follow
};

// Reads a segment from its first record on; `last` for the one that may end in the traces of a crash. Throws
// Corruption.
[[nodiscard]] SegmentScan scan_segment(const File& file, const LogIdentity& identity, std::uint64_t first_sequence,
                                       std::uint64_t from, bool last, const RecordVisitor& visit);

}  // namespace sage::storage::log_format
