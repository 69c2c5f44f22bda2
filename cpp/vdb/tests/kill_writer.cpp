// A program that writes to a database until it is killed: kill_writer FOLDER. Each call adds documents n and -n - 1;
// 2 n + 1, the number of the last document, is printed when it was acknowledged.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "sage/vdb/database.hpp"

namespace {

void run(const std::string& folder) {
    sage::vdb::DatabaseOptions options;
    options.checkpoint_log_bytes = 20'000;
    sage::vdb::Database database = sage::vdb::Database::open(folder, options);
    sage::vdb::CollectionOptions collection_options;
    collection_options.dimension = 2;
    collection_options.metric = sage::vdb::Metric::l2;
    sage::vdb::Collection collection = database.has_collection("docs")
                                           ? database.collection("docs")
                                           : database.create_collection("docs", collection_options);
    for (auto n = static_cast<std::int64_t>(collection.count() / 2);; ++n) {
        const std::vector<std::int64_t> ids{n, -n - 1};
        const std::vector<float> rows{static_cast<float>(n), 0, static_cast<float>(-n - 1), 0};
        const std::vector<std::optional<std::string>> texts{"text " + std::to_string(n), "text " + std::to_string(-n - 1)};
        collection.add({.ids = std::span<const std::int64_t>(ids), .vectors = rows, .texts = texts});
        const std::string line = std::to_string(2 * n + 1) + "\n";
        // One write: a line of a pipe is there whole or not at all. A reader that is gone ends the program.
        if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
            _exit(3);
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fputs("usage: kill_writer FOLDER\n", stderr);
        return 2;
    }
    try {
        run(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
