#include "sage/common/file.hpp"

#include <cerrno>

#include "sage/common/error.hpp"

namespace sage::storage {

void File::require_sound() const {
    if (poisoned_.load(std::memory_order_acquire)) {
        throw IoError("'" + path_ + "' cannot be written any more: an earlier sync of it failed, and what was " +
                          "written before may be lost; close the store and open it again",
                      EIO);
    }
}

void File::write(std::uint64_t offset, Bytes bytes) {
    require_sound();
    do_write(offset, bytes);
}

void File::reserve(std::uint64_t bytes) {
    require_sound();
    do_reserve(bytes);
}

void File::truncate(std::uint64_t bytes) {
    require_sound();
    do_truncate(bytes);
}

void File::sync() {
    require_sound();
    try {
        do_sync();
    } catch (...) {  // whatever it was, what the disk holds is unknown from now on
        poisoned_.store(true, std::memory_order_release);
        throw;
    }
}

std::string join_path(std::string_view directory, std::string_view name) {
    std::string path(directory);
    if (!path.empty() && path.back() != '/') {
        path += '/';
    }
    return path.append(name);
}

std::vector<std::byte> read_file(FileSystem& files, const std::string& path, std::uint64_t bytes_max) {
    const std::unique_ptr<File> file = files.open(path, OpenMode::read);
    const std::uint64_t size = file->size();
    if (size > bytes_max) {
        throw Corruption("'" + path + "' must have at most " + std::to_string(bytes_max) + " bytes, it has " +
                         std::to_string(size));
    }
    std::vector<std::byte> content(size);
    content.resize(file->read(0, content));
    return content;
}

void replace_file(FileSystem& files, const std::string& path, Bytes content) {
    const std::string temporary = path + std::string(temporary_suffix);
    if (files.exists(temporary)) {
        files.remove(temporary);
    }
    {
        const std::unique_ptr<File> file = files.open(temporary, OpenMode::create);
        file->write(0, content);
        file->sync();
    }
    files.rename(temporary, path);
    const std::size_t slash = path.rfind('/');
    files.sync_directory(slash == std::string::npos ? "." : path.substr(0, slash == 0 ? 1 : slash));
}

}  // namespace sage::storage
