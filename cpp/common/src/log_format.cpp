#include "log_format.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "bytes.hpp"
#include "sage/common/crc32c.hpp"
#include "sage/common/error.hpp"

namespace sage::storage::log_format {
namespace {

constexpr std::string_view name_prefix = "log-";
constexpr std::string_view name_suffix = ".sagelog";
constexpr std::size_t name_digits = 20;

// Fields of a record's header; its first four bytes are the checksum of the rest.
constexpr std::size_t payload_checksum_at = 4;
constexpr std::size_t payload_bytes_at = 8;
constexpr std::size_t kind_at = 12;
constexpr std::size_t flags_at = 14;
constexpr std::size_t sequence_at = 16;
constexpr std::size_t synced_at = 24;

std::uint32_t header_checksum(Bytes header, const Place& place) {
    std::array<std::byte, 24> where{};
    put(where, 0, place.log_id);
    put(where, 8, place.first_sequence);
    put(where, 16, place.offset);
    return crc32c(header.subspan(4, record_header_bytes - 4), crc32c(where));
}

// A window over a file: large reads, small looks.
class Window {
public:
    explicit Window(const File& file) : file_(file), size_(file.size()) {}

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    // The next look reads again.
    void forget() noexcept {
        begin_ = 0;
        filled_ = 0;
    }

    // `bytes` bytes at `offset`, fewer where the file ends.
    Bytes at(std::uint64_t offset, std::uint64_t bytes) {
        const std::uint64_t wanted = std::min(bytes, size_ - std::min(offset, size_));
        if (offset < begin_ || offset + wanted > begin_ + filled_) {
            buffer_.resize(std::max<std::uint64_t>(wanted, std::min<std::uint64_t>(window_bytes, size_ - offset)));
            begin_ = offset;
            filled_ = file_.read(offset, buffer_);
        }
        const std::uint64_t there = begin_ + filled_ - offset;  // a writer may have cut the file meanwhile
        return Bytes(buffer_).subspan(offset - begin_, std::min(wanted, there));
    }

private:
    static constexpr std::uint64_t window_bytes = std::uint64_t{1} << 20;
    const File& file_;
    std::uint64_t size_;
    std::uint64_t begin_ = 0;
    std::uint64_t filled_ = 0;
    std::vector<std::byte> buffer_;
};

struct Evidence {
    std::uint64_t offset;
    std::uint64_t synced;
};

// A header after `end` that proves that the bytes at `end` had been durable.
std::optional<Evidence> find_evidence(Window& window, const LogIdentity& identity, std::uint64_t first_sequence,
                                      std::uint64_t end) {
    for (std::uint64_t offset = end + record_alignment; offset + record_header_bytes <= window.size();
         offset += record_alignment) {
        const Bytes bytes = window.at(offset, record_header_bytes);
        const auto header = bytes.size() < record_header_bytes
                                ? std::nullopt
                                : decode_header(bytes, {identity.log_id, first_sequence, offset});
        if (header && header->synced > end) {
            return Evidence{offset, header->synced};
        }
    }
    return std::nullopt;
}

// How many bytes from `end` on are something else than zeros at the file's end.
std::uint64_t bytes_before_zeros(Window& window, std::uint64_t end) {
    std::uint64_t used = 0;
    constexpr std::uint64_t step = 4096;
    for (std::uint64_t offset = end; offset < window.size(); offset += step) {
        const Bytes bytes = window.at(offset, step);
        for (std::size_t i = all_zero(bytes) ? 0 : bytes.size(); i > 0; --i) {
            if (bytes[i - 1] != std::byte{0}) {
                used = offset + i - end;
                break;
            }
        }
    }
    return used;
}

struct Parsed {
    RecordHeader header{};
    Bytes payload;
    std::string problem;  // empty for a whole record
};

Parsed parse_record(Window& window, const Place& place, std::uint64_t expected_sequence) {
    Parsed parsed;
    const Bytes head = window.at(place.offset, record_header_bytes);
    if (head.size() < record_header_bytes) {
        parsed.problem = "expected a record's header of " + std::to_string(record_header_bytes) + " bytes, found " +
                         std::to_string(head.size());
        return parsed;
    }
    const auto header = decode_header(head, place);
    if (!header) {
        parsed.problem = "expected a record's header with checksum " + hex(header_checksum(head, place)) + ", found " +
                         hex(get<std::uint32_t>(head, 0));
        return parsed;
    }
    parsed.header = *header;
    if (header->sequence != expected_sequence) {
        parsed.problem = "expected record " + std::to_string(expected_sequence) + ", found record " +
                         std::to_string(header->sequence);
        return parsed;
    }
    const std::uint64_t padded = round_up(header->payload_bytes, record_alignment);
    const Bytes padded_payload = window.at(place.offset + record_header_bytes, padded);
    if (padded_payload.size() < padded) {
        parsed.problem = "expected " + std::to_string(padded) + " bytes of payload of record " +
                         std::to_string(expected_sequence) + ", found " + std::to_string(padded_payload.size());
        return parsed;
    }
    const std::uint32_t computed = crc32c(padded_payload);
    if (computed != header->payload_checksum) {
        parsed.problem = "expected a payload of record " + std::to_string(expected_sequence) + " with checksum " +
                         hex(header->payload_checksum) + ", found " + hex(computed);
        return parsed;
    }
    parsed.payload = padded_payload.first(header->payload_bytes);
    return parsed;
}

struct Ending {
    const File& file;
    const LogIdentity& identity;
    std::uint64_t first_sequence;
    bool last;
};

// No whole record stands at `scan.end`: is it the trace of a crash or damage? False to look again: a writer that is at
// work may have completed the record while we searched for what comes after it.
bool judge_end(Window& window, const Ending& ending, const std::string& problem, bool looked_again, SegmentScan& scan) {
    const std::string where = "'" + ending.file.path() + "' at offset " + std::to_string(scan.end) + ": " + problem;
    scan.dropped = bytes_before_zeros(window, scan.end);
    if (!ending.last) {
        if (scan.dropped == 0) {
            return true;  // reserved and never cut off; that no record is missing, the next segment's number shows
        }
        throw Corruption("damaged log " + where + "; the segment is not the last one, it must end in whole records");
    }
    if (const auto evidence = find_evidence(window, ending.identity, ending.first_sequence, scan.end)) {
        if (!looked_again) {
            window.forget();
            return false;
        }
        throw Corruption("damaged log " + where + "; the record at offset " + std::to_string(evidence->offset) +
                         " proves that everything up to offset " + std::to_string(evidence->synced) + " was durable");
    }
    if (scan.dropped != 0) {
        scan.dropped_why = where;
    }
    return true;
}

}  // namespace

std::string segment_name(std::uint64_t first_sequence) {
    const std::string digits = std::to_string(first_sequence);
    return std::string(name_prefix) + std::string(name_digits - digits.size(), '0') + digits + std::string(name_suffix);
}

std::optional<std::uint64_t> parse_segment_name(const std::string& name) {
    if (name.size() != name_prefix.size() + name_digits + name_suffix.size() || !name.starts_with(name_prefix) ||
        !name.ends_with(name_suffix)) {
        return std::nullopt;
    }
    std::uint64_t number = 0;
    const char* begin = name.data() + name_prefix.size();
    const auto [end, error] = std::from_chars(begin, begin + name_digits, number);
    if (error != std::errc{} || end != begin + name_digits || number == 0) {
        return std::nullopt;
    }
    return number;
}

FileHeaderBytes encode_segment_header(const LogIdentity& identity, std::uint64_t first_sequence) {
    FileHeader header{identity.application, {}};
    put(header.body, 0, identity.log_id);
    put(header.body, 8, first_sequence);
    return encode_file_header(segment_kind, header);
}

void check_segment_header(const File& file, const LogIdentity& identity, std::uint64_t first_sequence) {
    std::array<std::byte, file_header_bytes> start{};
    const std::size_t count = file.read(0, start);
    const FileHeader header =
        decode_file_header(segment_kind, identity.application, std::span(start).first(count), file.path());
    if (get<std::uint64_t>(header.body, 0) != identity.log_id) {
        throw Corruption("'" + file.path() + "' belongs to another store: the log's id must be " +
                         std::to_string(identity.log_id) + ", it is " +
                         std::to_string(get<std::uint64_t>(header.body, 0)));
    }
    if (get<std::uint64_t>(header.body, 8) != first_sequence) {
        throw Corruption("'" + file.path() + "' was renamed: it begins with record " +
                         std::to_string(get<std::uint64_t>(header.body, 8)));
    }
}

std::uint64_t frame_bytes(std::uint64_t payload_bytes) {
    return record_header_bytes + round_up(payload_bytes, record_alignment);
}

void encode_frame(Kind kind, std::uint64_t sequence, std::uint64_t synced, Bytes payload, const Place& place,
                  std::vector<std::byte>& out) {
    out.assign(frame_bytes(payload.size()), std::byte{0});
    std::copy(payload.begin(), payload.end(), out.begin() + record_header_bytes);
    const std::span<std::byte> frame(out);
    put(frame, payload_checksum_at, crc32c(frame.subspan(record_header_bytes)));
    put(frame, payload_bytes_at, static_cast<std::uint32_t>(payload.size()));
    put(frame, kind_at, static_cast<std::uint16_t>(kind));
    put(frame, sequence_at, sequence);
    put(frame, synced_at, synced);
    put(frame, 0, header_checksum(frame, place));
}

std::optional<RecordHeader> decode_header(Bytes bytes, const Place& place) {
    const auto kind = get<std::uint16_t>(bytes, kind_at);
    const auto payload_bytes = get<std::uint32_t>(bytes, payload_bytes_at);
    const bool possible = (kind == static_cast<std::uint16_t>(Kind::record) ||
                           (kind == static_cast<std::uint16_t>(Kind::closed) && payload_bytes == 0)) &&
                          get<std::uint16_t>(bytes, flags_at) == 0 && payload_bytes <= log_record_bytes_limit;
    // Cheap things first: damaged segments are searched at every eighth byte.
    if (!possible || get<std::uint32_t>(bytes, 0) != header_checksum(bytes, place)) {
        return std::nullopt;
    }
    return RecordHeader{get<std::uint32_t>(bytes, payload_checksum_at), payload_bytes, static_cast<Kind>(kind),
                        get<std::uint64_t>(bytes, sequence_at), get<std::uint64_t>(bytes, synced_at)};
}

SegmentScan scan_segment(const File& file, const LogIdentity& identity, std::uint64_t first_sequence,
                         std::uint64_t from, bool last, const RecordVisitor& visit) {
    Window window(file);
    SegmentScan scan;
    scan.end = file_header_bytes;
    scan.synced = file_header_bytes;
    scan.next_sequence = first_sequence;
    std::uint64_t looked_again_at = 0;
    while (scan.end < window.size()) {
        const Parsed parsed = parse_record(window, {identity.log_id, first_sequence, scan.end}, scan.next_sequence);
        if (!parsed.problem.empty()) {
            const bool looked_again = looked_again_at == scan.end;
            looked_again_at = scan.end;
            if (judge_end(window, {file, identity, first_sequence, last}, parsed.problem, looked_again, scan)) {
                break;
            }
            continue;
        }
        scan.synced = std::max(scan.synced, std::min(parsed.header.synced, scan.end));
        scan.closed = parsed.header.kind == Kind::closed && parsed.header.synced == scan.end;
        scan.end += frame_bytes(parsed.header.payload_bytes);
        if (parsed.header.kind == Kind::record) {
            if (scan.next_sequence >= from) {
                visit(scan.next_sequence, parsed.payload);
            }
            ++scan.next_sequence;
            ++scan.records;
        }
    }
    return scan;
}

}  // namespace sage::storage::log_format
