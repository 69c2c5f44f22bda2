// Changes of a collection that readers see all at once. Internal.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "collection/core.hpp"

namespace sage::vdb::detail {

// Made, used and ended under the collection's write lock. A transaction that goes without commit() has changed nothing:
// what it has put into the tail no version refers to. The documents have been validated, except for what the metadata
// and the text index check themselves.
class Transaction {
public:
    explicit Transaction(CollectionCore& core);
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction();

    void put(const Documents& documents);
    void update(const Documents& documents);
    std::size_t remove(const IdSpan& ids);
    void commit();

    [[nodiscard]] const CollectionState& state() const noexcept { return *state_; }

private:
    [[nodiscard]] MetadataBatch& metadata();
    [[nodiscard]] Bm25Batch& words();
    [[nodiscard]] FlatTail& tail();
    // How the vectors of a write come back from the rows that are kept.
    struct Kept {
        std::vector<RowLength> lengths;
        std::vector<Ref<Correction>> corrections;  // none: rows that are not scaled, or rounded anyway
    };
    // The slots of new rows, which are in the tail then.
    std::vector<Slot> insert_rows(std::span<const float> vectors, Kept& kept);
    void link(const DocumentId& id, std::span<const Slot> slots, std::size_t row, std::size_t rows, const Kept& kept);
    // Takes the document's vectors, metadata and text away, and its id unless a new head takes that over.
    void erase(Slot head, bool with_id);
    void set_text(Slot head, std::string_view text);
    void set_id(const DocumentId& id, Slot head);
    void forget_id(Slot head);

    CollectionCore& core_;
    const Owner owner_;
    std::shared_ptr<CollectionState> state_;  // nullptr after commit
    std::optional<MetadataBatch> metadata_;
    std::optional<Bm25Batch> words_;
    std::vector<Slot> inserted_;
    std::vector<Slot> dead_;
};

// A row as it is kept: of length 1 under cosine, rounded to the storage format.
void prepare_rows(const CollectionOptions& options, std::span<float> rows, std::vector<RowLength>& lengths);

// Everything about the documents that can be said without changing anything. Throws InvalidArgument, NotFound.
void validate(const CollectionOptions& options, const CollectionState& state, CollectionCore::Write kind,
              const Documents& documents);
void validate_ids(const CollectionState& state, const IdSpan& ids, bool distinct);
void validate_vectors(const CollectionOptions& options, std::span<const float> rows, bool stored, const char* what);

[[nodiscard]] DocumentId id_at(const IdSpan& ids, std::size_t place);

}  // namespace sage::vdb::detail
