// Databases as of one moment: checkpoints, backups, and back from them.
#include <set>
#include <utility>

#include "collection/database_core.hpp"
#include "collection/records.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

constexpr std::uint32_t catalog_version = 1;
constexpr const char* catalog_section = "catalog";

}  // namespace

std::uint64_t DatabaseCore::read_catalog(const storage::Snapshot& snapshot, const Found& found) const {
    StoredReader in(snapshot.verified_section(catalog_section), "the catalog of a snapshot");
    if (const auto version = in.fixed<std::uint32_t>(); version != catalog_version) {
        throw UnsupportedFormat("'" + snapshot.path() + "' has a catalog of version " + std::to_string(version) +
                                ", this build reads version " + std::to_string(catalog_version));
    }
    const auto next_number = in.fixed<std::uint64_t>();
    const std::size_t count = in.count(Database::collections_max, 3);
    std::set<std::string> names;
    std::set<std::uint64_t> numbers;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t number = in.varint(next_number);
        std::string name(in.text(Database::name_bytes_max));
        const CollectionOptions options = decode_options(in);
        in.require(!name.empty() && names.insert(name).second && numbers.insert(number).second && number < next_number,
                   "two collections with one name or number");
        found(number, std::move(name), options);
    }
    in.finish();
    return next_number;
}

std::vector<std::byte> DatabaseCore::catalog_of(const Collections& collections, std::uint64_t next_number) const {
    ByteWriter out;
    out.fixed(catalog_version);
    out.fixed(next_number);
    out.varint(collections.size());
    for (const auto& [number, collection] : collections) {
        out.varint(number);
        out.text(collection->name());
        encode_options(out, collection->options());
    }
    return out.take();
}

// The indexes first, while writers go on: one of them may be taking in a batch. The gate then only for the moment that
// is written down. The index of a collection that came between the two is free, or all begins again.
void DatabaseCore::freeze(Frozen& frozen, const CollectionCore* only) {
    Collections held;
    for (bool complete = false; !complete;) {
        for (const auto& [number, collection] : wanted_collections(only)) {
            if (held.emplace(number, collection).second) {
                frozen.collections.emplace_back(collection);
            }
        }
        const std::unique_lock<FairSharedMutex> gate(gate_);
        const Collections now = wanted_collections(only);
        complete = true;
        for (const auto& [number, collection] : now) {
            if (held.contains(number)) {
                continue;
            }
            if (frozen.collections.emplace_back(collection, std::try_to_lock).index.owns_lock()) {
                held.emplace(number, collection);
            } else {
                frozen.collections.pop_back();
                complete = false;
            }
        }
        if (!complete) {
            continue;
        }
        for (CollectionCore::Frozen& part : frozen.collections) {
            if (now.contains(part.core->number())) {  // it was not dropped meanwhile
                part.core->freeze(part);
            }
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        frozen.catalog = catalog_of(now, next_number_);
        frozen.covered = store_ ? store_->log().last_sequence() : 0;
        frozen.log_bytes = log_bytes_.load();
    }
}

// All, or the one; throws NotFound when that was dropped.
DatabaseCore::Collections DatabaseCore::wanted_collections(const CollectionCore* only) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (only == nullptr) {
        return by_number_;
    }
    const auto found = by_number_.find(only->number());
    if (found == by_number_.end()) {
        throw NotFound("the collection '" + only->name() + "' was dropped, it cannot be backed up any more");
    }
    return {*found};
}

void DatabaseCore::save(storage::SnapshotWriter& writer, const Frozen& frozen) {
    writer.add_section(catalog_section, frozen.catalog);
    for (const CollectionCore::Frozen& part : frozen.collections) {
        if (part.view) {
            part.core->save(writer, part);
        }
    }
}

void DatabaseCore::write_checkpoint(const Frozen& frozen) {
    const storage::CheckpointResult result = store_->checkpoint(
        frozen.covered, [&frozen](storage::SnapshotWriter& writer) { save(writer, frozen); });
    log_bytes_ -= frozen.log_bytes;
    snapshot_bytes_ = result.snapshot_bytes;
    generation_ = result.generation;
}

void DatabaseCore::checkpoint() {
    require_writable();
    const std::lock_guard<std::mutex> alone(checkpoint_mutex_);
    if (store_ && !closed_.load(std::memory_order_acquire)) {
        Frozen frozen;
        freeze(frozen, nullptr);
        write_checkpoint(frozen);
    }
}

void DatabaseCore::backup(const std::string& path, const CollectionCore* only) {
    if (storage::Store::exists(files(), path)) {
        throw InvalidArgument("there is a store in '" + path + "' already; a backup needs a folder of its own");
    }
    const std::lock_guard<std::mutex> alone(checkpoint_mutex_);
    Frozen frozen;
    freeze(frozen, only);
    const auto copy = storage::Store::open(files(), path, vdb_application, storage::LogOptions{}, {});
    static_cast<void>(copy->checkpoint(0, [&frozen](storage::SnapshotWriter& writer) { save(writer, frozen); }));
    copy->close();
}

// The collections of a backup under numbers that nobody has; not known to anybody yet.
DatabaseCore::Collections DatabaseCore::read_backup(const std::string& path) {
    Collections fresh;
    const auto load = [&](const std::shared_ptr<const storage::Snapshot>& snapshot) {
        read_catalog(*snapshot, [&](std::uint64_t number, std::string name, const CollectionOptions& options) {
            std::uint64_t own_number = 0;
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                own_number = next_number_++;
            }
            auto collection = std::make_shared<CollectionCore>(*this, own_number, std::move(name), options);
            collection->load(*snapshot, number);
            fresh.emplace(own_number, std::move(collection));
        });
    };
    const auto replay = [&path](std::uint64_t, storage::Bytes) {
        throw InvalidArgument("'" + path + "' is no backup: it has changes since its last checkpoint");
    };
    static_cast<void>(storage::Store::read(files(), path, vdb_application, {load, replay}));
    return fresh;
}

void DatabaseCore::restore(const std::string& path) {
    require_writable();
    const std::lock_guard<std::mutex> alone(checkpoint_mutex_);
    const Collections fresh = read_backup(path);
    {
        Frozen frozen;
        for (const auto& [number, collection] : fresh) {
            frozen.collections.emplace_back(collection);
        }
        // Writers wait until the snapshot is durable: what they wrote before it is gone with it.
        const std::unique_lock<FairSharedMutex> gate(gate_);
        if (closed_.load(std::memory_order_acquire)) {
            throw InvalidArgument("the database is closed; open it again to change it");
        }
        for (CollectionCore::Frozen& part : frozen.collections) {
            part.core->freeze(part);
        }
        frozen.catalog = catalog_of(fresh, fresh.empty() ? 1 : fresh.rbegin()->first + 1);
        if (store_) {
            frozen.covered = store_->log().last_sequence();
            frozen.log_bytes = log_bytes_.load();
            write_checkpoint(frozen);
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        for (const auto& [number, collection] : by_number_) {
            collection->mark_dropped();
        }
        by_name_.clear();
        by_number_.clear();
        for (const auto& [number, collection] : fresh) {
            add(collection);
        }
    }
    for (const auto& [number, collection] : fresh) {
        notify(*collection);
    }
}

}  // namespace sage::vdb::detail
