#include "sage/vdb/database.hpp"

#include "collection/database_core.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

// Keeps the database together with the collection.
struct Handle {
    std::shared_ptr<detail::DatabaseCore> database;
    std::shared_ptr<detail::CollectionCore> collection;
};

std::shared_ptr<detail::CollectionCore> with_database(const std::shared_ptr<detail::DatabaseCore>& database,
                                                      std::shared_ptr<detail::CollectionCore> collection) {
    auto* core = collection.get();
    return {std::make_shared<Handle>(Handle{database, std::move(collection)}), core};
}

}  // namespace

Database::Database(std::shared_ptr<detail::DatabaseCore> core) : core_(std::move(core)) {}

Database Database::open(const std::string& path, const DatabaseOptions& options) {
    if (path.empty()) {
        throw InvalidArgument("path must name a folder, got ''; Database::in_memory() needs none");
    }
    auto core = std::make_shared<detail::DatabaseCore>(path, options);
    core->start();
    return Database(std::move(core));
}

Database Database::in_memory(const DatabaseOptions& options) {
    if (options.read_only) {
        throw InvalidArgument("a database in memory cannot be read only: nothing could ever be in it");
    }
    auto core = std::make_shared<detail::DatabaseCore>("", options);
    core->start();
    return Database(std::move(core));
}

VerifyReport Database::verify(const std::string& path, storage::FileSystem* files) {
    DatabaseOptions options;
    options.read_only = true;
    options.background = false;
    options.files = files;
    storage::Store::verify(files != nullptr ? *files : storage::system_files(), path, detail::vdb_application);
    detail::DatabaseCore core(path, options);
    core.load_only();
    return core.report();
}

Collection Database::create_collection(std::string_view name, const CollectionOptions& options) {
    return Collection(with_database(core_, core_->create(name, options)));
}

Collection Database::collection(std::string_view name) const {
    return Collection(with_database(core_, core_->require(name)));
}

bool Database::has_collection(std::string_view name) const { return core_->find(name) != nullptr; }
std::vector<std::string> Database::collection_names() const { return core_->names(); }
void Database::drop_collection(std::string_view name) { core_->drop(name); }
void Database::rename_collection(std::string_view from, std::string_view to) { core_->rename(from, to); }
void Database::checkpoint() { core_->checkpoint(); }
void Database::sync() { core_->sync(); }
void Database::backup(const std::string& path) const { core_->backup(path, nullptr); }
void Database::restore(const std::string& path) { core_->restore(path); }
DatabaseStats Database::stats() const { return core_->stats(); }
void Database::close() { core_->close(); }

}  // namespace sage::vdb
