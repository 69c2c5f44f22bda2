#include "collection/state.hpp"

#include "collection/transaction.hpp"

namespace sage::vdb {

std::string describe(const DocumentId& id) {
    if (const auto* number = std::get_if<std::int64_t>(&id)) {
        return std::to_string(*number);
    }
    constexpr std::size_t shown = 60;
    const auto& text = std::get<std::string>(id);
    std::string quoted(1, '\'');
    quoted.append(text, 0, shown);
    return quoted.append(text.size() > shown ? "...'" : "'");
}

DocumentId id_at(const IdList& ids, std::size_t place) {
    return std::visit([place](const auto& some) { return DocumentId(some.at(place)); }, ids);
}

namespace detail {

DocumentId id_at(const IdSpan& ids, std::size_t place) {
    return std::visit([place](const auto& some) { return DocumentId(some[place]); }, ids);
}

Slot CollectionState::find(const DocumentId& id) const {
    if (const auto* number = std::get_if<std::int64_t>(&id)) {
        return find(*number);
    }
    return find(std::string_view(std::get<std::string>(id)));
}

DocumentId CollectionState::id_of(Slot head) const {
    if (id_kind == IdKind::text) {
        return std::string(name_of.find(head)->view());
    }
    return *number_of.find(head);
}

IdList CollectionState::empty_ids() const {
    if (id_kind == IdKind::text) {
        return std::vector<std::string>();
    }
    return std::vector<std::int64_t>();
}

void CollectionState::append_id(Slot head, IdList& ids) const {
    if (id_kind == IdKind::text) {
        std::get<std::vector<std::string>>(ids).emplace_back(name_of.find(head)->view());
    } else {
        std::get<std::vector<std::int64_t>>(ids).push_back(*number_of.find(head));
    }
}

}  // namespace detail
}  // namespace sage::vdb
