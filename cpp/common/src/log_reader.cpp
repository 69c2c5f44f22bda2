#include "log_reader.hpp"

#include <algorithm>

#include "sage/common/error.hpp"

namespace sage::storage {

std::vector<std::uint64_t> list_segments(FileSystem& files, const std::string& directory) {
    std::vector<std::uint64_t> firsts;
    for (const std::string& name : files.list(directory)) {
        if (const auto first = log_format::parse_segment_name(name)) {
            firsts.push_back(*first);
        }
    }
    std::sort(firsts.begin(), firsts.end());
    return firsts;
}

LogReader::LogReader(FileSystem& files, const std::string& directory, const LogIdentity& identity, std::uint64_t from)
    : segments_(std::make_unique<Segments>(Segments{directory, identity, from, {}, {}, {}})) {
    segments_->firsts = list_segments(files, directory);
    const auto& firsts = segments_->firsts;
    if (firsts.empty()) {
        throw NotFound("there is no log in '" + directory + "': no file is called log-<number>.sagelog");
    }
    // Older ones are not needed, and some of them may be gone: removing them is not one step.
    auto begin = std::upper_bound(firsts.begin(), firsts.end(), from);
    if (begin == firsts.begin()) {
        throw Corruption("the log in '" + directory + "' must hold record " + std::to_string(from) +
                         ", its first segment begins with record " + std::to_string(firsts.front()));
    }
    for (--begin; begin != firsts.end(); ++begin) {
        auto file = files.open(join_path(directory, log_format::segment_name(*begin)), OpenMode::read);
        log_format::check_segment_header(*file, identity, *begin);
        segments_->opened.push_back({*begin, std::move(file)});
    }
}

LogReader::LogReader(LogReader&&) noexcept = default;
LogReader& LogReader::operator=(LogReader&&) noexcept = default;
LogReader::~LogReader() = default;

LogRecovery LogReader::replay(const RecordVisitor& visit) {
    LogRecovery recovery;
    const Segments& segments = *segments_;
    for (std::size_t i = 0; i < segments.opened.size(); ++i) {
        const auto& [first, file] = segments.opened[i];
        const bool last = i + 1 == segments.opened.size();
        const log_format::SegmentScan scan =
            log_format::scan_segment(*file, segments.identity, first, segments.from, last, visit);
        ++recovery.segments;
        recovery.records += scan.records;
        recovery.next_sequence = scan.next_sequence;
        recovery.dropped_bytes = scan.dropped;
        recovery.dropped_why = scan.dropped_why;
        if (!last && scan.next_sequence != segments.opened[i + 1].first) {
            throw Corruption("the log in '" + segments.directory + "' must go on with record " +
                             std::to_string(scan.next_sequence) + " after '" + file->path() +
                             "', the next segment begins with record " +
                             std::to_string(segments.opened[i + 1].first) + "; is a file missing?");
        }
        segments_->last_scan = scan;
    }
    if (recovery.next_sequence < segments.from) {
        throw Corruption("the log in '" + segments.directory + "' must reach record " +
                         std::to_string(segments.from - 1) + ", which the snapshot holds; it ends before record " +
                         std::to_string(recovery.next_sequence));
    }
    return recovery;
}

}  // namespace sage::storage
