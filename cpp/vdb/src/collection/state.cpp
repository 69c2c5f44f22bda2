#include "collection/state.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

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

namespace {

// Integers whose order is that of the floats, one apart for neighbours; 0 for both zeros.
std::int64_t ordinal(float value) noexcept {
    const auto bits = std::bit_cast<std::int32_t>(value);
    return bits >= 0 ? std::int64_t{bits} : -std::int64_t{bits & 0x7FFF'FFFF};
}

float from_ordinal(std::int64_t number) noexcept {
    return number >= 0 ? std::bit_cast<float>(static_cast<std::int32_t>(number))
                       : -std::bit_cast<float>(static_cast<std::int32_t>(-number));
}

float times(float value, double length) noexcept { return static_cast<float>(static_cast<double>(value) * length); }

bool same_bits(float left, float right) noexcept {
    return std::bit_cast<std::uint32_t>(left) == std::bit_cast<std::uint32_t>(right);
}

}  // namespace

Ref<Correction> correction_of(std::span<const float> original, std::span<const float> row, RowLength length,
                              Owner owner) {
    bool same = length.settled;
    bool near = length.settled;
    for (std::size_t i = 0; i < original.size() && (same || near); ++i) {
        same = same && same_bits(row[i] * static_cast<float>(length.value), original[i]);
        const float again = times(row[i], length.value);
        const std::int64_t off = ordinal(original[i]) - ordinal(again);
        near = near && off >= -1 && off <= 1 && std::signbit(again) == std::signbit(original[i]);
    }
    if (same) {
        return {};
    }
    Ref<Correction> made = persistent::make_node<Correction>(owner);
    if (!near) {
        made->bytes.resize(original.size_bytes());
        std::memcpy(made->bytes.data(), original.data(), original.size_bytes());
        return made;
    }
    made->length = length.value;
    made->bytes.resize(correction_bytes(original.size()));
    for (std::size_t i = 0; i < original.size(); ++i) {
        const std::int64_t off = ordinal(original[i]) - ordinal(times(row[i], length.value));
        made->bytes[i / 4] = static_cast<std::uint8_t>(made->bytes[i / 4] | ((off + 1) << (2 * (i % 4))));
    }
    return made;
}

void restore_vector(std::span<float> row, float length, const Correction* correction) {
    if (correction == nullptr) {
        if (length != 1.0F) {
            std::transform(row.begin(), row.end(), row.begin(), [length](float value) { return value * length; });
        }
        return;
    }
    if (correction->bytes.size() == row.size_bytes()) {
        std::memcpy(row.data(), correction->bytes.data(), row.size_bytes());
        return;
    }
    for (std::size_t i = 0; i < row.size(); ++i) {
        const std::int64_t off = ((correction->bytes[i / 4] >> (2 * (i % 4))) & 3) - 1;
        row[i] = times(row[i], correction->length);
        if (off != 0) {
            row[i] = from_ordinal(ordinal(row[i]) + off);
        }
    }
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
