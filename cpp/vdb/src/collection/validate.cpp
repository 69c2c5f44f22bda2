// What documents must be like before anything is changed.
#include <cmath>
#include <string>
#include <unordered_set>

#include "collection/transaction.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

// Squares of such lengths, and their sums and differences, are finite.
constexpr float length_max = 6.5e18F;
constexpr float half_max = 65504.0F;

std::string number_text(float value) {
    return std::isnan(value) ? "nan" : std::isinf(value) ? (value > 0 ? "inf" : "-inf") : std::to_string(value);
}

void require_count(std::size_t found, std::size_t wanted, const char* what) {
    if (found != 0 && found != wanted) {
        throw InvalidArgument(std::string(what) + " must have one entry for each of the " + std::to_string(wanted) +
                              " ids or be left out, got " + std::to_string(found));
    }
}

void require_rows(const CollectionOptions& options, const Documents& documents, std::size_t ids, bool optional) {
    std::size_t rows = ids;
    if (!documents.vector_counts.empty()) {
        rows = 0;
        for (std::size_t i = 0; i < ids; ++i) {
            const std::uint32_t count = documents.vector_counts[i];
            if (count < 1 || count > Collection::vectors_per_document_max) {
                throw InvalidArgument("a document must have 1 to " +
                                      std::to_string(Collection::vectors_per_document_max) + " vectors, got " +
                                      std::to_string(count) + " for " + describe(id_at(documents.ids, i)));
            }
            rows += count;
        }
    }
    if (optional && documents.vectors.empty()) {
        if (!documents.vector_counts.empty()) {
            throw InvalidArgument("vector_counts must be left out where there are no vectors");
        }
        return;
    }
    if (documents.vectors.size() != rows * options.dimension) {
        throw InvalidArgument("vectors must be " + std::to_string(rows) + " rows of dimension " +
                              std::to_string(options.dimension) + ", that is " +
                              std::to_string(rows * options.dimension) + " values, got " +
                              std::to_string(documents.vectors.size()) + "; does the model have another dimension?");
    }
}

template <class Id>
void require_distinct(std::span<const Id> ids) {
    using Key = std::conditional_t<std::is_same_v<Id, std::string>, std::string_view, Id>;
    std::unordered_set<Key> seen;
    seen.reserve(ids.size());
    for (const Id& id : ids) {
        if (!seen.insert(id).second) {
            throw InvalidArgument("ids must be distinct within a call, got " + describe(DocumentId(id)) + " twice");
        }
    }
}

}  // namespace

void validate_vectors(const CollectionOptions& options, std::span<const float> rows, bool stored, const char* what) {
    const std::size_t dimension = options.dimension;
    const bool narrow = stored && options.storage == Storage::float16 && options.metric != Metric::cosine;
    const auto& kernels = distance::kernels();
    for (std::size_t row = 0; row < rows.size() / dimension; ++row) {
        const float* values = rows.data() + row * dimension;
        const float squares = kernels.inner_product(values, values, dimension);
        if (squares <= length_max * length_max && !(narrow && squares > half_max * half_max)) {
            continue;
        }
        const std::string name = std::string(what) + "[" + std::to_string(row) + "]";
        for (std::size_t i = 0; i < dimension; ++i) {
            if (!std::isfinite(values[i])) {
                throw InvalidArgument(name + "[" + std::to_string(i) + "] must be finite, got " + number_text(values[i]));
            }
            if (narrow && std::fabs(values[i]) > half_max) {
                throw InvalidArgument(name + "[" + std::to_string(i) + "] must be within 65504 in float16 storage, got " +
                                      number_text(values[i]) + "; float32 and bfloat16 hold it");
            }
        }
        if (!(squares <= length_max * length_max)) {
            throw InvalidArgument(name + " must not be longer than 6.5e18, so that scores stay finite");
        }
    }
}

void validate_ids(const CollectionState& state, const IdSpan& ids, bool distinct) {
    const bool texts = std::holds_alternative<std::span<const std::string>>(ids);
    if (count_of(ids) == 0) {
        return;
    }
    if (state.id_kind != IdKind::none && texts != (state.id_kind == IdKind::text)) {
        throw InvalidArgument(std::string("the ids of this collection are ") +
                              (texts ? "numbers, as the first one was, got " : "texts, as the first one was, got ") +
                              describe(id_at(ids, 0)));
    }
    if (texts) {
        for (const std::string& id : std::get<std::span<const std::string>>(ids)) {
            if (id.empty() || id.size() > Collection::id_bytes_max) {
                throw InvalidArgument("an id must have 1 to " + std::to_string(Collection::id_bytes_max) +
                                      " bytes, got " + std::to_string(id.size()));
            }
        }
    }
    if (distinct) {
        std::visit([](const auto& some) { require_distinct(some); }, ids);
    }
}

void validate(const CollectionOptions& options, const CollectionState& state, CollectionCore::Write kind,
              const Documents& documents) {
    const std::size_t count = count_of(documents.ids);
    validate_ids(state, documents.ids, true);
    require_count(documents.vector_counts.size(), count, "vector_counts");
    require_count(documents.metadata.size(), count, "metadata");
    require_count(documents.texts.size(), count, "texts");
    require_rows(options, documents, count, kind == CollectionCore::Write::update);
    validate_vectors(options, documents.vectors, true, "vectors");
    if (state.vectors + documents.vectors.size() / options.dimension > slot_max / 2) {
        throw InvalidArgument("a collection must have at most " + std::to_string(slot_max / 2) + " vectors");
    }
    for (std::size_t i = 0; i < documents.texts.size(); ++i) {
        if (documents.texts[i] && documents.texts[i]->size() > Collection::text_bytes_max) {
            throw InvalidArgument("a text must have at most " + std::to_string(Collection::text_bytes_max) +
                                  " bytes, got " + std::to_string(documents.texts[i]->size()) + " for " +
                                  describe(id_at(documents.ids, i)) + "; cut it into several documents");
        }
    }
    if (kind == CollectionCore::Write::upsert) {
        return;
    }
    for (std::size_t i = 0; i < count; ++i) {
        const DocumentId id = id_at(documents.ids, i);
        const bool known = state.find(id) != no_head;
        if (kind == CollectionCore::Write::add && known) {
            throw InvalidArgument("id " + describe(id) + " is in the collection already; use upsert to replace it");
        }
        if (kind == CollectionCore::Write::update && !known) {
            throw NotFound("there is no document " + describe(id) + " to update; use upsert to add it");
        }
    }
}

}  // namespace sage::vdb::detail
