#include "reports.hpp"

#include <string>

namespace sage::bindings {

namespace py = pybind11;

namespace {

py::list field_stats(const std::vector<vdb::FieldStats>& fields) {
    py::list out;
    for (const vdb::FieldStats& field : fields) {
        py::dict one;
        one["name"] = field.name;
        one["type"] = std::string(vdb::field_type_name(field.type));
        one["count"] = field.count;
        one["distinct"] = field.distinct;
        one["bytes"] = field.column_bytes + field.index_bytes;
        out.append(one);
    }
    return out;
}

}  // namespace

py::dict report_of(const vdb::DatabaseStats& stats) {
    py::dict out;
    out["path"] = stats.path;
    out["collections"] = stats.collections;
    out["log_bytes"] = stats.log_bytes;
    out["snapshot_bytes"] = stats.snapshot_bytes;
    out["generation"] = stats.generation;
    out["recovered_records"] = stats.recovered_records;
    out["recovered_dropped"] = stats.recovered_dropped;
    out["background_error"] = stats.background_error;
    return out;
}

py::dict report_of(const vdb::VerifyReport& report) {
    py::dict out;
    out["collections"] = report.collections;
    out["documents"] = report.documents;
    out["records"] = report.records;
    out["dropped"] = report.dropped;
    return out;
}

py::dict report_of(const vdb::CollectionStats& stats) {
    const char* const id_kinds[] = {"none", "int", "str"};
    py::dict out;
    out["name"] = stats.name;
    out["documents"] = stats.documents;
    out["vectors"] = stats.vectors;
    out["texts"] = stats.texts;
    out["ids"] = id_kinds[static_cast<std::size_t>(stats.id_kind)];
    out["index"] = stats.index;
    out["index_reason"] = stats.index_reason;
    out["indexed"] = stats.indexed;
    out["recent"] = stats.recent;
    out["removed"] = stats.removed;
    out["vector_bytes"] = stats.vector_bytes;
    out["fields"] = field_stats(stats.fields);
    out["text_terms"] = stats.text.terms;
    out["text_bytes"] = stats.text.bytes;
    return out;
}

py::dict report_of(const vdb::CollectionOptions& options) {
    py::dict out;
    out["dimension"] = options.dimension;
    out["metric"] = std::string(vdb::metric_name(options.metric));
    out["index"] = std::string(vdb::index_kind_name(options.index));
    out["storage"] = std::string(vdb::storage_name(options.storage));
    out["rerank"] = options.rerank ? py::cast(std::string(vdb::storage_name(*options.rerank))) : py::none();
    out["degree"] = options.graph.degree;
    out["links"] = options.links;
    out["lists"] = options.lists;
    // As it was given: 0 where each kind of index has its own.
    const bool usual = options.graph.build_effort == vdb::GraphOptions().build_effort &&
                       options.build_effort == vdb::CollectionOptions().build_effort;
    out["build_effort"] = usual ? 0 : options.build_effort;
    out["k1"] = options.text.k1;
    out["b"] = options.text.b;
    return out;
}

}  // namespace sage::bindings
