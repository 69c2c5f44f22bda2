#include "sage/vdb/collection.hpp"

#include <algorithm>
#include <exception>
#include <set>
#include <thread>

#include "collection/database_core.hpp"
#include "collection/searcher.hpp"
#include "collection/transaction.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {

const char* filter_plan_name(FilterPlan plan) noexcept {
    switch (plan) {
        case FilterPlan::automatic: return "automatic";
        case FilterPlan::before: return "before";
        case FilterPlan::in_index: return "in_index";
        case FilterPlan::after: return "after";
    }
    return "unknown";
}

std::string Explanation::to_string() const {
    std::string text = "index: " + index + " (" + index_reason + ")\n" + "vectors: " + std::to_string(indexed) +
                       " in the index, " + std::to_string(recent) + " looked at one by one\n";
    if (effort != 0) {
        text += "effort: " + std::to_string(effort) + "\n";
    }
    if (plan != FilterPlan::automatic || !plan_reason.empty()) {
        text += "filter: " + std::string(filter_plan_name(plan)) + " (" + plan_reason + ")\n";
    }
    return text;
}

namespace {

// Calls work(i) for 0 <= i < count on several threads; the first failure is passed on.
template <class Work>
void share(std::size_t count, std::size_t threads, Work work) {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    const auto run = [&] {
        try {
            for (std::size_t i = next.fetch_add(1); i < count && !failed.load(); i = next.fetch_add(1)) {
                work(i);
            }
        } catch (...) {
            if (!failed.exchange(true)) {
                failure = std::current_exception();
            }
        }
    };
    {
        std::vector<std::jthread> others;
        for (std::size_t thread = 1; thread < std::min(threads, count); ++thread) {
            others.emplace_back(run);
        }
        run();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

std::size_t all_cores() { return std::max<std::size_t>(1, std::thread::hardware_concurrency()); }

void append_answer(const CollectionOptions& options, const detail::CollectionState& state,
                   const std::vector<detail::Found>& found, const Include& include, SearchHits& hits) {
    std::vector<Slot> heads;
    heads.reserve(found.size());
    for (const detail::Found& one : found) {
        heads.push_back(one.head);
        hits.scores.push_back(one.score);
    }
    detail::append_documents(options, state, heads, include, hits.documents);
    hits.offsets.push_back(hits.scores.size());
}

}  // namespace

namespace detail {

// The pages of one query.
class Pager {
public:
    Pager(std::shared_ptr<CollectionCore> core, const SearchRequest& request)
        : core_(std::move(core)),
          query_(request.queries.begin(), request.queries.end()),
          texts_(request.texts.begin(), request.texts.end()),
          request_(request) {
        request_.queries = query_;
        request_.texts = texts_;
    }

    SearchHits next(std::size_t count) {
        if (count < 1 || count > Collection::k_max) {
            throw InvalidArgument("a page must have between 1 and " + std::to_string(Collection::k_max) +
                                  " documents, got " + std::to_string(count));
        }
        const View view = core_->view();
        SearchHits hits;
        hits.documents.ids = view->empty_ids();
        request_.k = std::min(Collection::k_max, given_.size() + count);
        const Searcher searcher(*core_, *view, request_);
        std::vector<Found> fresh = searcher.answer(0);
        std::erase_if(fresh, [&](const Found& found) { return given_.contains(view->id_of(found.head)); });
        if (fresh.size() > count) {
            fresh.resize(count);
        }
        for (const Found& found : fresh) {
            given_.insert(view->id_of(found.head));
        }
        append_answer(core_->options(), *view, fresh, request_.include, hits);
        return hits;
    }

private:
    std::shared_ptr<CollectionCore> core_;
    std::vector<float> query_;
    std::vector<std::string> texts_;
    SearchRequest request_;
    std::set<DocumentId> given_;
};

}  // namespace detail

SearchPages::SearchPages(std::unique_ptr<detail::Pager> pager) : pager_(std::move(pager)) {}
SearchPages::SearchPages(SearchPages&&) noexcept = default;
SearchPages& SearchPages::operator=(SearchPages&&) noexcept = default;
SearchPages::~SearchPages() = default;
SearchHits SearchPages::next(std::size_t count) { return pager_->next(count); }

Collection::Collection(std::shared_ptr<detail::CollectionCore> core) : core_(std::move(core)) {}

std::string Collection::name() const { return core_->name(); }
const CollectionOptions& Collection::options() const noexcept { return core_->options(); }

void Collection::add(const Documents& documents) { core_->write(detail::CollectionCore::Write::add, documents); }
void Collection::upsert(const Documents& documents) { core_->write(detail::CollectionCore::Write::upsert, documents); }
void Collection::update(const Documents& documents) { core_->write(detail::CollectionCore::Write::update, documents); }
std::size_t Collection::remove(const IdSpan& ids) { return core_->remove(ids); }
std::size_t Collection::remove(const Filter& filter) { return core_->remove(filter); }

std::size_t Collection::count() const { return core_->view()->documents; }

std::size_t Collection::count(const Filter& filter) const {
    const detail::View view = core_->view();
    return BoundFilter(*view->metadata, filter).evaluate().count();
}

bool Collection::contains(const DocumentId& id) const { return core_->view()->find(id) != detail::no_head; }

DocumentList Collection::get(const IdSpan& ids, const Include& include) const {
    const detail::View view = core_->view();
    detail::validate_ids(*view, ids, false);
    std::vector<Slot> heads;
    for (std::size_t i = 0; i < count_of(ids); ++i) {
        const Slot head = view->find(detail::id_at(ids, i));
        if (head != detail::no_head) {
            heads.push_back(head);
        }
    }
    DocumentList list;
    list.ids = view->empty_ids();
    detail::append_documents(core_->options(), *view, heads, include, list);
    return list;
}

DocumentList Collection::scroll(const ScrollRequest& request) const {
    if (request.limit < 1 || request.limit > k_max) {
        throw InvalidArgument("limit must be between 1 and " + std::to_string(k_max) + ", got " +
                              std::to_string(request.limit));
    }
    const detail::View view = core_->view();
    if (request.after) {
        const bool text = std::holds_alternative<std::string>(*request.after);
        if (view->id_kind != IdKind::none && text != (view->id_kind == IdKind::text)) {
            throw InvalidArgument("after must be an id of the kind that this collection has, got " +
                                  describe(*request.after));
        }
    }
    std::optional<BoundFilter> filter;
    if (request.filter) {
        filter.emplace(*view->metadata, *request.filter);
    }
    std::vector<Slot> heads;
    bool enough = false;
    if (view->id_kind != IdKind::none) {
        view->for_each_document(request.after, enough, [&](Slot head) {
            if (!filter || filter->matches(head)) {
                heads.push_back(head);
                enough = heads.size() == request.limit;
            }
        });
    }
    DocumentList list;
    list.ids = view->empty_ids();
    detail::append_documents(core_->options(), *view, heads, request.include, list);
    return list;
}

SearchHits Collection::search(const SearchRequest& request) const {
    detail::validate_request(core_->options(), request, false);
    const detail::View view = core_->view();
    const detail::Searcher searcher(*core_, *view, request);
    const std::size_t count = std::max(request.queries.size() / core_->options().dimension, request.texts.size());
    SearchHits hits;
    hits.documents.ids = view->empty_ids();
    if (count == 1) {
        append_answer(core_->options(), *view, searcher.answer(0), request.include, hits);
        return hits;
    }
    const std::size_t threads = request.threads == 0 ? all_cores() : request.threads;
    std::vector<std::vector<detail::Found>> answers(count);
    if (searcher.answers_batches()) {
        answers = searcher.batch(threads);
    } else {
        share(count, threads, [&](std::size_t i) { answers[i] = searcher.answer(i); });
    }
    for (const auto& found : answers) {
        append_answer(core_->options(), *view, found, request.include, hits);
    }
    return hits;
}

SearchPages Collection::search_pages(const SearchRequest& request) const {
    detail::validate_request(core_->options(), request, true);
    return SearchPages(std::make_unique<detail::Pager>(core_, request));
}

Explanation Collection::explain(const SearchRequest& request) const {
    detail::validate_request(core_->options(), request, false);
    const detail::View view = core_->view();
    const detail::Searcher searcher(*core_, *view, request);
    const auto& parts = view->parts;
    Explanation explanation;
    explanation.index = parts && parts->main ? std::string(parts->main->name()) : "flat";
    explanation.index_reason = core_->index_reason(*view);
    explanation.indexed = parts && parts->main ? parts->main->size() : 0;
    explanation.recent = parts ? parts->tail->size() : 0;
    explanation.effort = searcher.effort(request.k);
    explanation.plan = searcher.plan().kind;
    explanation.plan_reason = searcher.plan().reason;
    if (request.filter) {
        explanation.selectivity = searcher.plan().selectivity.fraction;
        explanation.matches_min = searcher.plan().selectivity.at_least;
        explanation.matches_max = searcher.plan().selectivity.at_most;
    } else {
        explanation.matches_min = view->documents;
        explanation.matches_max = view->documents;
    }
    return explanation;
}

CollectionStats Collection::stats() const {
    const detail::View view = core_->view();
    const auto& parts = view->parts;
    CollectionStats stats;
    stats.name = core_->name();
    stats.documents = view->documents;
    stats.vectors = view->vectors;
    stats.texts = view->text_count;
    stats.id_kind = view->id_kind;
    stats.index = parts && parts->main ? std::string(parts->main->name()) : "flat";
    stats.index_reason = core_->index_reason(*view);
    stats.indexed = parts && parts->main ? parts->main->size() : 0;
    stats.recent = parts ? parts->tail->size() : 0;
    stats.removed = core_->pending() + (parts && parts->main ? parts->main->stats().removed : 0);
    stats.vector_bytes = (parts ? parts->tail->memory_bytes() : 0) + (parts && parts->main ? parts->main->stats().memory_bytes : 0);
    stats.fields = view->metadata->stats();
    stats.text = view->words->stats();
    return stats;
}

void Collection::backup(const std::string& path) const { core_->database().backup(path, core_.get()); }
void Collection::compact(std::size_t threads) { core_->compact(threads == 0 ? all_cores() : threads); }

}  // namespace sage::vdb
