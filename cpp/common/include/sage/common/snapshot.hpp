// A file of named sections, written once and then only read.
//
// Rules
// - A snapshot appears under its name in one step, whole and durable, at SnapshotWriter::commit(); before that it is
//   `<path>.tmp`. A crash leaves the old file or the new one.
// - A section starts at a multiple of 64 bytes of the file and of the memory it is mapped to.
// - Opening looks at the header and the table of sections; Snapshot::verify() at every byte. Damage is a Corruption
//   that names file and section.
// - Sections are views of the mapped file, valid as long as the Snapshot. Nobody changes or cuts a snapshot's file.
// docs/reference/storage-format.md has the bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sage/common/file.hpp"
#include "sage/common/format.hpp"

namespace sage::storage {

inline constexpr std::size_t section_alignment = 64;
inline constexpr std::size_t section_name_bytes_max = 255;
inline constexpr std::uint64_t section_count_max = std::uint64_t{1} << 20;

struct SectionInfo {
    std::string name;
    std::uint64_t offset;
    std::uint64_t bytes;
    std::uint32_t checksum;
};

// What names a snapshot's content in a manifest.
struct SnapshotIdentity {
    std::uint64_t file_bytes;
    std::uint32_t checksum;  // of the header, which holds that of the table, which holds those of the sections

    bool operator==(const SnapshotIdentity&) const = default;
};

class SnapshotWriter {
public:
    SnapshotWriter(FileSystem& files, std::string path, Application application);
    SnapshotWriter(const SnapshotWriter&) = delete;
    SnapshotWriter& operator=(const SnapshotWriter&) = delete;
    ~SnapshotWriter();  // without commit(): removes the unfinished file

    // Begins a section; what write() gets belongs to it. Throws InvalidArgument for a name that is empty, too long or
    // taken.
    void begin_section(std::string_view name);
    void write(Bytes bytes);
    // A whole section at once.
    void add_section(std::string_view name, Bytes bytes);

    // Ends the file. When it returns, the snapshot is durable under its name. Nothing can be written any more.
    SnapshotIdentity commit();

private:
    void require_open() const;
    void put_bytes(Bytes bytes);
    void flush();
    void pad(std::uint64_t multiple);
    void end_section();
    std::vector<std::byte> encode_table() const;

    FileSystem& files_;
    std::string path_;
    Application application_;
    std::unique_ptr<File> file_;  // empty when committed
    std::vector<SectionInfo> sections_;
    std::set<std::string, std::less<>> names_;
    bool in_section_ = false;
    std::uint64_t end_ = 0;          // of what was put, whether flushed or not
    std::vector<std::byte> buffer_;  // small pieces are written together
};

class Snapshot {
public:
    // Maps the file and reads its table. Throws NotFound, IoError, UnsupportedFormat, Corruption.
    Snapshot(FileSystem& files, const std::string& path, const Application& application);

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const Application& application() const noexcept { return application_; }
    [[nodiscard]] SnapshotIdentity identity() const noexcept { return identity_; }
    [[nodiscard]] const std::vector<SectionInfo>& sections() const noexcept { return sections_; }  // as written
    [[nodiscard]] bool has_section(std::string_view name) const noexcept;

    // The content, not checked against its checksum. Throws NotFound.
    [[nodiscard]] Bytes section(std::string_view name) const;
    // The same after a look at the checksum.
    [[nodiscard]] Bytes verified_section(std::string_view name) const;

    // Every byte of the file. Throws Corruption.
    void verify() const;

private:
    [[nodiscard]] const SectionInfo* find(std::string_view name) const noexcept;
    [[nodiscard]] const SectionInfo& require(std::string_view name) const;
    void read_table(Bytes table, std::uint64_t count);
    void check(const SectionInfo& section) const;

    std::string path_;
    Application application_;
    SnapshotIdentity identity_{};
    std::shared_ptr<const MappedFile> file_;
    std::uint64_t table_offset_ = 0;
    std::vector<SectionInfo> sections_;
    std::vector<std::uint32_t> by_name_;  // places in sections_, ordered by name
};

}  // namespace sage::storage
