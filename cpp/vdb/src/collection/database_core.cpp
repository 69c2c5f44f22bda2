#include "collection/database_core.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#ifdef __linux__
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "collection/records.hpp"
#include "collection/transaction.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

// So many vectors are indexed while a checkpoint waits.
constexpr std::size_t index_batch = 1024;

// The calling thread runs when the others leave something over: who writes does not wait for the index of it.
void yield_to_others() {
#ifdef __linux__
    constexpr int politeness = 10;
    static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), politeness));
#endif
}

std::size_t edit_distance(std::string_view left, std::string_view right) {
    std::vector<std::size_t> row(right.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= left.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= right.size(); ++j) {
            const std::size_t replaced = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row.back();
}

void require_name(std::string_view name) {
    if (name.empty() || name.size() > Database::name_bytes_max) {
        throw InvalidArgument("a collection's name must have 1 to " + std::to_string(Database::name_bytes_max) +
                              " bytes, got " + std::to_string(name.size()));
    }
}

std::vector<std::byte> catalog_record(Operation operation, std::uint64_t number, std::string_view name,
                                      const CollectionOptions* options) {
    ByteWriter out;
    out.u8(static_cast<std::uint8_t>(operation));
    out.varint(number);
    if (operation != Operation::drop) {
        out.text(name);
    }
    if (options != nullptr) {
        encode_options(out, *options);
    }
    return out.take();
}

}  // namespace

std::string near_names(std::string_view wanted, const std::vector<std::string>& all) {
    constexpr std::size_t compared_max = 2000;
    std::vector<std::pair<std::size_t, std::string_view>> near;
    for (std::size_t i = 0; i < std::min(all.size(), compared_max); ++i) {
        const std::size_t distance = edit_distance(wanted, all[i]);
        if (distance <= 1 + wanted.size() / 3) {
            near.emplace_back(distance, all[i]);
        }
    }
    std::sort(near.begin(), near.end());
    std::string text;
    for (std::size_t i = 0; i < std::min<std::size_t>(3, near.size()); ++i) {
        text += (i == 0 ? "; did you mean '" : ", '") + std::string(near[i].second) + "'";
    }
    return text.empty() ? text : text + "?";
}

DatabaseCore::DatabaseCore(std::string path, const DatabaseOptions& options)
    : path_(std::move(path)), options_(options) {
    if (options.index_threads < 1) {
        throw InvalidArgument("index_threads must be >= 1, got 0");
    }
}

DatabaseCore::~DatabaseCore() {
    if (!process_.is_owner()) {
        static_cast<void>(worker_.release());  // its thread stayed in the parent
        return;
    }
    try {
        close();
    } catch (...) {  // a destructor has nobody to tell; who wants to know calls close()
    }
}

storage::FileSystem& DatabaseCore::files() const {
    return options_.files != nullptr ? *options_.files : storage::system_files();
}

storage::StoreVisitor DatabaseCore::visitor() {
    return {[this](const std::shared_ptr<const storage::Snapshot>& snapshot) { load(snapshot); },
            [this](std::uint64_t sequence, storage::Bytes payload) { replay(sequence, payload); }};
}

void DatabaseCore::load_only() {
    recovery_ = storage::Store::read(files(), path_, vdb_application, visitor());
    finish_replay();
}

void DatabaseCore::start() {
    if (!path_.empty() && options_.read_only) {
        load_only();
    } else if (!path_.empty()) {
        storage::LogOptions log;
        log.policy = options_.sync;
        log.record_bytes_max = storage::log_record_bytes_limit;
        store_ = storage::Store::open(files(), path_, vdb_application, log, visitor());
        recovery_ = store_->recovery();
        generation_ = store_->manifest().generation;
        finish_replay();
    }
    if (!options_.background) {
        return;
    }
    worker_ = std::make_unique<Worker>();
    worker_->thread = std::thread([this] { run_worker(); });
    for (const auto& [number, collection] : by_number_) {
        notify(*collection);
    }
}

void DatabaseCore::load(const std::shared_ptr<const storage::Snapshot>& snapshot) {
    snapshot_bytes_ = snapshot->identity().file_bytes;
    next_number_ = read_catalog(*snapshot, [&](std::uint64_t number, std::string name, const CollectionOptions& options) {
        auto collection = std::make_shared<CollectionCore>(*this, number, std::move(name), options);
        collection->load(*snapshot, number);
        add(std::move(collection));
    });
}

void DatabaseCore::replay(std::uint64_t sequence, std::span<const std::byte> payload) {
    const std::string place = "record " + std::to_string(sequence) + " of the log in '" + path_ + "'";
    log_bytes_ += payload.size();
    StoredReader in(payload, place.c_str());
    const std::uint8_t code = in.u8();
    const std::uint64_t number = in.varint(~std::uint64_t{0});
    const auto operation = static_cast<Operation>(code);
    if (operation == Operation::create) {
        const std::string name(in.text(Database::name_bytes_max));
        const CollectionOptions options = decode_options(in);
        in.finish();
        in.require(!name.empty() && !by_name_.contains(name) && !by_number_.contains(number),
                   "a collection that is there already");
        add(std::make_shared<CollectionCore>(*this, number, name, options));
        next_number_ = std::max(next_number_, number + 1);
        return;
    }
    const auto found = by_number_.find(number);
    in.require(found != by_number_.end(), "a collection that is not there");
    const std::shared_ptr<CollectionCore> collection = found->second;
    switch (operation) {
        case Operation::drop:
            by_name_.erase(collection->name());
            by_number_.erase(found);
            return;
        case Operation::rename: {
            const std::string name(in.text(Database::name_bytes_max));
            in.require(!name.empty() && !by_name_.contains(name), "the name of a collection that is there already");
            by_name_.erase(collection->name());
            collection->set_name(name);
            by_name_.emplace(name, collection);
            return;
        }
        case Operation::put:
        case Operation::update:
        case Operation::remove: collection->replay(code, payload.subspan(payload.size() - in.left()), place); return;
        case Operation::create: return;
    }
    in.fail("an unknown operation");
}

void DatabaseCore::finish_replay() {
    for (const auto& [number, collection] : by_number_) {
        collection->finish_replay();
    }
}

void DatabaseCore::add(std::shared_ptr<CollectionCore> collection) {
    by_number_.emplace(collection->number(), collection);
    by_name_.emplace(collection->name(), std::move(collection));
}

void DatabaseCore::require_writable() const {
    process_.require_owner("the database " + (path_.empty() ? std::string("in memory") : "'" + path_ + "'"));
    if (closed_.load(std::memory_order_acquire)) {
        throw InvalidArgument("the database is closed; open it again to change it");
    }
    if (options_.read_only) {
        throw InvalidArgument("the database '" + path_ + "' was opened read only; open it with read_only = false");
    }
}

std::uint64_t DatabaseCore::append(std::span<const std::byte> record) {
    if (closed_.load(std::memory_order_acquire)) {
        throw InvalidArgument("the database is closed; open it again to change it");
    }
    if (!store_) {
        return 0;
    }
    if (record.size() > storage::log_record_bytes_limit) {
        throw InvalidArgument("a write must have at most " + std::to_string(storage::log_record_bytes_limit) +
                              " bytes, got " + std::to_string(record.size()) + "; write fewer documents at once");
    }
    const std::uint64_t sequence = store_->log().append(record);
    log_bytes_.fetch_add(record.size(), std::memory_order_relaxed);
    return sequence;
}

void DatabaseCore::settle(std::uint64_t sequence) {
    const std::shared_lock<FairSharedMutex> open(closing_);
    if (sequence != 0 && !closed_.load(std::memory_order_acquire)) {  // closing synced it
        store_->log().settle(sequence);
    }
}

bool DatabaseCore::checkpoint_is_due() const {
    return store_ && options_.checkpoint_log_bytes != 0 &&
           log_bytes_.load(std::memory_order_relaxed) >=
               std::max<std::uint64_t>(options_.checkpoint_log_bytes, snapshot_bytes_.load() / 2);
}

void DatabaseCore::notify(CollectionCore& collection) {
    if (!worker_) {
        return;
    }
    const bool due = checkpoint_is_due();
    const bool wants = collection.wants_maintenance() && !collection.queued.exchange(true);
    if (!due && !wants) {
        return;
    }
    const std::lock_guard<std::mutex> lock(worker_->mutex);
    if (wants) {
        worker_->queue.push_back(collection.weak_from_this());
    }
    worker_->wants_checkpoint = worker_->wants_checkpoint || due;
    worker_->changed.notify_one();
}

void DatabaseCore::run_worker() {
    yield_to_others();
    Worker& worker = *worker_;
    std::unique_lock<std::mutex> lock(worker.mutex);
    for (;;) {
        worker.changed.wait(lock, [&] { return worker.stop || worker.wants_checkpoint || !worker.queue.empty(); });
        if (worker.stop) {
            return;
        }
        const bool checkpoint = std::exchange(worker.wants_checkpoint, false);
        std::shared_ptr<CollectionCore> collection;
        if (!worker.queue.empty()) {
            collection = worker.queue.front().lock();
            worker.queue.pop_front();
        }
        lock.unlock();
        std::string error;
        try {
            if (checkpoint && checkpoint_is_due()) {
                this->checkpoint();
            }
            if (collection) {
                collection->queued.store(false);
                if (collection->maintain(index_batch, options_.index_threads)) {
                    notify(*collection);
                }
            }
        } catch (const std::exception& problem) {  // the next write asks again; stats() tells
            error = problem.what();
        }
        collection.reset();
        lock.lock();
        if (!error.empty() || checkpoint) {
            worker.error = error;
        }
    }
}

void DatabaseCore::stop_worker() {
    if (!worker_ || !worker_->thread.joinable()) {
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(worker_->mutex);
        worker_->stop = true;
        worker_->changed.notify_one();
    }
    worker_->thread.join();
}

void DatabaseCore::require_free_name(std::string_view name) const {
    require_name(name);
    if (by_name_.contains(name)) {
        throw InvalidArgument("there is a collection '" + std::string(name) + "' already");
    }
}

std::shared_ptr<CollectionCore> DatabaseCore::create(std::string_view name, const CollectionOptions& options) {
    require_writable();
    validate_options(options);
    std::shared_ptr<CollectionCore> collection;
    std::uint64_t sequence = 0;
    {
        const std::shared_lock<FairSharedMutex> gate(gate_);
        const std::lock_guard<std::mutex> lock(mutex_);
        require_free_name(name);
        if (by_name_.size() >= Database::collections_max) {
            throw InvalidArgument("a database must have at most " + std::to_string(Database::collections_max) +
                                  " collections; use a metadata field instead of a collection each");
        }
        collection = std::make_shared<CollectionCore>(*this, next_number_, std::string(name), options);
        sequence = append(catalog_record(Operation::create, next_number_, name, &options));
        ++next_number_;
        add(collection);
    }
    settle(sequence);
    return collection;
}

std::shared_ptr<CollectionCore> DatabaseCore::find(std::string_view name) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
}

std::shared_ptr<CollectionCore> DatabaseCore::require(std::string_view name) const {
    if (auto found = find(name)) {
        return found;
    }
    throw NotFound("there is no collection '" + std::string(name) + "'" + near_names(name, names()));
}

std::vector<std::string> DatabaseCore::names() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> all;
    for (const auto& [name, collection] : by_name_) {
        all.push_back(name);
    }
    return all;
}

void DatabaseCore::drop(std::string_view name) {
    require_writable();
    const std::shared_ptr<CollectionCore> collection = require(name);
    std::uint64_t sequence = 0;
    {
        // Alone: no write of this collection may come behind it in the log.
        const std::unique_lock<FairSharedMutex> gate(gate_);
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = by_name_.find(name);
        if (found == by_name_.end() || found->second != collection) {
            throw NotFound("there is no collection '" + std::string(name) + "' any more");
        }
        sequence = append(catalog_record(Operation::drop, collection->number(), {}, nullptr));
        collection->mark_dropped();
        by_number_.erase(collection->number());
        by_name_.erase(found);
    }
    settle(sequence);
}

void DatabaseCore::rename(std::string_view from, std::string_view to) {
    require_writable();
    const std::shared_ptr<CollectionCore> collection = require(from);
    std::uint64_t sequence = 0;
    {
        const std::shared_lock<FairSharedMutex> gate(gate_);
        const std::lock_guard<std::mutex> lock(mutex_);
        require_free_name(to);
        const auto found = by_name_.find(from);
        if (found == by_name_.end() || found->second != collection) {
            throw NotFound("there is no collection '" + std::string(from) + "' any more");
        }
        sequence = append(catalog_record(Operation::rename, collection->number(), to, nullptr));
        by_name_.erase(found);
        collection->set_name(std::string(to));
        by_name_.emplace(std::string(to), collection);
    }
    settle(sequence);
}

void DatabaseCore::sync() {
    require_writable();
    const std::shared_lock<FairSharedMutex> open(closing_);
    if (store_ && !closed_.load(std::memory_order_acquire)) {
        store_->log().sync();
    }
}

DatabaseStats DatabaseCore::stats() const {
    DatabaseStats stats;
    stats.path = path_;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stats.collections = by_name_.size();
    }
    stats.log_bytes = log_bytes_.load();
    stats.snapshot_bytes = snapshot_bytes_.load();
    stats.generation = generation_.load();
    stats.recovered_records = recovery_.records;
    stats.recovered_dropped = recovery_.dropped_why;
    if (worker_) {
        const std::lock_guard<std::mutex> lock(worker_->mutex);
        stats.background_error = worker_->error;
    }
    return stats;
}

VerifyReport DatabaseCore::report() const {
    VerifyReport report;
    report.collections = by_name_.size();
    for (const auto& [name, collection] : by_name_) {
        report.documents += collection->view()->documents;
    }
    report.records = recovery_.records;
    report.dropped = recovery_.dropped_why;
    return report;
}

void DatabaseCore::close() {
    if (!process_.is_owner()) {
        return;
    }
    const std::lock_guard<std::mutex> once(close_mutex_);
    stop_worker();
    const std::lock_guard<std::mutex> alone_of_its_kind(checkpoint_mutex_);
    if (closed_.load(std::memory_order_acquire)) {
        return;
    }
    std::exception_ptr problem;  // what is in the log is not lost with it
    if (store_ && options_.checkpoint_at_close && log_bytes_.load() != 0) {
        try {
            Frozen frozen;
            freeze(frozen, nullptr);
            write_checkpoint(frozen);
        } catch (const Error&) {
            problem = std::current_exception();
        }
    }
    const std::unique_lock<FairSharedMutex> gate(gate_);
    const std::unique_lock<FairSharedMutex> alone(closing_);
    if (closed_.exchange(true) || !store_) {
        return;
    }
    store_->close();
    if (problem) {
        std::rethrow_exception(problem);
    }
}

}  // namespace sage::vdb::detail
