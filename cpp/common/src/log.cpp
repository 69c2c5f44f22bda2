#include "sage/common/log.hpp"

#include <algorithm>
#include <cerrno>
#include <exception>

#include "log_reader.hpp"
#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

// How far ahead of the records the file is made longer: syncing a file that does not grow costs about two thirds.
constexpr std::uint64_t reserve_bytes_min = std::uint64_t{64} << 10;
constexpr std::uint64_t reserve_bytes_max = std::uint64_t{4} << 20;
constexpr std::uint64_t copy_bytes = std::uint64_t{1} << 20;

void check_options(const LogOptions& options) {
    if (options.record_bytes_max > log_record_bytes_limit) {
        throw InvalidArgument("record_bytes_max must be at most " + std::to_string(log_record_bytes_limit) + ", got " +
                              std::to_string(options.record_bytes_max));
    }
    if (options.group_delay_max.count() < 0) {
        throw InvalidArgument("group_delay_max must not be negative, got " +
                              std::to_string(options.group_delay_max.count()) + " us");
    }
}

// Writes what stands there once more. After a failed fsync the system may take pages for written that are not; only
// pages that are written anew are sure to be synced.
void write_again(File& file, std::uint64_t begin, std::uint64_t end) {
    std::vector<std::byte> buffer;
    while (begin < end) {
        buffer.resize(std::min(copy_bytes, end - begin));
        if (file.read(begin, buffer) != buffer.size()) {
            throw IoError("'" + file.path() + "' became shorter while it was opened for writing", EIO);
        }
        file.write(begin, buffer);
        begin += buffer.size();
    }
}

void remove_unfinished(FileSystem& files, const std::string& directory) {
    for (const std::string& name : files.list(directory)) {
        if (name.starts_with("log-") && name.ends_with(temporary_suffix)) {
            files.remove(join_path(directory, name));
        }
    }
}

}  // namespace

Log::Log(FileSystem& files, std::string directory, LogIdentity identity, const LogOptions& options)
    : files_(files),
      directory_(std::move(directory)),
      identity_(identity),
      options_(options),
      meeting_(std::make_unique<Meeting>()) {
    check_options(options);
}

std::unique_ptr<Log> Log::create(FileSystem& files, const std::string& directory, const LogIdentity& identity,
                                 const LogOptions& options, std::uint64_t first_sequence) {
    if (first_sequence == 0) {
        throw InvalidArgument("first_sequence must be >= 1, got 0");
    }
    if (!list_segments(files, directory).empty()) {
        throw InvalidArgument("there is a log in '" + directory + "' already; open it instead of creating one");
    }
    remove_unfinished(files, directory);
    std::unique_ptr<Log> log(new Log(files, directory, identity, options));
    log->next_sequence_ = first_sequence;
    log->durable_ = first_sequence - 1;
    const Held held(log->meeting_->mutex);
    log->start_segment(first_sequence);
    return log;
}

std::unique_ptr<Log> Log::open(FileSystem& files, const std::string& directory, const LogIdentity& identity,
                               const LogOptions& options, std::uint64_t from, const RecordVisitor& visit,
                               LogRecovery* recovery) {
    std::unique_ptr<Log> log(new Log(files, directory, identity, options));
    LogReader reader(files, directory, identity, from);
    const LogRecovery found = reader.replay(visit);
    const Held held(log->meeting_->mutex);
    log->adopt(reader);
    if (recovery != nullptr) {
        *recovery = found;
    }
    return log;
}

Log::~Log() {
    if (!process_.is_owner()) {
        static_cast<void>(meeting_.release());
        return;
    }
    try {
        close();
    } catch (...) {  // a destructor has nobody to tell; who wants to know calls close()
    }
}

void Log::adopt(const LogReader& reader) {
    const LogReader::Segments& segments = *reader.segments_;
    const log_format::SegmentScan& scan = segments.last_scan;
    closed_ = true;  // until all of this is done: the destructor must not note a clean close after half of it
    first_sequences_.assign(segments.firsts.begin(), segments.firsts.end());
    next_sequence_ = scan.next_sequence;
    durable_ = next_sequence_ - 1;
    // The note of a close is overwritten by the next record: it proves that what stands before it is durable, and
    // nothing proves that it is so itself.
    end_ = scan.closed ? scan.end - log_format::record_header_bytes : scan.end;
    synced_ = end_;
    reserved_ = scan.end;
    remove_unfinished(files_, directory_);
    file_ = files_.open(segments.opened.back().file->path(), OpenMode::change);
    clean_ = scan.closed && file_->size() == scan.end;
    if (!clean_) {
        if (file_->size() != end_) {
            file_->truncate(end_);
        }
        reserved_ = end_;
        write_again(*file_, scan.synced, end_);
        file_->sync();
        files_.sync_directory(directory_);  // its maker may have been killed before it did that
    }
    closed_ = false;
}

void Log::start_segment(std::uint64_t first_sequence) {
    const std::string path = join_path(directory_, log_format::segment_name(first_sequence));
    const std::string temporary = path + std::string(temporary_suffix);
    if (files_.exists(temporary)) {
        files_.remove(temporary);
    }
    const FileHeaderBytes header = log_format::encode_segment_header(identity_, first_sequence);
    auto file = files_.open(temporary, OpenMode::create);
    file->write(0, header);
    file->sync();
    files_.rename(temporary, path);
    try {
        files_.sync_directory(directory_);
        file = files_.open(path, OpenMode::change);  // for the name in its messages
    } catch (const Error& error) {
        // The name is there and may be gone after a crash: going on in either file could lose records.
        give_up(error.what());
        throw;
    }
    file_ = std::move(file);
    first_sequences_.push_back(first_sequence);
    end_ = header.size();
    synced_ = end_;
    reserved_ = end_;
    clean_ = true;
}

void Log::end_segment() {
    file_->truncate(end_);
    reserved_ = end_;
    sync_file();
}

// The caller holds the mutex and nobody else is syncing.
void Log::sync_file() {
    try {
        file_->sync();
    } catch (const Error& error) {
        give_up(error.what());
        throw;
    }
    synced_ = end_;
    durable_ = next_sequence_ - 1;
    meeting_->changed.notify_all();
}

void Log::give_up(const std::string& why) {
    failed_ = "the log in '" + directory_ + "' cannot be used any more, open it again; the reason: " + why;
    meeting_->changed.notify_all();
}

void Log::require_usable() const {
    if (!failed_.empty()) {
        throw IoError(failed_, EIO);
    }
    if (closed_) {
        throw InvalidArgument("the log in '" + directory_ + "' is closed");
    }
}

void Log::wait_for_leader(Held& held) {
    meeting_->changed.wait(held, [this] { return !syncing_; });
}

void Log::make_room(std::uint64_t bytes) {
    const std::uint64_t needed = end_ + bytes;
    if (needed <= reserved_) {
        return;
    }
    const std::uint64_t ahead = std::clamp(reserved_, reserve_bytes_min, reserve_bytes_max);
    const std::uint64_t wanted = std::max(needed, std::min(reserved_ + ahead, options_.segment_bytes_max));
    try {
        file_->reserve(wanted);
        reserved_ = wanted;
    } catch (const IoError&) {
        // No room for what may come; there may be room for this record, and the write says so if not.
        reserved_ = std::max(reserved_, needed);
    }
}

void Log::undo_partial_write() noexcept {
    try {
        file_->truncate(end_);
        reserved_ = end_;
    } catch (const std::exception& error) {
        // Part of a record that nobody was promised stands at the end; another one after it would be out of reach.
        failed_ = "the log in '" + directory_ + "' cannot be used any more, open it again; the reason: " + error.what();
    }
}

void Log::write_record(std::uint16_t kind, Bytes payload) {
    make_room(log_format::frame_bytes(payload.size()));
    log_format::encode_frame(static_cast<log_format::Kind>(kind), next_sequence_, synced_, payload,
                             {identity_.log_id, first_sequences_.back(), end_}, frame_);
    try {
        file_->write(end_, frame_);
    } catch (const Error&) {
        undo_partial_write();
        throw;
    }
    end_ += frame_.size();
    clean_ = false;
}

void Log::roll_when_full(Held& held, std::uint64_t frame_bytes) {
    while (end_ + frame_bytes > options_.segment_bytes_max && end_ > file_header_bytes &&
           next_sequence_ != first_sequences_.back()) {
        if (syncing_) {
            wait_for_leader(held);
            require_usable();
            continue;
        }
        end_segment();
        start_segment(next_sequence_);
    }
}

std::uint64_t Log::append(Bytes payload) {
    process_.require_owner("the log in '" + directory_ + "'");
    if (payload.size() > options_.record_bytes_max) {
        throw InvalidArgument("a record must have at most " + std::to_string(options_.record_bytes_max) +
                              " bytes, got " + std::to_string(payload.size()));
    }
    Held held(meeting_->mutex);
    require_usable();
    roll_when_full(held, log_format::frame_bytes(payload.size()));
    if (options_.policy == SyncPolicy::each) {
        wait_for_leader(held);
        require_usable();
    }
    write_record(static_cast<std::uint16_t>(log_format::Kind::record), payload);
    const std::uint64_t sequence = next_sequence_++;
    if (options_.policy == SyncPolicy::each) {
        sync_file();
        ++sync_count_;
    } else if (wants_company_) {
        meeting_->changed.notify_all();
    }
    return sequence;
}

void Log::sync(std::uint64_t sequence) {
    process_.require_owner("the log in '" + directory_ + "'");
    Held held(meeting_->mutex);
    if (sequence >= next_sequence_) {
        throw InvalidArgument("only records that were appended can be synced, got " + std::to_string(sequence) +
                              ", the last one is " + std::to_string(next_sequence_ - 1));
    }
    while (durable_ < sequence) {
        require_usable();
        if (syncing_) {
            meeting_->changed.wait(held);
        } else {
            sync_as_leader(held);
        }
    }
}

void Log::sync() { sync(last_sequence()); }

void Log::sync_as_leader(Held& held) {
    syncing_ = true;
    if (options_.group_delay_max.count() != 0 && next_sequence_ - 1 - durable_ < group_size_) {
        wants_company_ = true;
        meeting_->changed.wait_for(held, options_.group_delay_max,
                                   [this] { return next_sequence_ - 1 - durable_ >= group_size_; });
        wants_company_ = false;
    }
    const std::uint64_t reached = next_sequence_ - 1;
    const std::uint64_t end = end_;
    File& file = *file_;  // stays: a segment is ended only while nobody syncs
    held.unlock();
    std::exception_ptr problem;
    std::string why;
    try {
        file.sync();
    } catch (const std::exception& error) {
        problem = std::current_exception();
        why = error.what();
    }
    held.lock();
    syncing_ = false;
    if (problem) {
        give_up(why);
        std::rethrow_exception(problem);
    }
    group_size_ = std::max<std::uint64_t>(1, reached - durable_);
    durable_ = reached;
    synced_ = end;
    ++sync_count_;
    meeting_->changed.notify_all();
}

void Log::settle(std::uint64_t sequence) {
    if (options_.policy != SyncPolicy::none) {
        sync(sequence);
    }
}

std::uint64_t Log::commit(Bytes payload) {
    const std::uint64_t sequence = append(payload);
    settle(sequence);
    return sequence;
}

void Log::roll() {
    process_.require_owner("the log in '" + directory_ + "'");
    Held held(meeting_->mutex);
    require_usable();
    wait_for_leader(held);
    require_usable();
    if (next_sequence_ == first_sequences_.back()) {
        return;  // holds no record; there may be notes of closes
    }
    end_segment();
    start_segment(next_sequence_);
}

void Log::remove_before(std::uint64_t sequence) {
    process_.require_owner("the log in '" + directory_ + "'");
    const Held held(meeting_->mutex);
    require_usable();
    bool removed = false;
    while (first_sequences_.size() > 1 && first_sequences_[1] <= sequence) {
        files_.remove(join_path(directory_, log_format::segment_name(first_sequences_.front())));
        first_sequences_.pop_front();
        removed = true;
    }
    if (removed) {
        files_.sync_directory(directory_);
    }
}

void Log::close() {
    if (!process_.is_owner()) {
        return;
    }
    Held held(meeting_->mutex);
    if (closed_) {
        return;
    }
    wait_for_leader(held);
    closed_ = true;
    if (!failed_.empty() || clean_ || file_ == nullptr) {
        file_.reset();
        return;
    }
    sync_file();
    try {
        write_record(static_cast<std::uint16_t>(log_format::Kind::closed), {});
    } catch (const IoError&) {
        // The note is a proof and no data: on a full disk the log is closed without it.
    }
    if (failed_.empty()) {
        end_segment();
    }
    file_.reset();
}

std::uint64_t Log::last_sequence() const {
    const Held held(meeting_->mutex);
    return next_sequence_ - 1;
}

std::uint64_t Log::durable_sequence() const {
    const Held held(meeting_->mutex);
    return durable_;
}

std::uint64_t Log::sync_count() const {
    const Held held(meeting_->mutex);
    return sync_count_;
}

std::uint64_t Log::segment_count() const {
    const Held held(meeting_->mutex);
    return first_sequences_.size();
}

}  // namespace sage::storage
