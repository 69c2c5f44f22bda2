// The real files: POSIX calls, repeated where a signal broke them off.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <system_error>

#include "sage/common/error.hpp"
#include "sage/common/file.hpp"

namespace sage::storage {
namespace {

constexpr mode_t file_mode = 0600;
constexpr mode_t directory_mode = 0700;

[[noreturn]] void fail(const std::string& action, const std::string& path, int code) {
    const std::string message = "cannot " + action + " '" + path + "': " + std::generic_category().message(code) +
                                " (errno " + std::to_string(code) + ")";
    if (code == ENOENT) {
        throw NotFound(message);
    }
    throw IoError(message, code);
}

template <class Call>
auto repeat(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) {
        result = call();
    }
    return result;
}

// A file descriptor that is closed with its owner.
class Descriptor {
public:
    Descriptor(const std::string& path, int flags, const char* action) {
        value_ = repeat([&] { return ::open(path.c_str(), flags | O_CLOEXEC, file_mode); });
        if (value_ < 0) {
            fail(action, path, errno);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    // Nothing is lost when close fails: what had to be durable was synced before.
    ~Descriptor() { static_cast<void>(::close(value_)); }
    [[nodiscard]] int get() const noexcept { return value_; }

private:
    int value_;
};

std::uint64_t descriptor_size(int descriptor, const std::string& path) {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) {
        fail("ask for the size of", path, errno);
    }
    return static_cast<std::uint64_t>(status.st_size);
}

// Not repeated after EINTR: a sync that did not say "done" has failed.
int sync_descriptor(int descriptor) {
#if defined(__APPLE__)
    // fsync leaves the data in the drive's cache there.
    return ::fcntl(descriptor, F_FULLFSYNC);
#else
    return ::fdatasync(descriptor);
#endif
}

class PosixFile final : public File {
public:
    PosixFile(const std::string& path, int flags) : File(path), descriptor_(path, flags, "open") {}

    std::uint64_t size() const override { return descriptor_size(descriptor_.get(), path()); }

    std::size_t read(std::uint64_t offset, std::span<std::byte> out) const override {
        std::size_t done = 0;
        while (done < out.size()) {
            const ssize_t count = repeat([&] {
                return ::pread(descriptor_.get(), out.data() + done, out.size() - done,
                               static_cast<off_t>(offset + done));
            });
            if (count < 0) {
                fail("read at offset " + std::to_string(offset + done) + " of", path(), errno);
            }
            if (count == 0) {
                break;
            }
            done += static_cast<std::size_t>(count);
        }
        return done;
    }

private:
    void do_write(std::uint64_t offset, Bytes bytes) override {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t count = repeat([&] {
                return ::pwrite(descriptor_.get(), bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset + done));
            });
            if (count <= 0) {
                fail("write " + std::to_string(bytes.size()) + " bytes at offset " + std::to_string(offset) + " of",
                     path(), count == 0 ? EIO : errno);
            }
            done += static_cast<std::size_t>(count);
        }
    }

    void do_reserve(std::uint64_t bytes) override {
#ifdef __linux__
        // The call itself and not posix_fallocate, which writes zeros where the file system cannot do it.
        const int result = repeat([&] { return ::fallocate(descriptor_.get(), 0, 0, static_cast<off_t>(bytes)); });
        if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
            fail("reserve " + std::to_string(bytes) + " bytes for", path(), errno);
        }
#else
        static_cast<void>(bytes);
#endif
    }

    void do_truncate(std::uint64_t bytes) override {
        if (repeat([&] { return ::ftruncate(descriptor_.get(), static_cast<off_t>(bytes)); }) != 0) {
            fail("truncate to " + std::to_string(bytes) + " bytes", path(), errno);
        }
    }

    void do_sync() override {
        if (sync_descriptor(descriptor_.get()) != 0) {
            fail("sync", path(), errno);
        }
    }

    Descriptor descriptor_;
};

class PosixMappedFile final : public MappedFile {
public:
    explicit PosixMappedFile(const std::string& path) {
        const Descriptor descriptor(path, O_RDONLY, "open");
        size_ = descriptor_size(descriptor.get(), path);
        if (size_ == 0) {
            return;  // mmap refuses nothing at all
        }
        address_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor.get(), 0);
        if (address_ == MAP_FAILED) {
            fail("map", path, errno);
        }
    }
    PosixMappedFile(const PosixMappedFile&) = delete;
    PosixMappedFile& operator=(const PosixMappedFile&) = delete;
    ~PosixMappedFile() override {
        if (size_ != 0) {
            static_cast<void>(::munmap(address_, size_));
        }
    }
    Bytes bytes() const noexcept override { return {static_cast<const std::byte*>(address_), size_}; }

private:
    void* address_ = nullptr;
    std::size_t size_ = 0;
};

// flock belongs to the open file and not to the process: a forked child would keep it held after its parent's end.
// So the child closes its copies (which lets go of nothing as long as the parent has the file open).
class PosixFileLock final : public FileLock {
public:
    explicit PosixFileLock(const std::string& path) : path_(path) {
        watch_forks();
        // Nobody forks between the opening and the entry in the list.
        const std::lock_guard<std::mutex> guard(mutex());
        descriptor_ = repeat([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, file_mode); });
        if (descriptor_ < 0) {
            fail("open", path, errno);
        }
        if (repeat([&] { return ::flock(descriptor_, LOCK_EX | LOCK_NB); }) != 0) {
            const int code = errno;
            static_cast<void>(::close(descriptor_));
            descriptor_ = -1;
            if (code != EWOULDBLOCK) {
                fail("lock", path, code);
            }
            return;
        }
        held().insert(this);
    }
    PosixFileLock(const PosixFileLock&) = delete;
    PosixFileLock& operator=(const PosixFileLock&) = delete;
    ~PosixFileLock() override {
        const std::lock_guard<std::mutex> guard(mutex());
        held().erase(this);
        if (descriptor_ >= 0) {
            static_cast<void>(::close(descriptor_));
        }
    }

    [[nodiscard]] bool is_held() const noexcept { return descriptor_ >= 0; }

    void write(std::string_view text) override {
        const ssize_t count = repeat([&] { return ::pwrite(descriptor_, text.data(), text.size(), 0); });
        if (count != static_cast<ssize_t>(text.size()) ||
            repeat([&] { return ::ftruncate(descriptor_, static_cast<off_t>(text.size())); }) != 0) {
            fail("write to", path_, count < 0 ? errno : EIO);
        }
    }

private:
    // Both are never destroyed: a lock may live longer than what main() leaves behind.
    static std::mutex& mutex() {
        static auto* value = new std::mutex;
        return *value;
    }
    static std::set<PosixFileLock*>& held() {
        static auto* value = new std::set<PosixFileLock*>;
        return *value;
    }
    static void before_fork() { mutex().lock(); }
    static void after_fork_in_parent() { mutex().unlock(); }
    static void after_fork_in_child() {
        for (PosixFileLock* lock : held()) {
            static_cast<void>(::close(lock->descriptor_));
            lock->descriptor_ = -1;
        }
        mutex().unlock();
    }
    static void watch_forks() {
        static std::once_flag registered;
        std::call_once(registered, [] {
            const int code = pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
            if (code != 0) {
                throw IoError("cannot watch for forks: pthread_atfork failed", code);
            }
        });
    }

    std::string path_;
    int descriptor_ = -1;
};

class PosixFileSystem final : public FileSystem {
public:
    std::unique_ptr<File> open(const std::string& path, OpenMode mode) override {
        const int flags = mode == OpenMode::read     ? O_RDONLY
                          : mode == OpenMode::change ? O_RDWR
                                                     : O_RDWR | O_CREAT | O_EXCL;
        return std::make_unique<PosixFile>(path, flags);
    }

    std::shared_ptr<const MappedFile> map(const std::string& path) override {
        return std::make_shared<PosixMappedFile>(path);
    }

    bool exists(const std::string& path) override {
        struct stat status {};
        if (::stat(path.c_str(), &status) == 0) {
            return true;
        }
        if (errno != ENOENT && errno != ENOTDIR) {
            fail("look for", path, errno);
        }
        return false;
    }

    std::vector<std::string> list(const std::string& directory) override {
        const auto close = [](DIR* open) { static_cast<void>(::closedir(open)); };
        const std::unique_ptr<DIR, decltype(close)> open(::opendir(directory.c_str()), close);
        if (!open) {
            fail("list", directory, errno);
        }
        std::vector<std::string> names;
        errno = 0;
        // Each call has a DIR of its own, which is what makes readdir safe among threads.
        while (const dirent* entry = ::readdir(open.get())) {  // NOLINT(concurrency-mt-unsafe)
            const std::string name(static_cast<const char*>(entry->d_name));
            if (name != "." && name != "..") {
                names.push_back(name);
            }
            errno = 0;
        }
        if (errno != 0) {
            fail("list", directory, errno);
        }
        std::sort(names.begin(), names.end());
        return names;
    }

    void create_directories(const std::string& directory) override {
        if (directory.empty() || exists(directory)) {
            return;
        }
        std::string name = directory;
        while (name.size() > 1 && name.back() == '/') {
            name.pop_back();
        }
        const std::size_t slash = name.rfind('/');
        const std::string parent = slash == std::string::npos ? "." : name.substr(0, slash == 0 ? 1 : slash);
        create_directories(parent);
        if (::mkdir(name.c_str(), directory_mode) != 0 && errno != EEXIST) {
            fail("make the folder", name, errno);
        }
        sync_directory(parent);
    }

    void rename(const std::string& from, const std::string& to) override {
        if (::rename(from.c_str(), to.c_str()) != 0) {
            fail("rename '" + from + "' to", to, errno);
        }
    }

    void remove(const std::string& path) override {
        if (::unlink(path.c_str()) != 0) {
            fail("remove", path, errno);
        }
    }

    void sync_directory(const std::string& directory) override {
        const Descriptor descriptor(directory, O_RDONLY | O_DIRECTORY, "open the folder");
        // EINVAL: file systems that keep their names safe by themselves and cannot be asked.
        if (::fsync(descriptor.get()) != 0 && errno != EINVAL) {
            fail("sync the folder", directory, errno);
        }
    }

    std::unique_ptr<FileLock> try_lock(const std::string& path) override {
        auto lock = std::make_unique<PosixFileLock>(path);
        if (!lock->is_held()) {
            return nullptr;
        }
        return lock;
    }
};

}  // namespace

FileSystem& system_files() {
    static PosixFileSystem files;
    return files;
}

}  // namespace sage::storage
