#include "sage/common/snapshot.hpp"

#include <algorithm>
#include <exception>

#include "bytes.hpp"
#include "sage/common/crc32c.hpp"
#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

constexpr FileKind snapshot_kind{"SAGESNAP", "snapshot", 1};
constexpr std::size_t flush_bytes = std::size_t{1} << 20;

// Fields in the header's body.
constexpr std::size_t table_offset_at = 0;
constexpr std::size_t table_bytes_at = 8;
constexpr std::size_t table_checksum_at = 16;
constexpr std::size_t section_count_at = 20;
constexpr std::size_t file_bytes_at = 24;

// A table's entry: these, then the name, padded with zeros to a multiple of 8.
constexpr std::size_t entry_bytes = 24;
constexpr std::size_t entry_offset_at = 0;
constexpr std::size_t entry_size_at = 8;
constexpr std::size_t entry_checksum_at = 16;
constexpr std::size_t entry_name_bytes_at = 20;
constexpr std::size_t entry_zero_at = 22;
constexpr std::size_t entry_alignment = 8;

void check_name(std::string_view name) {
    if (name.empty() || name.size() > section_name_bytes_max) {
        throw InvalidArgument("a section's name must have 1 to " + std::to_string(section_name_bytes_max) +
                              " bytes, got " + std::to_string(name.size()));
    }
}

}  // namespace

SnapshotWriter::SnapshotWriter(FileSystem& files, std::string path, Application application)
    : files_(files), path_(std::move(path)), application_(application) {
    const std::string temporary = path_ + std::string(temporary_suffix);
    if (files_.exists(temporary)) {
        files_.remove(temporary);
    }
    file_ = files_.open(temporary, OpenMode::create);
    put_bytes(FileHeaderBytes{});  // its place
}

SnapshotWriter::~SnapshotWriter() {
    if (!file_) {
        return;
    }
    file_.reset();
    try {
        files_.remove(path_ + std::string(temporary_suffix));
    } catch (const std::exception&) {  // rubbish that stays; the next one who opens the store removes it
    }
}

void SnapshotWriter::require_open() const {
    if (!file_) {
        throw InvalidArgument("the snapshot '" + path_ + "' is committed, nothing can be added");
    }
}

void SnapshotWriter::flush() {
    if (!buffer_.empty()) {
        file_->write(end_ - buffer_.size(), buffer_);
        buffer_.clear();
    }
}

void SnapshotWriter::put_bytes(Bytes bytes) {
    if (buffer_.size() + bytes.size() > flush_bytes) {
        flush();
    }
    if (bytes.size() >= flush_bytes) {
        file_->write(end_, bytes);
    } else {
        buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
    end_ += bytes.size();
}

void SnapshotWriter::pad(std::uint64_t multiple) {
    put_bytes(std::vector<std::byte>(round_up(end_, multiple) - end_));
}

void SnapshotWriter::end_section() {
    if (in_section_) {
        sections_.back().bytes = end_ - sections_.back().offset;
        in_section_ = false;
    }
}

void SnapshotWriter::begin_section(std::string_view name) {
    require_open();
    check_name(name);
    if (names_.contains(name)) {
        throw InvalidArgument("a snapshot's sections must have different names, got '" + std::string(name) +
                              "' again ('" + path_ + "')");
    }
    if (sections_.size() >= section_count_max) {
        throw InvalidArgument("a snapshot must have at most " + std::to_string(section_count_max) + " sections ('" +
                              path_ + "')");
    }
    end_section();
    pad(section_alignment);
    sections_.push_back({std::string(name), end_, 0, 0});
    names_.emplace(name);
    in_section_ = true;
}

void SnapshotWriter::write(Bytes bytes) {
    require_open();
    if (!in_section_) {
        throw InvalidArgument("begin_section() must come before write() ('" + path_ + "')");
    }
    put_bytes(bytes);
    sections_.back().checksum = crc32c(bytes, sections_.back().checksum);
}

void SnapshotWriter::add_section(std::string_view name, Bytes bytes) {
    begin_section(name);
    write(bytes);
}

std::vector<std::byte> SnapshotWriter::encode_table() const {
    std::vector<std::byte> table;
    for (const SectionInfo& section : sections_) {
        const std::size_t at = table.size();
        table.resize(at + round_up(entry_bytes + section.name.size(), entry_alignment));
        const auto entry = std::span(table).subspan(at);
        put(entry, entry_offset_at, section.offset);
        put(entry, entry_size_at, section.bytes);
        put(entry, entry_checksum_at, section.checksum);
        put(entry, entry_name_bytes_at, static_cast<std::uint16_t>(section.name.size()));
        const Bytes name = std::as_bytes(std::span(section.name));
        std::copy(name.begin(), name.end(), entry.begin() + entry_bytes);
    }
    return table;
}

SnapshotIdentity SnapshotWriter::commit() {
    require_open();
    end_section();
    pad(section_alignment);
    const std::uint64_t table_offset = end_;
    const std::vector<std::byte> table = encode_table();
    put_bytes(table);
    flush();
    FileHeader header{application_, {}};
    put(header.body, table_offset_at, table_offset);
    put(header.body, table_bytes_at, static_cast<std::uint64_t>(table.size()));
    put(header.body, table_checksum_at, crc32c(table));
    put(header.body, section_count_at, static_cast<std::uint32_t>(sections_.size()));
    put(header.body, file_bytes_at, end_);
    const FileHeaderBytes bytes = encode_file_header(snapshot_kind, header);
    file_->write(0, bytes);
    file_->sync();
    files_.rename(path_ + std::string(temporary_suffix), path_);
    file_.reset();
    const std::size_t slash = path_.rfind('/');
    files_.sync_directory(slash == std::string::npos ? "." : path_.substr(0, slash == 0 ? 1 : slash));
    return {end_, file_header_checksum(bytes)};
}

Snapshot::Snapshot(FileSystem& files, const std::string& path, const Application& application)
    : path_(path), file_(files.map(path)) {
    const Bytes bytes = file_->bytes();
    const FileHeader header = decode_file_header(snapshot_kind, application, bytes, path_);
    application_ = header.application;
    identity_ = {bytes.size(), file_header_checksum(bytes)};
    const auto file_bytes = get<std::uint64_t>(header.body, file_bytes_at);
    if (file_bytes != bytes.size()) {
        throw Corruption("'" + path_ + "' is damaged: it must have " + std::to_string(file_bytes) + " bytes, it has " +
                         std::to_string(bytes.size()));
    }
    table_offset_ = get<std::uint64_t>(header.body, table_offset_at);
    const auto table_bytes = get<std::uint64_t>(header.body, table_bytes_at);
    if (table_offset_ < file_header_bytes || table_offset_ > file_bytes || table_bytes != file_bytes - table_offset_) {
        throw Corruption("'" + path_ + "' is damaged: the table of sections must lie at the file's end, got offset " +
                         std::to_string(table_offset_) + " and " + std::to_string(table_bytes) + " bytes");
    }
    const Bytes table = bytes.subspan(table_offset_);
    const auto stored = get<std::uint32_t>(header.body, table_checksum_at);
    if (const std::uint32_t computed = crc32c(table); computed != stored) {
        throw Corruption("'" + path_ + "' is damaged: the checksum of the table of sections (offset " +
                         std::to_string(table_offset_) + ") must be " + hex(stored) + ", it is " + hex(computed));
    }
    read_table(table, get<std::uint32_t>(header.body, section_count_at));
}

void Snapshot::read_table(Bytes table, std::uint64_t count) {
    // From here on only a program that writes wrong tables with right checksums gets a Corruption.
    const auto wrong = [this](std::uint64_t entry, const std::string& what) {
        return Corruption("'" + path_ + "' is damaged: entry " + std::to_string(entry) + " of the table of sections " +
                          what);
    };
    if (count > section_count_max || count > table.size() / entry_bytes) {
        throw wrong(0, "must be one of at most " + std::to_string(section_count_max) +
                           " that fit into the table, there are said to be " + std::to_string(count));
    }
    std::uint64_t begin = file_header_bytes;
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::size_t name_bytes = table.size() < entry_bytes ? 0 : get<std::uint16_t>(table, entry_name_bytes_at);
        const std::uint64_t whole = round_up(entry_bytes + name_bytes, entry_alignment);
        if (name_bytes == 0 || name_bytes > section_name_bytes_max || whole > table.size()) {
            throw wrong(i, "must have a name of 1 to " + std::to_string(section_name_bytes_max) +
                               " bytes inside of the table");
        }
        SectionInfo section{{}, get<std::uint64_t>(table, entry_offset_at), get<std::uint64_t>(table, entry_size_at),
                            get<std::uint32_t>(table, entry_checksum_at)};
        section.name.assign(reinterpret_cast<const char*>(table.data()) + entry_bytes, name_bytes);
        if (section.offset != begin || section.offset > table_offset_ ||
            section.bytes > table_offset_ - section.offset) {
            throw wrong(i, "must lie at offset " + std::to_string(begin) + " and end before offset " +
                               std::to_string(table_offset_) + ", got " + std::to_string(section.bytes) +
                               " bytes at offset " + std::to_string(section.offset));
        }
        if (get<std::uint16_t>(table, entry_zero_at) != 0 ||
            !all_zero(table.subspan(entry_bytes + name_bytes, whole - entry_bytes - name_bytes))) {
            throw wrong(i, "must be padded with zeros");
        }
        begin = round_up(section.offset + section.bytes, section_alignment);
        sections_.push_back(std::move(section));
        table = table.subspan(whole);
    }
    if (!table.empty() || begin != table_offset_) {
        throw wrong(count, "must not exist, " + std::to_string(table.size()) + " bytes are left");
    }
    by_name_.resize(sections_.size());
    for (std::size_t i = 0; i < by_name_.size(); ++i) {
        by_name_[i] = static_cast<std::uint32_t>(i);
    }
    std::sort(by_name_.begin(), by_name_.end(),
              [this](auto a, auto b) { return sections_[a].name < sections_[b].name; });
    for (std::size_t i = 1; i < by_name_.size(); ++i) {
        if (sections_[by_name_[i - 1]].name == sections_[by_name_[i]].name) {
            throw wrong(by_name_[i], "must have a name of its own");
        }
    }
}

const SectionInfo* Snapshot::find(std::string_view name) const noexcept {
    const auto place =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [this](auto index, std::string_view key) { return sections_[index].name < key; });
    return place != by_name_.end() && sections_[*place].name == name ? &sections_[*place] : nullptr;
}

const SectionInfo& Snapshot::require(std::string_view name) const {
    const SectionInfo* section = find(name);
    if (section == nullptr) {
        throw NotFound("'" + path_ + "' has no section '" + std::string(name) + "'");
    }
    return *section;
}

bool Snapshot::has_section(std::string_view name) const noexcept { return find(name) != nullptr; }

Bytes Snapshot::section(std::string_view name) const {
    const SectionInfo& section = require(name);
    return file_->bytes().subspan(section.offset, section.bytes);
}

Bytes Snapshot::verified_section(std::string_view name) const {
    check(require(name));
    return section(name);
}

void Snapshot::check(const SectionInfo& section) const {
    const std::uint32_t computed = crc32c(file_->bytes().subspan(section.offset, section.bytes));
    if (computed != section.checksum) {
        throw Corruption("'" + path_ + "' is damaged: the checksum of section '" + section.name + "' (" +
                         std::to_string(section.bytes) + " bytes at offset " + std::to_string(section.offset) +
                         ") must be " + hex(section.checksum) + ", it is " + hex(computed));
    }
}

void Snapshot::verify() const {
    for (const SectionInfo& section : sections_) {
        check(section);
        const std::uint64_t end = section.offset + section.bytes;
        if (!all_zero(file_->bytes().subspan(end, round_up(end, section_alignment) - end))) {
            throw Corruption("'" + path_ + "' is damaged: section '" + section.name +
                             "' must be followed by zeros up to the next one (offset " + std::to_string(end) + ")");
        }
    }
}

}  // namespace sage::storage
