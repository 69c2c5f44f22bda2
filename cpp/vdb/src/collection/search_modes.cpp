// Range, diversity, groups and words.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <unordered_map>

#include "collection/searcher.hpp"
#include "collection/transaction.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

void require_share(double value, const char* name) {
    if (!(value >= 0.0 && value <= 1.0)) {
        throw InvalidArgument(std::string(name) + " must be between 0 and 1, got " + std::to_string(value));
    }
}

void require_k(std::size_t k, const char* name) {
    if (k < 1 || k > Collection::k_max) {
        throw InvalidArgument(std::string(name) + " must be between 1 and " + std::to_string(Collection::k_max) +
                              ", got " + std::to_string(k));
    }
}

void require_modes(const SearchRequest& request) {
    const bool has_texts = !request.texts.empty();
    if (request.radius && (request.mmr || request.group_by || has_texts)) {
        throw InvalidArgument("radius cannot be combined with mmr, group_by or texts: their order is not that of a score alone");
    }
    if (request.radius && !std::isfinite(*request.radius)) {
        throw InvalidArgument("radius must be finite, got " + std::to_string(*request.radius));
    }
    if (request.mmr && (request.group_by || has_texts)) {
        throw InvalidArgument("mmr cannot be combined with group_by or texts");
    }
    if (request.mmr) {
        require_share(request.mmr->lambda, "mmr.lambda");
        if (request.mmr->fetch_k != 0) {
            require_k(request.mmr->fetch_k, "mmr.fetch_k");
        }
    }
    if (request.group_by) {
        require_k(request.group_by->per_group, "group_by.per_group");
    }
    if (has_texts) {
        require_share(request.fusion.alpha, "fusion.alpha");
        if (!(request.fusion.k0 > 0.0 && std::isfinite(request.fusion.k0))) {
            throw InvalidArgument("fusion.k0 must be above 0 and finite, got " + std::to_string(request.fusion.k0));
        }
        if (request.fusion.fetch_k != 0) {
            require_k(request.fusion.fetch_k, "fusion.fetch_k");
        }
    }
}

// 0 for the worst, 1 for the best; 1 for all when they are equal.
std::vector<double> scaled(const std::vector<Found>& found, bool higher) {
    std::vector<double> parts(found.size(), 1.0);
    if (found.empty()) {
        return parts;
    }
    const auto [low, high] = std::minmax_element(
        found.begin(), found.end(), [](const Found& left, const Found& right) { return left.score < right.score; });
    const double span = static_cast<double>(high->score) - static_cast<double>(low->score);
    for (std::size_t i = 0; span > 0 && i < found.size(); ++i) {
        const double part = (static_cast<double>(found[i].score) - static_cast<double>(low->score)) / span;
        parts[i] = higher ? part : 1.0 - part;
    }
    return parts;
}

}  // namespace

void validate_request(const CollectionOptions& options, const SearchRequest& request, bool pages) {
    if (!pages) {
        require_k(request.k, "k");
    }
    if (request.queries.empty() && request.texts.empty()) {
        throw InvalidArgument("a search needs a vector or a text, got neither");
    }
    if (request.queries.size() % options.dimension != 0) {
        throw InvalidArgument("queries must be rows of dimension " + std::to_string(options.dimension) + ", got " +
                              std::to_string(request.queries.size()) + " values; does the model have another dimension?");
    }
    const std::size_t rows = request.queries.size() / options.dimension;
    if (rows != 0 && !request.texts.empty() && request.texts.size() != rows) {
        throw InvalidArgument("texts must be one for each of the " + std::to_string(rows) + " queries, got " +
                              std::to_string(request.texts.size()));
    }
    if (!(request.recall > 0.0 && request.recall <= 1.0)) {
        throw InvalidArgument("recall must be above 0 and at most 1, got " + std::to_string(request.recall));
    }
    if (request.effort > Collection::k_max) {
        throw InvalidArgument("effort must be at most " + std::to_string(Collection::k_max) + ", got " +
                              std::to_string(request.effort));
    }
    validate_vectors(options, request.queries, false, "queries");
    require_modes(request);
    if (pages && (request.radius || request.mmr || request.group_by)) {
        throw InvalidArgument("pages cannot be combined with radius, mmr or group_by");
    }
    if (pages && std::max(rows, request.texts.size()) != 1) {
        throw InvalidArgument("pages are those of one query, got " + std::to_string(std::max(rows, request.texts.size())));
    }
}

std::span<const float> Searcher::query(std::size_t place) const {
    return request_.queries.empty() ? std::span<const float>()
                                    : request_.queries.subspan(place * options_.dimension, options_.dimension);
}

std::vector<Found> Searcher::answer(std::size_t place) const {
    if (request_.group_by) {
        return grouped(place);
    }
    if (request_.mmr) {
        return diverse(query(place));
    }
    if (request_.radius) {
        return within(query(place));
    }
    return plain(place, request_.k);
}

std::vector<Found> Searcher::plain(std::size_t place, std::size_t count) const {
    if (request_.texts.empty()) {
        return nearest(query(place), count);
    }
    return request_.queries.empty() ? words(place, count) : fused(place, count);
}

std::vector<Found> Searcher::words(std::size_t place, std::size_t count) const {
    const std::string& text = request_.texts[place];
    std::vector<Found> found;
    if (plan_.filter && !plan_.heads) {
        // The plan is to check afterwards; the words take a set.
        const SlotSet heads = plan_.filter->evaluate();
        for (const TextHit& hit : state_.words->search(text, count, &heads)) {
            found.push_back({hit.slot, static_cast<float>(hit.score)});
        }
        return found;
    }
    for (const TextHit& hit : state_.words->search(text, count, plan_.heads ? &*plan_.heads : nullptr)) {
        found.push_back({hit.slot, static_cast<float>(hit.score)});
    }
    return found;
}

std::vector<Found> Searcher::fused(std::size_t place, std::size_t count) const {
    const Fusion& fusion = request_.fusion;
    const std::size_t fetch = std::max(count, fusion.fetch_k != 0 ? fusion.fetch_k : std::max<std::size_t>(64, 4 * count));
    const std::vector<Found> by_vector = nearest(query(place), fetch);
    const std::vector<Found> by_words = words(place, fetch);
    std::unordered_map<Slot, double> scores;
    if (fusion.kind == Fusion::Kind::reciprocal_rank) {
        for (const auto* side : {&by_vector, &by_words}) {
            for (std::size_t i = 0; i < side->size(); ++i) {
                scores[(*side)[i].head] += 1.0 / (fusion.k0 + static_cast<double>(i + 1));
            }
        }
    } else {
        const std::vector<double> vector_parts = scaled(by_vector, higher_);
        const std::vector<double> word_parts = scaled(by_words, true);
        for (std::size_t i = 0; i < by_vector.size(); ++i) {
            scores[by_vector[i].head] += fusion.alpha * vector_parts[i];
        }
        for (std::size_t i = 0; i < by_words.size(); ++i) {
            scores[by_words[i].head] += (1.0 - fusion.alpha) * word_parts[i];
        }
    }
    std::vector<std::pair<double, Slot>> order;
    for (const auto& [head, score] : scores) {
        order.emplace_back(-score, head);
    }
    std::sort(order.begin(), order.end());
    std::vector<Found> found;
    for (std::size_t i = 0; i < std::min(count, order.size()); ++i) {
        found.push_back({order[i].second, static_cast<float>(-order[i].first)});
    }
    return found;
}

std::vector<Found> Searcher::within(std::span<const float> query) const {
    const float radius = *request_.radius;
    const auto outside = [&](const Found& found) { return higher_ ? found.score < radius : found.score > radius; };
    std::vector<Found> found;
    for (std::size_t count = std::min<std::size_t>(request_.k, 64);; count = std::min(request_.k, count * 4)) {
        found = nearest(query, count);
        if (found.size() < count || count == request_.k || outside(found.back())) {
            break;
        }
    }
    std::erase_if(found, outside);
    return found;
}

std::vector<Found> Searcher::diverse(std::span<const float> query) const {
    const std::size_t fetch =
        std::max(request_.k, request_.mmr->fetch_k != 0 ? request_.mmr->fetch_k : std::max<std::size_t>(32, 4 * request_.k));
    const std::vector<Found> found = nearest(query, fetch);
    const std::size_t dimension = options_.dimension;
    const auto& kernels = distance::kernels();
    const auto likeness = [this](double score) { return options_.metric == Metric::l2 ? 1.0 / (1.0 + score) : score; };
    // The head's vector stands for a document of several.
    std::vector<float> rows(found.size() * dimension);
    for (std::size_t i = 0; i < found.size(); ++i) {
        vector_of(found[i].head, std::span(rows).subspan(i * dimension, dimension));
    }
    const double lambda = request_.mmr->lambda;
    std::vector<double> closest(found.size(), -std::numeric_limits<double>::infinity());
    std::vector<bool> taken(found.size(), false);
    std::vector<Found> chosen;
    while (chosen.size() < std::min(request_.k, found.size())) {
        std::size_t best = found.size();
        double best_worth = 0;
        for (std::size_t i = 0; i < found.size(); ++i) {
            const double other = chosen.empty() ? 0.0 : closest[i];
            const double worth = lambda * likeness(found[i].score) - (1.0 - lambda) * other;
            if (!taken[i] && (best == found.size() || worth > best_worth)) {
                best = i;
                best_worth = worth;
            }
        }
        taken[best] = true;
        chosen.push_back(found[best]);
        const float* row = rows.data() + best * dimension;
        for (std::size_t i = 0; i < found.size(); ++i) {
            const float* other = rows.data() + i * dimension;
            const float score = options_.metric == Metric::l2 ? kernels.l2_squared(row, other, dimension)
                                                              : kernels.inner_product(row, other, dimension);
            closest[i] = std::max(closest[i], likeness(score));
        }
    }
    return chosen;
}

std::vector<Found> Searcher::grouped(std::size_t place) const {
    const GroupBy& group = *request_.group_by;
    const auto type = state_.metadata->type(group.field);
    if (!type && state_.documents > 0) {
        std::string names;
        for (const std::string& name : state_.metadata->field_names()) {
            names += (names.empty() ? "'" : ", '") + name + "'";
        }
        throw InvalidArgument("group_by.field must be a metadata field, got '" + group.field + "'; there are " +
                              (names.empty() ? "none" : names));
    }
    if (type == FieldType::strings) {
        throw InvalidArgument("group_by.field must not hold lists, '" + group.field + "' does");
    }
    std::vector<Found> answer;
    for (std::size_t count = std::max<std::size_t>(64, 4 * request_.k * group.per_group);; count *= 4) {
        const std::vector<Found> found = plain(place, count);
        std::map<std::optional<Value>, std::size_t> places;
        std::vector<std::vector<Found>> groups;
        std::size_t full = 0;
        for (const Found& one : found) {
            const auto value = state_.metadata->get(one.head, group.field);
            const auto known = places.find(value);
            if (known == places.end() && groups.size() == request_.k) {
                continue;
            }
            const std::size_t at = known == places.end() ? groups.size() : known->second;
            if (known == places.end()) {
                places.emplace(value, at);
                groups.emplace_back();
            }
            if (groups[at].size() < group.per_group) {
                groups[at].push_back(one);
                full += groups[at].size() == group.per_group ? 1 : 0;
            }
        }
        if (found.size() < count || full == request_.k || count >= state_.documents) {
            for (const auto& members : groups) {
                answer.insert(answer.end(), members.begin(), members.end());
            }
            return answer;
        }
    }
}

}  // namespace sage::vdb::detail
