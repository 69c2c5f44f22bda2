// What goes into a collection and comes out of it.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "sage/vdb/metadata.hpp"

namespace sage::vdb {

// The name of a document: a number or a text, the same kind for all documents of a collection.
using DocumentId = std::variant<std::int64_t, std::string>;

enum class IdKind : std::uint8_t {
    none = 0,  // the collection has never held a document
    integer = 1,
    text = 2,
};

// As messages show it: 7, 'seven'.
[[nodiscard]] std::string describe(const DocumentId& id);

// Ids that the caller holds; valid during a call.
using IdSpan = std::variant<std::span<const std::int64_t>, std::span<const std::string>>;
[[nodiscard]] inline std::size_t count_of(const IdSpan& ids) {
    return std::visit([](const auto& some) { return some.size(); }, ids);
}

// Ids that were found.
using IdList = std::variant<std::vector<std::int64_t>, std::vector<std::string>>;
[[nodiscard]] inline std::size_t count_of(const IdList& ids) {
    return std::visit([](const auto& some) { return some.size(); }, ids);
}
[[nodiscard]] DocumentId id_at(const IdList& ids, std::size_t place);

// Documents to be written; views of the caller's memory, valid during a call.
struct Documents {
    IdSpan ids = std::span<const std::int64_t>();
    // Row after row, in the order of the ids.
    std::span<const float> vectors = {};
    // How many rows each document has; empty: one each. A document has at least one.
    std::span<const std::uint32_t> vector_counts = {};
    // One for each document, or empty: none has any.
    std::span<const Record> metadata = {};
    // One for each document, or empty: none has any.
    std::span<const std::optional<std::string>> texts = {};
};

// Which parts of documents are wanted.
struct Include {
    bool vectors = false;
    bool metadata = false;
    bool text = false;
};

// Documents that were read: entry i of each part belongs to ids[i]. Parts that were not wanted are empty.
struct DocumentList {
    IdList ids;
    std::vector<float> vectors;                // row after row
    std::vector<std::uint32_t> vector_counts;  // rows of each
    std::vector<Record> metadata;
    std::vector<std::optional<std::string>> texts;

    [[nodiscard]] std::size_t size() const { return count_of(ids); }
};

}  // namespace sage::vdb
