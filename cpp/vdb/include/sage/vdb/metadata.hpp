// What is known of each slot: typed fields, indexed for filters.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {

namespace detail {
struct MetadataState;
struct MetadataShared;
}  // namespace detail

// Microseconds since 1970-01-01 00:00 UTC.
struct Time {
    std::int64_t microseconds = 0;
    auto operator<=>(const Time&) const = default;
};

using Strings = std::vector<std::string>;
using Value = std::variant<std::int64_t, double, bool, std::string, Strings, Time>;
// Names and values, each name once.
using Record = std::vector<std::pair<std::string, Value>>;

// The numbers are part of the stored formats. In the order of Value's alternatives.
enum class FieldType : std::uint8_t { int64 = 1, float64 = 2, boolean = 3, string = 4, strings = 5, time = 6 };

// "int", "float", "bool", "string", "list of strings", "time".
[[nodiscard]] std::string_view field_type_name(FieldType type) noexcept;
[[nodiscard]] FieldType type_of(const Value& value) noexcept;
// As messages show it: 7, 2.5, true, 'text' (shortened), ['a', 'b'], time 17.
[[nodiscard]] std::string describe(const Value& value);

struct FieldStats {
    std::string name;
    FieldType type = FieldType::int64;
    std::size_t count = 0;         // slots with a value
    std::size_t distinct = 0;      // different values; of lists: different strings in them
    std::size_t column_bytes = 0;  // about; a string counts once however many slots share it
    std::size_t index_bytes = 0;
};

// The metadata as it was at one moment. Everything that is read from one snapshot belongs together: all fields, all
// indexes, all slots. Cheap to copy; it keeps its version in memory until the last copy is gone.
//
// Threads: any number may read one snapshot.
class MetadataSnapshot {
public:
    // How many slots have a record, an empty one counts.
    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] bool contains(Slot slot) const noexcept;
    // One above the highest slot with a record.
    [[nodiscard]] std::size_t slot_end() const noexcept;
    [[nodiscard]] SlotSet slots() const;

    // The record of `slot`, its fields in the order in which they first appeared in the store. Values are exactly those
    // that were put in. Empty for a slot without a record.
    [[nodiscard]] Record get(Slot slot) const;
    [[nodiscard]] std::optional<Value> get(Slot slot, std::string_view field) const;

    [[nodiscard]] std::optional<FieldType> type(std::string_view field) const noexcept;
    // In the order in which they first appeared.
    [[nodiscard]] std::vector<std::string> field_names() const;
    // Walks the indexes: for people, not for each query.
    [[nodiscard]] std::vector<FieldStats> stats() const;

    // The whole as a versioned buffer; see Metadata::load.
    [[nodiscard]] std::vector<std::byte> save() const;

private:
    friend class Metadata;
    friend class MetadataBatch;
    friend class BoundFilter;
    explicit MetadataSnapshot(std::shared_ptr<const detail::MetadataState> state) : state_(std::move(state)) {}

    std::shared_ptr<const detail::MetadataState> state_;
};

// Changes that readers see all at once at commit(), or never. Made by Metadata::begin(); a batch that goes without
// commit has changed nothing. A call that throws InvalidArgument has changed nothing, not even in the batch.
class MetadataBatch {
public:
    MetadataBatch(MetadataBatch&&) noexcept = default;
    MetadataBatch& operator=(MetadataBatch&&) = delete;
    ~MetadataBatch();

    // The slot has exactly this record afterwards.
    void replace(Slot slot, const Record& record);
    // Sets these fields and keeps the others.
    void merge(Slot slot, const Record& record);
    // Takes fields away; unknown names are passed over. The slot keeps its record, be it empty.
    void unset(Slot slot, std::span<const std::string> fields);
    // Whether there was a record.
    bool erase(Slot slot);

    // Reads what the batch has done so far.
    [[nodiscard]] Record get(Slot slot) const;
    void commit();

private:
    friend class Metadata;
    explicit MetadataBatch(std::shared_ptr<detail::MetadataShared> shared);
    void require_open() const;
    void enter(Slot slot, const Record& record);

    std::shared_ptr<detail::MetadataShared> shared_;  // nullptr after commit
    std::shared_ptr<detail::MetadataState> state_;
    std::uint64_t owner_ = 0;
};

// Typed columns by slot with secondary indexes.
//
// Fields: a field exists from its first value on, and that value fixes its type for good; a value of another type is an
// error, but for an int in a float field, which becomes a float if one holds it. Names have 1 to field_name_bytes_max bytes. NaN is refused: it equals
// nothing, so no filter could find it. -0.0 is kept and equals 0.0. A list keeps its order and its duplicates.
// A row without metadata should get an empty record: "not" and "!=" range over the slots that have one.
//
// Threads: one writer at a time (begin() refuses a second batch), any number of readers, who never wait for it: they
// take snapshots, and a commit swaps one pointer. Versions share what did not change.
class Metadata {
public:
    static constexpr std::size_t field_name_bytes_max = 255;
    static constexpr std::size_t fields_max = 4096;
    static constexpr std::size_t string_bytes_max = std::size_t{1} << 20;
    static constexpr std::size_t list_items_max = 65'536;
    static constexpr std::size_t list_bytes_max = std::size_t{16} << 20;  // of all strings of one list

    Metadata();

    [[nodiscard]] MetadataSnapshot snapshot() const;
    [[nodiscard]] MetadataBatch begin();

    // Batches of one.
    void replace(Slot slot, const Record& record);
    void merge(Slot slot, const Record& record);
    bool erase(Slot slot);

    // What save() wrote. Everything is checked: Corruption for a damaged buffer, UnsupportedFormat for one that is none
    // of ours or newer.
    [[nodiscard]] static Metadata load(std::span<const std::byte> bytes);

private:
    std::shared_ptr<detail::MetadataShared> shared_;
};

}  // namespace sage::vdb
