// sage.middleware._vdb.Database, Collection and SearchPages. Thin, like module.cpp: Python's objects are read with the
// GIL, the library works without it, and what it gives is handed over.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "outputs.hpp"
#include "reports.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/database.hpp"
#include "values.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

using vdb::Filter;
using CountArray = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

// Holds what may take long to let go: the last handle of a database closes it, which writes a checkpoint and waits for
// a thread. Python must go on meanwhile.
template <class T>
class Handle {
public:
    explicit Handle(T value) : value_(std::make_unique<T>(std::move(value))) {}
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
        const py::gil_scoped_release release;
        value_.reset();
    }
    [[nodiscard]] T& get() const { return *value_; }

private:
    std::unique_ptr<T> value_;
};
using DatabaseHandle = Handle<vdb::Database>;
using CollectionHandle = Handle<vdb::Collection>;
using PagesHandle = Handle<vdb::SearchPages>;

std::string path_of(const py::object& path) {
    return py::module_::import("os").attr("fsdecode")(path).cast<std::string>();
}

storage::SyncPolicy sync_policy(const std::string& name) {
    if (name == "each") {
        return storage::SyncPolicy::each;
    }
    if (name == "group") {
        return storage::SyncPolicy::group;
    }
    if (name == "none") {
        return storage::SyncPolicy::none;
    }
    throw InvalidArgument("sync must be 'each', 'group' or 'none', got '" + name + "'");
}

vdb::DatabaseOptions database_options(const std::string& sync, bool read_only, std::int64_t checkpoint_log_bytes,
                                      bool checkpoint_at_close, bool background, std::int64_t index_threads) {
    vdb::DatabaseOptions options;
    options.sync = sync_policy(sync);
    options.read_only = read_only;
    options.checkpoint_log_bytes = at_least(checkpoint_log_bytes, 0, "checkpoint_log_bytes");
    options.checkpoint_at_close = checkpoint_at_close;
    options.background = background;
    options.index_threads = at_least(index_threads, 1, "index_threads");
    return options;
}

std::unique_ptr<DatabaseHandle> open_database(const py::object& path, const std::string& sync, bool read_only,
                                              std::int64_t checkpoint_log_bytes, bool checkpoint_at_close,
                                              bool background, std::int64_t index_threads) {
    const std::string folder = path_of(path);
    const auto options =
        database_options(sync, read_only, checkpoint_log_bytes, checkpoint_at_close, background, index_threads);
    const py::gil_scoped_release release;
    return std::make_unique<DatabaseHandle>(vdb::Database::open(folder, options));
}

std::unique_ptr<DatabaseHandle> database_in_memory(bool background, std::int64_t index_threads) {
    vdb::DatabaseOptions options;
    options.background = background;
    options.index_threads = at_least(index_threads, 1, "index_threads");
    const py::gil_scoped_release release;
    return std::make_unique<DatabaseHandle>(vdb::Database::in_memory(options));
}

std::uint32_t small(std::int64_t value, std::int64_t least, const char* name) {
    constexpr std::int64_t most = 1 << 24;
    if (value < least || value > most) {
        throw InvalidArgument(std::string(name) + " must be between " + std::to_string(least) + " and " +
                              std::to_string(most) + ", got " + std::to_string(value));
    }
    return static_cast<std::uint32_t>(value);
}

std::unique_ptr<CollectionHandle> create_collection(DatabaseHandle& database, const std::string& name,
                                                    std::int64_t dimension, const std::string& metric,
                                                    const std::string& index, const std::string& storage,
                                                    const std::optional<std::string>& rerank, std::int64_t degree,
                                                    std::int64_t links, std::int64_t lists, std::int64_t build_effort,
                                                    double k1, double b) {
    vdb::CollectionOptions options;
    options.dimension = at_least(dimension, 1, "dimension");
    options.metric = vdb::metric_from_name(metric);
    options.index = vdb::index_kind_from_name(index);
    options.storage = vdb::storage_from_name(storage);
    if (rerank) {
        options.rerank = vdb::storage_from_name(*rerank);
    }
    options.graph.degree = small(degree, 1, "degree");
    options.links = small(links, 1, "links");
    options.lists = small(lists, 0, "lists");
    if (build_effort != 0) {
        options.graph.build_effort = options.build_effort = small(build_effort, 0, "build_effort");
    }
    options.text = {k1, b};
    const py::gil_scoped_release release;
    return std::make_unique<CollectionHandle>(database.get().create_collection(name, options));
}

std::unique_ptr<CollectionHandle> open_collection(const DatabaseHandle& database, const std::string& name) {
    const py::gil_scoped_release release;
    return std::make_unique<CollectionHandle>(database.get().collection(name));
}

py::dict database_stats(const DatabaseHandle& database) {
    vdb::DatabaseStats stats;
    {
        const py::gil_scoped_release release;
        stats = database.get().stats();
    }
    return report_of(stats);
}

py::dict verify(const py::object& path) {
    const std::string folder = path_of(path);
    vdb::VerifyReport report;
    {
        const py::gil_scoped_release release;
        report = vdb::Database::verify(folder);
    }
    return report_of(report);
}

// What a write is given, held while the library reads it.
struct Batch {
    Ids ids;
    std::optional<FloatArray> vectors;
    CountArray counts;
    std::vector<vdb::Record> metadata;
    std::vector<std::optional<std::string>> texts;

    [[nodiscard]] vdb::Documents documents() const {
        vdb::Documents documents;
        documents.ids = ids.span();
        if (vectors) {
            documents.vectors = as_span(*vectors);
        }
        documents.vector_counts = {counts.data(), static_cast<std::size_t>(counts.size())};
        documents.metadata = metadata;
        documents.texts = texts;
        return documents;
    }
};

Batch to_batch(const CollectionHandle& collection, const py::object& ids, const py::object& vectors,
               const py::object& metadata, const py::object& texts, const py::object& vector_counts) {
    Batch batch{Ids(ids), std::nullopt, CountArray(py::ssize_t{0}), to_records(metadata), to_texts(texts)};
    if (!vectors.is_none()) {
        batch.vectors = vector_array(vectors, "vectors", collection.get().options().dimension);
    }
    if (!vector_counts.is_none()) {
        const IdArray counts = id_array(vector_counts, "vector_counts");
        batch.counts = CountArray(counts.size());
        for (py::ssize_t i = 0; i < counts.size(); ++i) {
            const std::int64_t count = counts.data()[i];
            if (count < 1 || count > std::int64_t{vdb::Collection::vectors_per_document_max}) {
                throw InvalidArgument("a document must have 1 to " +
                                      std::to_string(vdb::Collection::vectors_per_document_max) +
                                      " vectors, got " + std::to_string(count));
            }
            batch.counts.mutable_data()[i] = static_cast<std::uint32_t>(count);
        }
    }
    const std::size_t count = vdb::count_of(batch.ids.span());
    if (vector_counts.is_none() && batch.vectors && static_cast<std::size_t>(batch.vectors->shape(0)) != count) {
        throw InvalidArgument("ids and vectors must have the same length, got " + std::to_string(count) +
                              " ids and " + std::to_string(batch.vectors->shape(0)) + " vectors");
    }
    return batch;
}

template <void (vdb::Collection::*Write)(const vdb::Documents&)>
void write(CollectionHandle& collection, const py::object& ids, const py::object& vectors, const py::object& metadata,
           const py::object& texts, const py::object& vector_counts) {
    const Batch batch = to_batch(collection, ids, vectors, metadata, texts, vector_counts);
    const vdb::Documents documents = batch.documents();
    const py::gil_scoped_release release;
    (collection.get().*Write)(documents);
}

std::size_t remove(CollectionHandle& collection, const py::object& ids) {
    const Ids held(ids);
    const vdb::IdSpan span = held.span();
    const py::gil_scoped_release release;
    return collection.get().remove(span);
}

std::size_t remove_where(CollectionHandle& collection, const Filter& filter) {
    const py::gil_scoped_release release;
    return collection.get().remove(filter);
}

std::size_t count(const CollectionHandle& collection, const Filter* filter) {
    const py::gil_scoped_release release;
    return filter == nullptr ? collection.get().count() : collection.get().count(*filter);
}

bool contains(const CollectionHandle& collection, const py::object& id) {
    const vdb::DocumentId wanted = to_id(id, "id");
    const py::gil_scoped_release release;
    return collection.get().contains(wanted);
}

// ids, vectors (rows, dimension) or None, rows of each (n) or None, metadata or None, texts or None
py::tuple from_documents(vdb::DocumentList documents, const vdb::Include& include, std::size_t dimension) {
    py::object vectors = py::none();
    py::object counts = py::none();
    if (include.vectors) {
        const auto rows = static_cast<py::ssize_t>(documents.vectors.size() / dimension);
        vectors = into_array(std::move(documents.vectors), {rows, static_cast<py::ssize_t>(dimension)});
        const auto size = static_cast<py::ssize_t>(documents.vector_counts.size());
        counts = into_array(std::move(documents.vector_counts), {size});
    }
    py::object metadata = py::none();
    if (include.metadata) {
        metadata = from_records(documents.metadata);
    }
    py::object texts = py::none();
    if (include.text) {
        texts = py::cast(documents.texts);
    }
    return py::make_tuple(from_ids(std::move(documents.ids)), vectors, counts, metadata, texts);
}

py::tuple get(const CollectionHandle& collection, const py::object& ids, bool vectors, bool metadata, bool texts) {
    const Ids held(ids);
    const vdb::IdSpan span = held.span();
    const vdb::Include include{vectors, metadata, texts};
    vdb::DocumentList found;
    {
        const py::gil_scoped_release release;
        found = collection.get().get(span, include);
    }
    return from_documents(std::move(found), include, collection.get().options().dimension);
}

py::tuple scroll(const CollectionHandle& collection, const py::object& after, std::int64_t limit, const Filter* filter,
                 bool vectors, bool metadata, bool texts) {
    vdb::ScrollRequest request;
    if (!after.is_none()) {
        request.after = to_id(after, "after");
    }
    request.limit = at_least(limit, 1, "limit");
    if (filter != nullptr) {
        request.filter = *filter;
    }
    request.include = {vectors, metadata, texts};
    vdb::DocumentList found;
    {
        const py::gil_scoped_release release;
        found = collection.get().scroll(request);
    }
    return from_documents(std::move(found), request.include, collection.get().options().dimension);
}

vdb::FilterPlan plan_from_name(const std::string& name) {
    for (const auto plan : {vdb::FilterPlan::automatic, vdb::FilterPlan::before, vdb::FilterPlan::in_index,
                            vdb::FilterPlan::after}) {
        if (name == vdb::filter_plan_name(plan)) {
            return plan;
        }
    }
    throw InvalidArgument("plan must be 'automatic', 'before', 'in_index' or 'after', got '" + name + "'");
}

// A request with what its spans point to.
struct HeldRequest {
    std::optional<FloatArray> queries;
    std::vector<std::string> texts;
    vdb::SearchRequest request;
};

template <class T>
std::optional<T> optional_of(const py::dict& options, const char* name) {
    if (!options.contains(name) || py::object(options[name]).is_none()) {
        return std::nullopt;
    }
    try {
        return options[name].cast<T>();
    } catch (const py::cast_error&) {
        throw InvalidArgument(std::string(name) + " has the wrong type: " +
                              py::repr(options[name]).cast<std::string>());
    }
}

std::size_t size_of(const py::dict& options, const char* name, std::int64_t least, std::size_t otherwise) {
    const auto value = optional_of<std::int64_t>(options, name);
    return value ? at_least(*value, least, name) : otherwise;
}

vdb::Fusion fusion_of(const py::dict& options) {
    vdb::Fusion fusion;
    const auto kind = optional_of<std::string>(options, "fusion").value_or("rrf");
    if (kind != "rrf" && kind != "weighted") {
        throw InvalidArgument("fusion must be 'rrf' or 'weighted', got '" + kind + "'");
    }
    fusion.kind = kind == "rrf" ? vdb::Fusion::Kind::reciprocal_rank : vdb::Fusion::Kind::weighted;
    fusion.k0 = optional_of<double>(options, "k0").value_or(fusion.k0);
    fusion.alpha = optional_of<double>(options, "alpha").value_or(fusion.alpha);
    fusion.fetch_k = size_of(options, "fusion_fetch_k", 1, 0);
    return fusion;
}

std::unique_ptr<HeldRequest> to_request(const CollectionHandle& collection, const py::object& queries,
                                        const py::object& texts, const py::dict& options) {
    auto held = std::make_unique<HeldRequest>();
    vdb::SearchRequest& request = held->request;
    if (!queries.is_none()) {
        held->queries = vector_array(queries, "queries", collection.get().options().dimension);
        request.queries = as_span(*held->queries);
    }
    if (!texts.is_none()) {
        held->texts = to_strings(texts, "texts");
        request.texts = held->texts;
    }
    request.k = size_of(options, "k", 1, request.k);
    request.effort = size_of(options, "effort", 0, 0);
    request.recall = optional_of<double>(options, "recall").value_or(request.recall);
    if (options.contains("filter") && !py::object(options["filter"]).is_none()) {
        request.filter = options["filter"].cast<const Filter&>();
    }
    request.plan = plan_from_name(optional_of<std::string>(options, "plan").value_or("automatic"));
    if (const auto radius = optional_of<double>(options, "radius")) {
        request.radius = static_cast<float>(*radius);
    }
    if (const auto lambda = optional_of<double>(options, "mmr")) {
        request.mmr = vdb::Mmr{*lambda, size_of(options, "fetch_k", 1, 0)};
    }
    if (const auto field = optional_of<std::string>(options, "group_by")) {
        request.group_by = vdb::GroupBy{*field, size_of(options, "per_group", 1, 1)};
    }
    request.fusion = fusion_of(options);
    request.include = {optional_of<bool>(options, "vectors").value_or(false),
                       optional_of<bool>(options, "metadata").value_or(false),
                       optional_of<bool>(options, "text").value_or(false)};
    request.threads = size_of(options, "threads", 0, 0);
    return held;
}

// offsets (q + 1), scores (hits), and from_documents()
py::tuple from_hits(vdb::SearchHits hits, const vdb::Include& include, std::size_t dimension) {
    std::vector<std::int64_t> offsets(hits.offsets.begin(), hits.offsets.end());
    const auto queries = static_cast<py::ssize_t>(offsets.size());
    const auto found = static_cast<py::ssize_t>(hits.scores.size());
    return py::make_tuple(into_array(std::move(offsets), {queries}), into_array(std::move(hits.scores), {found}),
                          from_documents(std::move(hits.documents), include, dimension));
}

py::tuple search(const CollectionHandle& collection, const py::object& queries, const py::object& texts,
                 const py::dict& options) {
    const auto held = to_request(collection, queries, texts, options);
    vdb::SearchHits hits;
    {
        const py::gil_scoped_release release;
        hits = collection.get().search(held->request);
    }
    return from_hits(std::move(hits), held->request.include, collection.get().options().dimension);
}

// The pages with what their owner has to know.
struct Pages {
    PagesHandle pages;
    vdb::Include include;
    std::size_t dimension;
};

std::unique_ptr<Pages> search_pages(const CollectionHandle& collection, const py::object& queries,
                                    const py::object& texts, const py::dict& options) {
    const auto held = to_request(collection, queries, texts, options);
    const std::size_t dimension = collection.get().options().dimension;
    const py::gil_scoped_release release;
    vdb::SearchPages pages = collection.get().search_pages(held->request);
    const py::gil_scoped_acquire acquire;
    return std::unique_ptr<Pages>(new Pages{PagesHandle(std::move(pages)), held->request.include, dimension});
}

py::tuple next_page(Pages& pages, std::int64_t count) {
    const std::size_t wanted = at_least(count, 1, "count");
    vdb::SearchHits hits;
    {
        const py::gil_scoped_release release;
        hits = pages.pages.get().next(wanted);
    }
    return from_hits(std::move(hits), pages.include, pages.dimension);
}

py::dict explain(const CollectionHandle& collection, const py::object& queries, const py::object& texts,
                 const py::dict& options) {
    const auto held = to_request(collection, queries, texts, options);
    vdb::Explanation explanation;
    {
        const py::gil_scoped_release release;
        explanation = collection.get().explain(held->request);
    }
    py::dict out;
    out["index"] = explanation.index;
    out["index_reason"] = explanation.index_reason;
    out["indexed"] = explanation.indexed;
    out["recent"] = explanation.recent;
    out["effort"] = explanation.effort;
    out["plan"] = held->request.filter ? vdb::filter_plan_name(explanation.plan) : "none";
    out["plan_reason"] = explanation.plan_reason;
    out["selectivity"] = explanation.selectivity;
    out["matches_min"] = explanation.matches_min;
    out["matches_max"] = explanation.matches_max;
    out["text"] = explanation.to_string();
    return out;
}

py::dict collection_stats(const CollectionHandle& collection) {
    vdb::CollectionStats stats;
    {
        const py::gil_scoped_release release;
        stats = collection.get().stats();
    }
    return report_of(stats);
}

py::dict collection_options(const CollectionHandle& collection) { return report_of(collection.get().options()); }

void compact(CollectionHandle& collection, std::int64_t threads) {
    const std::size_t count = at_least(threads, 0, "threads");
    const py::gil_scoped_release release;
    collection.get().compact(count);
}

std::string collection_name(const CollectionHandle& collection) {
    const py::gil_scoped_release release;
    return collection.get().name();
}

template <void (vdb::Database::*Work)()>
void run(DatabaseHandle& database) {
    const py::gil_scoped_release release;
    (database.get().*Work)();
}

void bind_database_class(py::module_& module) {
    py::class_<DatabaseHandle>(module, "Database", py::is_final(), "Named collections in memory, kept in a folder.")
        .def_static("open", &open_database, py::arg("path"), py::arg("sync") = "group", py::arg("read_only") = false,
                    py::arg("checkpoint_log_bytes") = std::int64_t{256} << 20, py::arg("checkpoint_at_close") = true,
                    py::arg("background") = true, py::arg("index_threads") = 1, "Opens a folder, or makes it.")
        .def_static("in_memory", &database_in_memory, py::arg("background") = true, py::arg("index_threads") = 1,
                    "A database without a folder.")
        .def_static("verify", &verify, py::arg("path"), "Looks at every byte of a folder.")
        .def("create_collection", &create_collection, py::arg("name"), py::arg("dimension"),
             py::arg("metric") = "cosine", py::arg("index") = "auto", py::arg("storage") = "float32",
             py::arg("rerank") = py::none(), py::arg("degree") = vdb::GraphOptions().degree,
             py::arg("links") = vdb::CollectionOptions().links, py::arg("lists") = 0, py::arg("build_effort") = 0,
             py::arg("k1") = vdb::Bm25Options().k1, py::arg("b") = vdb::Bm25Options().b, "Makes a new collection.")
        .def("collection", &open_collection, py::arg("name"), "The collection of that name.")
        .def(
            "has_collection",
            [](const DatabaseHandle& database, const std::string& name) { return database.get().has_collection(name); },
            py::arg("name"), py::call_guard<py::gil_scoped_release>(), "Whether there is one of that name.")
        .def(
            "collection_names", [](const DatabaseHandle& database) { return database.get().collection_names(); },
            py::call_guard<py::gil_scoped_release>(), "All names, sorted.")
        .def(
            "drop_collection",
            [](DatabaseHandle& database, const std::string& name) { database.get().drop_collection(name); },
            py::arg("name"), py::call_guard<py::gil_scoped_release>(), "Removes a collection with its content.")
        .def(
            "rename_collection",
            [](DatabaseHandle& database, const std::string& name, const std::string& to) {
                database.get().rename_collection(name, to);
            },
            py::arg("name"), py::arg("to"), py::call_guard<py::gil_scoped_release>(), "Gives it another name.")
        .def("checkpoint", &run<&vdb::Database::checkpoint>, "Writes a snapshot and begins a new log.")
        .def("sync", &run<&vdb::Database::sync>, "Waits until everything is durable.")
        .def(
            "backup",
            [](const DatabaseHandle& database, const py::object& path) {
                const std::string folder = path_of(path);
                const py::gil_scoped_release release;
                database.get().backup(folder);
            },
            py::arg("path"), "A copy as of one moment in another folder.")
        .def(
            "restore",
            [](DatabaseHandle& database, const py::object& path) {
                const std::string folder = path_of(path);
                const py::gil_scoped_release release;
                database.get().restore(folder);
            },
            py::arg("path"), "Puts the collections of a backup in the place of all, in one step.")
        .def("stats", &database_stats, "Numbers about the files.")
        .def("close", &run<&vdb::Database::close>, "Makes a checkpoint and gives the folder back.");
}

template <class... Extra>
void def_request(py::class_<CollectionHandle>& type, const char* name, Extra&&... extra) {
    type.def(name, std::forward<Extra>(extra)..., py::arg("queries"), py::arg("texts"), py::arg("options"));
}

void bind_collection_class(py::module_& module) {
    using vdb::Collection;
    py::class_<CollectionHandle> type(module, "Collection", py::is_final(),
                                      "Documents with vectors, metadata and text; see collection.hpp.");
    const auto writes = [&type](const char* name, auto function, const char* doc) {
        type.def(name, function, py::arg("ids"), py::arg("vectors") = py::none(), py::arg("metadata") = py::none(),
                 py::arg("texts") = py::none(), py::arg("vector_counts") = py::none(), doc);
    };
    writes("add", &write<&Collection::add>, "Adds new documents.");
    writes("upsert", &write<&Collection::upsert>, "Adds new ones, replaces known ones.");
    writes("update", &write<&Collection::update>, "Changes the given parts of known ones.");
    type.def("remove", &remove, py::arg("ids"), "Removes ids; returns how many there were.")
        .def("remove_where", &remove_where, py::arg("filter"), "Removes what matches; returns how many.")
        .def("count", &count, py::arg("filter") = py::none(), "How many documents there are, or match.")
        .def("get", &get, py::arg("ids"), py::arg("vectors"), py::arg("metadata"), py::arg("texts"),
             "Those of the ids that are there.")
        .def("scroll", &scroll, py::arg("after"), py::arg("limit"), py::arg("filter"), py::arg("vectors"),
             py::arg("metadata"), py::arg("texts"), "A page in the order of the ids.")
        .def("stats", &collection_stats, "Sizes, the index and the fields.")
        .def("compact", &compact, py::arg("threads") = 0, "Puts every vector into the index now.")
        .def(
            "backup",
            [](const CollectionHandle& collection, const py::object& path) {
                const std::string folder = path_of(path);
                const py::gil_scoped_release release;
                collection.get().backup(folder);
            },
            py::arg("path"), "A copy of this collection alone in another folder.")
        .def_property_readonly("name", &collection_name)
        .def_property_readonly("options", &collection_options)
        .def("__contains__", &contains, py::arg("id"));
    def_request(type, "search", &search, "The best documents for each query.");
    def_request(type, "search_pages", &search_pages, "The answers to one query in pages.");
    def_request(type, "explain", &explain, "What a search does, and why.");
    py::class_<Pages>(module, "SearchPages", py::is_final(), "Answers in pages; they keep the database open.")
        .def("next", &next_page, py::arg("count"), "The next best ones; fewer only at the end.");
}

}  // namespace

void bind_database(py::module_& module) {
    bind_filter(module);
    bind_collection_class(module);
    bind_database_class(module);
    module.def(
        "index_kinds",
        [] {
            std::vector<std::string> kinds;
            for (const auto kind : {vdb::IndexKind::automatic, vdb::IndexKind::flat, vdb::IndexKind::hnsw,
                                    vdb::IndexKind::ivf_flat, vdb::IndexKind::graph}) {
                kinds.emplace_back(vdb::index_kind_name(kind));
            }
            return kinds;
        },
        "The names that an index may have.");
}

}  // namespace sage::bindings
