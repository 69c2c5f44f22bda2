// What LogReader has open.
#pragma once

#include <string>
#include <vector>

#include "log_format.hpp"

namespace sage::storage {

struct LogReader::Segments {
    struct Opened {
        std::uint64_t first;
        std::unique_ptr<File> file;
    };
    std::string directory;
    LogIdentity identity;
    std::uint64_t from;
    std::vector<std::uint64_t> firsts;  // of all segments in the folder
    std::vector<Opened> opened;         // those that are needed
    log_format::SegmentScan last_scan;
};

// The first sequence numbers of the segments in a folder, ascending.
[[nodiscard]] std::vector<std::uint64_t> list_segments(FileSystem& files, const std::string& directory);

}  // namespace sage::storage
