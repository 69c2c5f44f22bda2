// What the log of a database holds. Internal.
//
// A record: operation (a byte), number of the collection (varint), then
//   create   name, options
//   drop     nothing
//   rename   the new name
//   put      documents (added, or put in the place of those with their ids)
//   update   documents
//   remove   ids
// docs/reference/storage-format.md has the bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "byte_stream.hpp"
#include "sage/vdb/collection.hpp"

namespace sage::vdb::detail {

enum class Operation : std::uint8_t { create = 1, drop = 2, rename = 3, put = 4, update = 5, remove = 6 };

using StoredReader = ByteReader<Corruption>;

void encode_options(ByteWriter& out, const CollectionOptions& options);
// Throws Corruption for what no collection can have.
[[nodiscard]] CollectionOptions decode_options(StoredReader& in);
// Throws InvalidArgument.
void validate_options(const CollectionOptions& options);

void encode_value(ByteWriter& out, const Value& value);
[[nodiscard]] Value decode_value(StoredReader& in);

void encode_ids(ByteWriter& out, const IdSpan& ids);
[[nodiscard]] IdList decode_ids(StoredReader& in);
[[nodiscard]] IdSpan span_of(const IdList& ids);

// Documents that own what they refer to.
struct OwnedDocuments {
    IdList ids;
    std::vector<float> vectors;
    std::vector<std::uint32_t> vector_counts;
    std::vector<Record> metadata;
    std::vector<std::optional<std::string>> texts;

    [[nodiscard]] Documents view() const;
};

// Into the memory of `room`.
[[nodiscard]] std::vector<std::byte> encode_documents(Operation operation, std::uint64_t collection,
                                                      const Documents& documents, std::vector<std::byte> room = {});
[[nodiscard]] OwnedDocuments decode_documents(StoredReader& in);
[[nodiscard]] std::vector<std::byte> encode_removal(std::uint64_t collection, const IdSpan& ids);

}  // namespace sage::vdb::detail
