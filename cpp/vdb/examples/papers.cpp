// A database in a folder: documents with vectors, metadata and text; one search by all of them.
#include <sage/vdb/database.hpp>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

namespace vdb = sage::vdb;

int main() {
    const std::string folder = (std::filesystem::temp_directory_path() / "sage_vdb_papers").string();
    std::filesystem::remove_all(folder);
    {
        vdb::Database database = vdb::Database::open(folder);
        vdb::CollectionOptions options;
        options.dimension = 3;
        vdb::Collection papers = database.create_collection("papers", options);
        const std::vector<std::string> ids{"graphs", "trees", "logs"};
        const std::vector<float> vectors{1, 0, 0, 0.9F, 0.1F, 0, 0, 0, 1};
        const std::vector<vdb::Record> metadata{
            {{"year", std::int64_t{2019}}}, {{"year", std::int64_t{2021}}}, {{"year", std::int64_t{2022}}}};
        const std::vector<std::optional<std::string>> texts{"Search in graphs", "Search in trees", "Logs and recovery"};
        papers.add({.ids = std::span<const std::string>(ids), .vectors = vectors, .metadata = metadata, .texts = texts});
    }
    // Everything is there again, whatever happened to the process in between.
    const vdb::Database database = vdb::Database::open(folder);
    const vdb::Collection papers = database.collection("papers");
    const std::vector<float> query{1, 0, 0};
    const std::vector<std::string> words{"search"};
    const vdb::SearchHits hits = papers.search({.queries = query,
                                                .texts = words,
                                                .k = 2,
                                                .filter = vdb::field("year") >= std::int64_t{2020},
                                                .include = {.text = true}});
    const auto& found = std::get<std::vector<std::string>>(hits.documents.ids);
    for (std::size_t rank = 0; rank < found.size(); ++rank) {
        std::cout << found[rank] << " " << hits.scores[rank] << " " << hits.documents.texts[rank].value_or("") << "\n";
    }
    return found == std::vector<std::string>{"trees", "logs"} ? 0 : 1;
}
