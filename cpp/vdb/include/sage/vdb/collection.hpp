// Documents with vectors, metadata and text, searched by all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sage/vdb/bm25.hpp"
#include "sage/vdb/document.hpp"
#include "sage/vdb/index.hpp"
#include "sage/vdb/metric.hpp"
#include "sage/vdb/query.hpp"

namespace sage::vdb {

namespace detail {
class CollectionCore;
class Pager;
}  // namespace detail

struct CollectionOptions {
    std::size_t dimension = 0;
    Metric metric = Metric::cosine;
    // Which index takes the vectors in, as soon as there are enough of them. automatic: flat where a search of all takes
    // no longer than one of a graph, and a graph above.
    IndexKind index = IndexKind::automatic;
    // The form in which vectors are kept; graph has float32, float16 and bfloat16. To the latter two vectors are rounded
    // when they are written: what get() gives does not change later. int8, int4 and bit1 round when the index takes
    // them in.
    Storage storage = Storage::float32;
    std::optional<Storage> rerank = std::nullopt;  // as IndexOptions
    GraphOptions graph = {};                       // its `rows` is taken from `storage`
    std::uint32_t lists = 0;                       // ivf_flat, as IndexOptions
    std::uint32_t links = 16;                      // hnsw
    std::uint32_t build_effort = 100;              // hnsw
    Bm25Options text = {};
};

struct CollectionStats {
    std::string name;
    std::size_t documents = 0;
    std::size_t vectors = 0;
    std::size_t texts = 0;
    IdKind id_kind = IdKind::none;
    std::string index;
    std::string index_reason;
    std::size_t indexed = 0;   // vectors in the index
    std::size_t recent = 0;    // vectors that wait for it
    std::size_t removed = 0;   // slots of removed vectors that are not free yet
    std::size_t vector_bytes = 0;  // about, with the indexes
    std::vector<FieldStats> fields;
    Bm25Stats text;
};

// A page of a collection in the order of the ids.
struct ScrollRequest {
    std::optional<DocumentId> after = std::nullopt;  // begins behind this id, which need not exist
    std::size_t limit = 100;
    std::optional<Filter> filter = std::nullopt;
    Include include = {.vectors = false, .metadata = true, .text = true};
};

// The answers to one query in pages, without end until all documents were given, none of them twice. Each page reads the
// collection as it is then: a document that comes in between the pages appears if it belongs to a later one.
class SearchPages {
public:
    SearchPages(SearchPages&&) noexcept;
    SearchPages& operator=(SearchPages&&) noexcept;
    ~SearchPages();
    // The next `count` best; fewer only at the end.
    [[nodiscard]] SearchHits next(std::size_t count);

private:
    friend class Collection;
    explicit SearchPages(std::unique_ptr<detail::Pager> pager);
    std::unique_ptr<detail::Pager> pager_;
};

// A handle to one collection of a Database; cheap to copy. It keeps the database open. After Database::drop_collection()
// or close() it can be read, and refuses changes.
//
// Writes: a call is one transaction: all of its documents or none, also after a crash. It validates everything, appends
// to the log, makes the change visible to all readers at once, and returns when the change is as durable as the
// database's policy says. Ids must be distinct within a call; they are numbers or texts, as the first ones were. Texts
// as ids have 1 to id_bytes_max bytes.
// When the log refuses a write (IoError: full disk) nothing was changed. When it cannot say whether the disk has it (a
// sync that failed) the change is visible, and every later write is refused until the database is opened again.
//
// Vectors must be finite and not longer than 6.5e18; under float16 storage within 65504, except under cosine. Under cosine a
// zero vector is allowed and scores 0; get() gives vectors back as they were. They are findable at once:
// those that the index has not taken in yet are looked at one by one.
//
// Threads: any number of readers, who never wait; writers take turns. What a reader sees in one call is the collection
// as it was at one moment between two writes.
//
// Errors: InvalidArgument for input that breaks a rule, NotFound for what is asked for by name or id; nothing was
// changed. IoError from the log. StoreLocked for writes in a forked child.
class Collection {
public:
    static constexpr std::size_t dimension_max = GraphIndex::dimension_max;
    static constexpr std::size_t id_bytes_max = 1024;
    static constexpr std::size_t k_max = 1'000'000;
    static constexpr std::size_t vectors_per_document_max = 65'536;
    static constexpr std::size_t text_bytes_max = Bm25Index::document_bytes_max;

    [[nodiscard]] std::string name() const;
    [[nodiscard]] const CollectionOptions& options() const noexcept;

    // New documents; an id that is there already is an error.
    void add(const Documents& documents);
    // New ones, and whole new contents for those that are there.
    void upsert(const Documents& documents);
    // Changes parts of documents that are there (else NotFound). No vectors: they stay. Metadata: the given fields are
    // set, the others stay. Texts: those that are given replace the old ones.
    void update(const Documents& documents);
    // Returns how many of them there were; unknown ids are passed over.
    std::size_t remove(const IdSpan& ids);
    // Removes what matches.
    std::size_t remove(const Filter& filter);

    [[nodiscard]] std::size_t count() const;
    [[nodiscard]] std::size_t count(const Filter& filter) const;
    [[nodiscard]] bool contains(const DocumentId& id) const;
    // Those of the ids that are there, in the order of the request.
    [[nodiscard]] DocumentList get(const IdSpan& ids, const Include& include) const;
    [[nodiscard]] DocumentList scroll(const ScrollRequest& request) const;

    [[nodiscard]] SearchHits search(const SearchRequest& request) const;
    // Pages of a request with one query; k, radius, mmr and group_by are not for it. The request's spans are copied.
    [[nodiscard]] SearchPages search_pages(const SearchRequest& request) const;
    [[nodiscard]] Explanation explain(const SearchRequest& request) const;

    [[nodiscard]] CollectionStats stats() const;
    // A copy of this collection alone, as Database::backup() makes of all.
    void backup(const std::string& path) const;
    // Puts every vector into the index now, and clears away what was removed.
    void compact(std::size_t threads = 0);

private:
    friend class Database;
    explicit Collection(std::shared_ptr<detail::CollectionCore> core);
    std::shared_ptr<detail::CollectionCore> core_;
};

}  // namespace sage::vdb
