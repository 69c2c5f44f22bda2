#include "sage/vdb/bm25.hpp"

#include <string>

#include "bm25_state.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {

using detail::Bm25State;
using detail::Document;
using detail::Occurrence;
using detail::Owner;
using detail::Term;
using detail::TextRef;

namespace detail {

Bm25Options checked(Bm25Options options) {
    if (!std::isfinite(options.k1) || options.k1 < 0) {
        throw InvalidArgument("k1 must be finite and >= 0, got " + std::to_string(options.k1));
    }
    if (!(options.b >= 0 && options.b <= 1)) {
        throw InvalidArgument("b must be between 0 and 1, got " + std::to_string(options.b));
    }
    return options;
}

}  // namespace detail

namespace {

constexpr auto nowhere = [](const auto&) { return false; };

void require_slot(Slot slot) {
    if (slot > slot_max) {
        throw InvalidArgument("slot must be at most " + std::to_string(slot_max) + ", got " + std::to_string(slot));
    }
}

std::shared_ptr<const Bm25State> empty_state(Bm25Options options) {
    auto state = std::make_shared<Bm25State>();
    state->options = detail::checked(options);
    return state;
}

// The number of a token, a new one if need be.
std::uint32_t number_of(Bm25State& state, detail::Bm25Shared& shared, std::string_view token, Owner owner) {
    if (const auto known = shared.numbers.find(token); known != shared.numbers.end()) {
        return known->second.second;
    }
    const TextRef name(token);
    std::uint32_t number = state.number_end;
    if (state.free_numbers.empty()) {
        ++state.number_end;
    } else {
        number = state.free_numbers.back();
        state.free_numbers.pop_back();
    }
    state.terms.edit(number, owner).name = name;
    state.names.change(name, owner, [number](std::uint32_t& value) {
        value = number;
        return persistent::Tree<detail::NameTraits>::Change{{}, true};
    });
    shared.numbers.emplace(name.view(), std::pair{name, number});
    return number;
}

void forget_term(Bm25State& state, detail::Bm25Shared& shared, std::uint32_t number, Owner owner) {
    Term& term = state.terms.edit(number, owner);
    const TextRef name = term.name;
    state.names.change(name, owner,
                       [](std::uint32_t&) { return persistent::Tree<detail::NameTraits>::Change{{}, false}; });
    shared.numbers.erase(name.view());
    term = Term{};
    state.free_numbers.push_back(number);
}

}  // namespace

std::size_t Bm25Snapshot::size() const noexcept { return state_->slots.count(); }
bool Bm25Snapshot::contains(Slot slot) const noexcept { return state_->slots.contains(slot); }
Bm25Options Bm25Snapshot::options() const noexcept { return state_->options; }

double Bm25Snapshot::idf(std::string_view token) const {
    const detail::Occurrences* found = state_->find(token);
    return state_->idf(found == nullptr ? 0 : found->size());
}

Bm25Stats Bm25Snapshot::stats() const {
    Bm25Stats stats;
    stats.documents = size();
    stats.terms = state_->names.size();
    stats.tokens = state_->total_length;
    state_->terms.for_each_leaf([&stats](std::size_t, const auto& terms) {
        stats.bytes += sizeof terms;
        for (const Term& term : terms) {
            stats.postings += term.occurrences.size();
            stats.bytes += term.name ? sizeof(persistent::Text) + term.name.view().size() + 2 * sizeof term.name : 0;
            term.occurrences.for_each_leaf([&stats](const auto& leaf, const detail::Impacts& impacts) {
                stats.bytes += sizeof leaf + sizeof impacts + leaf.keys.capacity() * sizeof(Slot) +
                               leaf.values.capacity() * sizeof(Occurrence);
            });
        }
    });
    state_->documents.for_each_leaf([&stats](std::size_t, const auto& documents) {
        stats.bytes += sizeof documents;
        for (const auto& document : documents) {
            stats.bytes += document ? sizeof(Document) + document->terms.capacity() * sizeof(std::uint32_t) : 0;
        }
    });
    return stats;
}

Bm25Batch::Bm25Batch(std::shared_ptr<detail::Bm25Shared> shared) {
    state_ = std::make_shared<Bm25State>(*shared->published.load());
    owner_ = ++shared->last_owner;
    if (shared->numbers_stale) {
        shared->numbers.clear();
        state_->names.for_each(nowhere, nowhere, [&shared](const TextRef& name, std::uint32_t number) {
            shared->numbers.emplace(name.view(), std::pair{name, number});
        });
    }
    // Until the commit.
    shared->numbers_stale = true;
    shared_ = std::move(shared);
}

Bm25Batch::~Bm25Batch() {
    if (shared_) {
        shared_->writing.store(false, std::memory_order_release);
    }
}

void Bm25Batch::require_open() const {
    if (!shared_) {
        throw InvalidArgument("a batch of documents ends with its commit; begin another one");
    }
}

void Bm25Batch::replace(Slot slot, std::string_view text) {
    require_open();
    require_slot(slot);
    if (text.size() > Bm25Index::document_bytes_max) {
        throw InvalidArgument("a document must have at most " + std::to_string(Bm25Index::document_bytes_max) +
                              " bytes, got " + std::to_string(text.size()) + " (slot " + std::to_string(slot) + ")");
    }
    erase(slot);
    const auto tokens = shared_->tokenizer.tokens(text);
    std::vector<std::uint32_t> numbers;
    numbers.reserve(tokens.size());
    for (const std::string_view token : tokens) {
        numbers.push_back(number_of(*state_, *shared_, token, owner_));
    }
    std::sort(numbers.begin(), numbers.end());
    auto document = persistent::make_node<Document>();
    const auto length = static_cast<std::uint32_t>(numbers.size());
    document->length = length;
    for (std::size_t first = 0; first < numbers.size();) {
        std::size_t last = first;
        while (last < numbers.size() && numbers[last] == numbers[first]) {
            ++last;
        }
        document->terms.push_back(numbers[first]);
        const Occurrence occurrence{static_cast<std::uint32_t>(last - first), length};
        state_->terms.edit(numbers[first], owner_).occurrences.change(slot, owner_, [occurrence](Occurrence& value) {
            value = occurrence;
            return detail::Occurrences::Change{{occurrence, true}, true};
        });
        first = last;
    }
    document->terms.shrink_to_fit();
    state_->documents.edit(slot, owner_) = document;
    state_->slots.insert(slot, owner_);
    state_->total_length += length;
}

bool Bm25Batch::erase(Slot slot) {
    require_open();
    if (!state_->slots.erase(slot, owner_)) {
        return false;
    }
    const persistent::Ref<Document> document = *state_->documents.find(slot);
    state_->documents.edit(slot, owner_) = persistent::Ref<Document>();
    state_->total_length -= document->length;
    for (const std::uint32_t number : document->terms) {
        detail::Occurrences& occurrences = state_->terms.edit(number, owner_).occurrences;
        occurrences.change(slot, owner_, [](Occurrence& value) {
            return detail::Occurrences::Change{{value, false}, false};
        });
        if (occurrences.size() == 0) {
            forget_term(*state_, *shared_, number, owner_);
        }
    }
    return true;
}

void Bm25Batch::commit() {
    require_open();
    // The nodes keep the owner of this batch, which nobody is again: what is published does not change.
    shared_->published.store(std::move(state_));
    shared_->numbers_stale = false;
    shared_->writing.store(false, std::memory_order_release);
    shared_.reset();
}

Bm25Index::Bm25Index(Bm25Options options) : shared_(std::make_shared<detail::Bm25Shared>(empty_state(options))) {}

Bm25Snapshot Bm25Index::snapshot() const { return Bm25Snapshot(shared_->published.load()); }

Bm25Batch Bm25Index::begin() {
    if (shared_->writing.exchange(true, std::memory_order_acquire)) {
        throw InvalidArgument("the text index has one writer at a time, and a batch is open already; commit or drop it first");
    }
    try {
        return Bm25Batch(shared_);
    } catch (...) {
        shared_->writing.store(false, std::memory_order_release);
        throw;
    }
}

void Bm25Index::replace(Slot slot, std::string_view text) {
    Bm25Batch batch = begin();
    batch.replace(slot, text);
    batch.commit();
}

bool Bm25Index::erase(Slot slot) {
    Bm25Batch batch = begin();
    const bool known = batch.erase(slot);
    batch.commit();
    return known;
}

}  // namespace sage::vdb
