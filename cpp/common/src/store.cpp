#include "sage/common/store.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <random>

#include "bytes.hpp"
#include "log_reader.hpp"
#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

constexpr FileKind manifest_kind{"SAGEMANI", "manifest", 1};

// Fields in the header's body, which is all there is.
constexpr std::size_t generation_at = 0;
constexpr std::size_t log_id_at = 8;
constexpr std::size_t covered_at = 16;
constexpr std::size_t snapshot_bytes_at = 24;
constexpr std::size_t snapshot_checksum_at = 32;
constexpr std::size_t has_snapshot_at = 36;

constexpr std::string_view snapshot_prefix = "snapshot-";
constexpr std::string_view snapshot_suffix = ".sagesnap";
constexpr std::size_t name_digits = 20;

// How often a reader begins again because a checkpoint took its files away.
constexpr int read_attempts = 100;

bool is_snapshot_name(const std::string& name) {
    return name.starts_with(snapshot_prefix) && name.ends_with(snapshot_suffix);
}

// A folder of somebody else's is no place for a store: a mistyped path, most likely. What systems put into any folder
// is nobody's.
void require_no_foreign(FileSystem& files, const std::string& directory) {
    if (!files.exists(directory)) {
        return;
    }
    for (const std::string& name : files.list(directory)) {
        const bool own = name == lock_file_name || name == manifest_file_name || is_snapshot_name(name) ||
                         name.ends_with(temporary_suffix) || log_format::parse_segment_name(name).has_value();
        if (!own && !name.starts_with('.') && name != "lost+found") {
            throw Corruption("'" + directory + "' is no store and not empty, it holds '" + name +
                             "'; a new store needs a folder that is empty or not there yet");
        }
    }
}

std::uint64_t random_id() {
    std::random_device random;
    return (static_cast<std::uint64_t>(random()) << 32) | random();
}

Manifest read_manifest(FileSystem& files, const std::string& directory, const Application& application) {
    const std::string path = join_path(directory, manifest_file_name);
    return decode_manifest(application, read_file(files, path, file_header_bytes), path);
}

std::shared_ptr<const Snapshot> open_snapshot(FileSystem& files, const std::string& directory,
                                              const Application& application, const Manifest& manifest) {
    if (!manifest.snapshot) {
        return nullptr;
    }
    auto snapshot =
        std::make_shared<const Snapshot>(files, join_path(directory, snapshot_name(manifest.generation)), application);
    const SnapshotIdentity found = snapshot->identity();
    if (found != *manifest.snapshot) {
        throw Corruption("'" + snapshot->path() + "' is not the snapshot that the manifest names: it must have " +
                         std::to_string(manifest.snapshot->file_bytes) + " bytes and the checksum " +
                         hex(manifest.snapshot->checksum) + ", it has " + std::to_string(found.file_bytes) + " and " +
                         hex(found.checksum));
    }
    return snapshot;
}

// Files of ours that the manifest names and that are not there were lost, unlike a store that never was.
[[noreturn]] void report_missing(const std::string& directory, const NotFound& error) {
    throw Corruption("the store '" + directory + "' is damaged, a file that its manifest needs is missing: " +
                     error.what());
}

struct Opened {
    Manifest manifest;
    std::shared_ptr<const Snapshot> snapshot;
    LogReader log;
};

// All files of one moment, although a writer may be replacing them.
Opened open_to_read(FileSystem& files, const std::string& directory, const Application& application) {
    for (int attempt = 1;; ++attempt) {
        const Manifest manifest = read_manifest(files, directory, application);
        try {
            auto snapshot = open_snapshot(files, directory, application, manifest);
            return {manifest, std::move(snapshot),
                    LogReader(files, directory, {application, manifest.log_id}, manifest.covered + 1)};
        } catch (const NotFound& error) {
            if (read_manifest(files, directory, application) == manifest || attempt == read_attempts) {
                report_missing(directory, error);
            }
        } catch (const Corruption&) {
            // A segment that is gone looks like a hole in the log; only an unchanged manifest makes it one.
            if (read_manifest(files, directory, application) == manifest || attempt == read_attempts) {
                throw;
            }
        }
    }
}

}  // namespace

FileHeaderBytes encode_manifest(const Application& application, const Manifest& manifest) {
    FileHeader header{application, {}};
    put(header.body, generation_at, manifest.generation);
    put(header.body, log_id_at, manifest.log_id);
    put(header.body, covered_at, manifest.covered);
    if (manifest.snapshot) {
        put(header.body, snapshot_bytes_at, manifest.snapshot->file_bytes);
        put(header.body, snapshot_checksum_at, manifest.snapshot->checksum);
        put(header.body, has_snapshot_at, std::uint32_t{1});
    }
    return encode_file_header(manifest_kind, header);
}

Manifest decode_manifest(const Application& application, Bytes content, const std::string& path) {
    const FileHeader header = decode_file_header(manifest_kind, application, content, path);
    if (content.size() != file_header_bytes) {
        throw Corruption("'" + path + "' is damaged: a manifest must have " + std::to_string(file_header_bytes) +
                         " bytes, it has " + std::to_string(content.size()));
    }
    Manifest manifest{get<std::uint64_t>(header.body, generation_at), get<std::uint64_t>(header.body, log_id_at),
                      get<std::uint64_t>(header.body, covered_at), std::nullopt};
    if (get<std::uint32_t>(header.body, has_snapshot_at) != 0) {
        manifest.snapshot = SnapshotIdentity{get<std::uint64_t>(header.body, snapshot_bytes_at),
                                             get<std::uint32_t>(header.body, snapshot_checksum_at)};
    }
    return manifest;
}

std::string snapshot_name(std::uint64_t generation) {
    const std::string digits = std::to_string(generation);
    return std::string(snapshot_prefix) + std::string(name_digits - digits.size(), '0') + digits +
           std::string(snapshot_suffix);
}

Store::Store(FileSystem& files, std::string directory, const Application& application)
    : files_(files), directory_(std::move(directory)), application_(application) {}

bool Store::exists(FileSystem& files, const std::string& directory) {
    return files.exists(join_path(directory, manifest_file_name));
}

std::unique_ptr<Store> Store::open(FileSystem& files, const std::string& directory, const Application& application,
                                   const LogOptions& options, const StoreVisitor& visitor) {
    if (!exists(files, directory)) {
        require_no_foreign(files, directory);
    }
    files.create_directories(directory);
    std::unique_ptr<Store> store(new Store(files, directory, application));
    store->lock_ = std::make_unique<StoreLock>(files, directory);
    if (exists(files, directory)) {
        store->load(options, visitor);
    } else {
        store->create(options);
    }
    return store;
}

// The log comes first: a manifest says that there is one. A process that ended in between left a log without records.
void Store::create(const LogOptions& options) {
    for (const std::uint64_t first : list_segments(files_, directory_)) {
        const std::string path = join_path(directory_, log_format::segment_name(first));
        const std::unique_ptr<File> file = files_.open(path, OpenMode::read);
        if (first != 1 || file->size() != file_header_bytes) {
            throw Corruption("the store '" + directory_ + "' is damaged: there is a log ('" + path +
                             "') and no manifest; is the file '" + std::string(manifest_file_name) + "' missing?");
        }
        files_.remove(path);
    }
    for (const std::string& name : files_.list(directory_)) {
        if (is_snapshot_name(name)) {
            throw Corruption("the store '" + directory_ + "' is damaged: there is a snapshot ('" + name +
                             "') and no manifest; is the file '" + std::string(manifest_file_name) + "' missing?");
        }
    }
    manifest_ = {.generation = 0, .log_id = random_id(), .covered = 0, .snapshot = std::nullopt};
    log_ = Log::create(files_, directory_, {application_, manifest_.log_id}, options);
    replace_file(files_, join_path(directory_, manifest_file_name), encode_manifest(application_, manifest_));
}

void Store::load(const LogOptions& options, const StoreVisitor& visitor) {
    manifest_ = read_manifest(files_, directory_, application_);
    std::shared_ptr<const Snapshot> snapshot;
    try {
        snapshot = open_snapshot(files_, directory_, application_, manifest_);
        // Looks for the log's files before the visitor is called: what it throws itself must pass as it is.
        static_cast<void>(LogReader(files_, directory_, {application_, manifest_.log_id}, manifest_.covered + 1));
    } catch (const NotFound& error) {
        report_missing(directory_, error);
    }
    if (snapshot) {
        visitor.load(snapshot);
    }
    log_ = Log::open(files_, directory_, {application_, manifest_.log_id}, options, manifest_.covered + 1,
                     visitor.replay, &recovery_);
    // The manifest that counts may be one whose writer was killed before it synced the folder.
    files_.sync_directory(directory_);
    for (const std::string& name : files_.list(directory_)) {
        if (is_snapshot_name(name)) {
            std::uint64_t generation = 0;
            std::from_chars(name.data() + snapshot_prefix.size(), name.data() + name.size(), generation);
            next_generation_ = std::max(next_generation_, generation + 1);
        }
    }
    next_generation_ = std::max(next_generation_, manifest_.generation + 1);
    static_cast<void>(remove_left_over());
}

LogRecovery Store::read(FileSystem& files, const std::string& directory, const Application& application,
                        const StoreVisitor& visitor) {
    if (!exists(files, directory)) {
        throw NotFound("there is no store in '" + directory + "' (no file '" + std::string(manifest_file_name) + "')");
    }
    Opened opened = open_to_read(files, directory, application);
    if (opened.snapshot) {
        visitor.load(opened.snapshot);
    }
    return opened.log.replay(visitor.replay);
}

LogRecovery Store::verify(FileSystem& files, const std::string& directory, const Application& application) {
    return read(files, directory, application,
                {[](const std::shared_ptr<const Snapshot>& snapshot) { snapshot->verify(); },
                 [](std::uint64_t, Bytes) {}});
}

Log& Store::log() {
    lock_->require_owner();
    return *log_;
}

Manifest Store::manifest() const {
    const std::lock_guard<std::mutex> guard(mutex_);
    return manifest_;
}

// Snapshots other than the one that counts, unfinished files, segments that it covers.
std::string Store::remove_left_over() {
    try {
        for (const std::string& name : files_.list(directory_)) {
            const bool old = is_snapshot_name(name) &&
                             (!manifest_.snapshot || name != snapshot_name(manifest_.generation));
            const bool unfinished = (name.starts_with(snapshot_prefix) || name.starts_with(manifest_file_name)) &&
                                    name.ends_with(temporary_suffix);
            if (old || unfinished) {
                files_.remove(join_path(directory_, name));
            }
        }
        log_->remove_before(manifest_.covered + 1);
    } catch (const Error& error) {
        return error.what();  // what the store holds does not depend on it
    }
    return {};
}

CheckpointResult Store::checkpoint(std::uint64_t covered, const std::function<void(SnapshotWriter&)>& write) {
    lock_->require_owner();
    const std::lock_guard<std::mutex> guard(mutex_);
    if (!failed_.empty()) {
        throw IoError(failed_, EIO);
    }
    if (covered < manifest_.covered || covered > log_->last_sequence()) {
        throw InvalidArgument("a checkpoint must cover records from " + std::to_string(manifest_.covered) + " to " +
                              std::to_string(log_->last_sequence()) + ", got " + std::to_string(covered));
    }
    log_->roll();  // also makes all that is covered durable: the log must reach what the manifest says
    Manifest next{.generation = next_generation_++, .log_id = manifest_.log_id, .covered = covered, .snapshot = {}};
    const std::string path = join_path(directory_, snapshot_name(next.generation));
    {
        SnapshotWriter writer(files_, path, application_);
        write(writer);
        next.snapshot = writer.commit();
    }
    try {
        replace_file(files_, join_path(directory_, manifest_file_name), encode_manifest(application_, next));
    } catch (const Error& error) {
        // Which manifest counts after a crash is open; both find their files as long as nothing is removed.
        failed_ = "there can be no more checkpoints in '" + directory_ + "', open it again; the reason: " +
                  error.what();
        if (read_manifest(files_, directory_, application_) == manifest_) {
            failed_.clear();  // it did not come to the renaming
        }
        throw;
    }
    manifest_ = next;
    return {next.generation, next.snapshot->file_bytes, remove_left_over()};
}

void Store::close() {
    if (!lock_ || !lock_->is_owner()) {
        return;
    }
    if (log_) {
        log_->close();
    }
    lock_.reset();
}

}  // namespace sage::storage
