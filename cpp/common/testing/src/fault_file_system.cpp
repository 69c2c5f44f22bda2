#include "sage/common/testing/fault_file_system.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <set>

#include "sage/common/aligned.hpp"
#include "sage/common/error.hpp"

namespace sage::storage::testing {
namespace {

constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t sector_bytes = 512;

using Content = std::vector<std::byte>;

std::string parent_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string without_trailing_slash(std::string path) {
    while (path.size() > 1 && path.back() == '/') {
        path.pop_back();
    }
    return path;
}

// A change of a file's content that is not durable yet.
struct Change {
    enum class Kind { write, resize } kind;
    std::uint64_t offset;  // or the new size
    Content bytes;
    bool grows_only = false;
};

void apply_change(Content& content, const Change& change) {
    if (change.kind == Change::Kind::write) {
        content.resize(std::max<std::size_t>(content.size(), change.offset + change.bytes.size()));
        std::copy(change.bytes.begin(), change.bytes.end(),
                  content.begin() + static_cast<std::ptrdiff_t>(change.offset));
    } else if (!change.grows_only || change.offset > content.size()) {
        content.resize(change.offset);
    }
}

bool chance(std::mt19937_64& random, unsigned percent) { return random() % 100 < percent; }

// The bytes from `begin` to `end` of a write, as a write.
Change piece(const Change& change, std::size_t begin, std::size_t end) {
    const auto first = change.bytes.begin();
    return {Change::Kind::write, change.offset + begin,
            Content(first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end))};
}

// Some of a write's bytes arrive: by sectors, a sector now and then torn at a byte or filled with rubbish.
void apply_partly(Content& content, const Change& change, std::mt19937_64& random) {
    const std::size_t size = change.bytes.size();
    for (std::size_t begin = 0; begin < size;) {
        const std::size_t place = change.offset + begin;
        const std::size_t end = std::min(size, begin + sector_bytes - place % sector_bytes);
        const auto fate = random() % 8;
        if (fate < 3) {  // all of it
            apply_change(content, piece(change, begin, end));
        } else if (fate < 5) {  // torn
            const std::size_t middle = begin + random() % (end - begin + 1);
            const bool front = chance(random, 70);
            const std::size_t from = front ? begin : middle;
            const std::size_t to = front ? middle : end;
            apply_change(content, piece(change, from, to));
        } else if (fate == 5 && chance(random, 30)) {
            Content rubbish(end - begin);
            for (std::byte& byte : rubbish) {
                byte = static_cast<std::byte>(random());
            }
            apply_change(content, {Change::Kind::write, place, rubbish});
        }
        begin = end;
    }
}

}  // namespace

struct FaultFileSystem::Node {
    Content seen;
    Content durable;
    std::vector<Change> unsynced;

    void change(Change change) {
        apply_change(seen, change);
        unsynced.push_back(std::move(change));
    }
    // The first `count` changes; a write during a sync belongs to the next one.
    void sync(std::size_t count) {
        const auto end = unsynced.begin() + static_cast<std::ptrdiff_t>(std::min(count, unsynced.size()));
        for (auto change = unsynced.begin(); change != end; ++change) {
            apply_change(durable, *change);
        }
        unsynced.erase(unsynced.begin(), end);
    }
    // The pages pass for written: nobody writes them any more.
    void lose() { unsynced.clear(); }

    [[nodiscard]] Content after_crash(std::mt19937_64& random) const {
        Content content = durable;
        const auto fate = random() % 4;  // nothing arrived, everything, the rest by pieces
        if (fate == 0) {
            return content;
        }
        for (const Change& change : unsynced) {
            if (fate == 1) {
                apply_change(content, change);
            } else if (change.kind == Change::Kind::resize) {
                if (chance(random, 50)) {
                    apply_change(content, change);
                }
            } else {
                apply_partly(content, change, random);
            }
        }
        return content;
    }
};

struct FaultFileSystem::State {
    using Names = std::map<std::string, std::shared_ptr<Node>>;
    // Of one folder: `from` disappears, `to` appears; each may be empty.
    struct NameChange {
        std::string from;
        std::string to;
        std::shared_ptr<Node> node;

        void apply(Names& names) const {
            if (!from.empty()) {
                names.erase(from);
            }
            if (!to.empty()) {
                names[to] = node;
            }
        }
    };

    mutable std::mutex mutex;
    Names seen;
    Names durable;
    std::map<std::string, std::vector<NameChange>> unsynced;  // by folder
    std::set<std::string> directories{".", "/"};
    std::set<std::string> locks;
    std::uint64_t operations = 0;
    std::uint64_t crash_operation = never;
    bool crashed = false;
    std::uint64_t syncs = 0;
    std::uint64_t failing_sync = never;
    std::uint64_t capacity = never;
    bool read_only = false;
    std::function<void()> sync_hook;

    void require_running() const {
        if (crashed) {
            throw SimulatedCrash();
        }
    }
    // Counts an operation; true when the machine crashes in it. What it began may be there afterwards.
    bool begin(const std::string& path) {
        require_running();
        if (read_only) {
            throw IoError("cannot change '" + path + "': Read-only file system (errno " + std::to_string(EROFS) + ")",
                          EROFS);
        }
        if (operations++ == crash_operation) {
            crashed = true;
        }
        return crashed;
    }
    void begin_whole(const std::string& path) {
        if (begin(path)) {
            throw SimulatedCrash();
        }
    }
    [[nodiscard]] std::shared_ptr<Node> require(const std::string& path) const {
        const auto found = seen.find(path);
        if (found == seen.end()) {
            throw NotFound("cannot open '" + path + "': No such file or directory (errno 2)");
        }
        return found->second;
    }
    void change_names(const std::string& directory, const NameChange& change) {
        change.apply(seen);
        unsynced[directory].push_back(change);
    }
    [[nodiscard]] std::uint64_t used() const {
        std::uint64_t bytes = 0;
        for (const auto& [name, node] : seen) {
            bytes += node->seen.size();
        }
        return bytes;
    }
};

class FaultFileSystem::OpenFile final : public File {
public:
    OpenFile(const std::string& path, std::shared_ptr<State> state, std::shared_ptr<Node> node, bool writable)
        : File(path), state_(std::move(state)), node_(std::move(node)), writable_(writable) {}

    std::uint64_t size() const override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        state_->require_running();
        return node_->seen.size();
    }

    std::size_t read(std::uint64_t offset, std::span<std::byte> out) const override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        state_->require_running();
        const Content& content = node_->seen;
        const std::size_t begin = std::min<std::size_t>(offset, content.size());
        const std::size_t count = std::min(out.size(), content.size() - begin);
        std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(begin), count, out.begin());
        return count;
    }

private:
    [[noreturn]] void fail(const std::string& what, int code) const {
        throw IoError("cannot " + what + " '" + path() + "' (errno " + std::to_string(code) + ")", code);
    }

    // How far the file may reach.
    [[nodiscard]] std::uint64_t room() const {
        const std::uint64_t others = state_->used() - node_->seen.size();
        return state_->capacity > others ? state_->capacity - others : 0;
    }

    void do_write(std::uint64_t offset, Bytes bytes) override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        if (!writable_) {
            fail("write", EBADF);
        }
        const bool crash = state_->begin(path());
        Change change{Change::Kind::write, offset, Content(bytes.begin(), bytes.end())};
        const std::uint64_t limit = room();
        const std::uint64_t end_max = std::max<std::uint64_t>(limit, node_->seen.size());
        const bool full = state_->capacity != never && offset + bytes.size() > end_max;
        if (full) {
            change.bytes.resize(limit > offset ? limit - offset : 0);
        }
        node_->change(std::move(change));
        if (crash) {
            throw SimulatedCrash();
        }
        if (full) {
            fail("write", ENOSPC);
        }
    }

    void do_reserve(std::uint64_t bytes) override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        const bool crash = state_->begin(path());
        if (state_->capacity != never && bytes > room()) {
            fail("reserve", ENOSPC);
        }
        node_->change({Change::Kind::resize, bytes, {}, true});
        if (crash) {
            throw SimulatedCrash();
        }
    }

    void do_truncate(std::uint64_t bytes) override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        const bool crash = state_->begin(path());
        node_->change({Change::Kind::resize, bytes, {}});
        if (crash) {
            throw SimulatedCrash();
        }
    }

    void do_sync() override {
        std::unique_lock<std::mutex> held(state_->mutex);
        state_->begin_whole(path());
        if (state_->syncs++ == state_->failing_sync) {
            node_->lose();
            fail("sync", EIO);
        }
        const std::size_t count = node_->unsynced.size();
        if (const std::function<void()> hook = state_->sync_hook) {
            held.unlock();
            hook();
            held.lock();
        }
        node_->sync(count);
    }

    std::shared_ptr<State> state_;
    std::shared_ptr<Node> node_;
    bool writable_;
};

class FaultFileSystem::Lock final : public FileLock {
public:
    Lock(std::shared_ptr<State> state, std::string path, std::shared_ptr<Node> node)
        : state_(std::move(state)), path_(std::move(path)), node_(std::move(node)) {}
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        state_->locks.erase(path_);
    }
    void write(std::string_view text) override {
        const std::lock_guard<std::mutex> guard(state_->mutex);
        state_->begin_whole(path_);
        const Bytes bytes = std::as_bytes(std::span(text));
        node_->change({Change::Kind::resize, 0, {}});
        node_->change({Change::Kind::write, 0, Content(bytes.begin(), bytes.end())});
    }

private:
    std::shared_ptr<State> state_;
    std::string path_;
    std::shared_ptr<Node> node_;
};

FaultFileSystem::FaultFileSystem() : state_(std::make_shared<State>()) {}
FaultFileSystem::~FaultFileSystem() = default;

std::uint64_t FaultFileSystem::operations() const {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    return state_->operations;
}

void FaultFileSystem::crash_at(std::uint64_t operation) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->crash_operation = operation;
}

void FaultFileSystem::fail_sync_at(std::uint64_t sync) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->failing_sync = sync;
}

std::uint64_t FaultFileSystem::syncs() const {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    return state_->syncs;
}

void FaultFileSystem::set_sync_hook(std::function<void()> hook) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->sync_hook = std::move(hook);
}

void FaultFileSystem::set_capacity(std::uint64_t bytes) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->capacity = bytes;
}

void FaultFileSystem::set_read_only(bool read_only) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->read_only = read_only;
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::after_crash(std::uint64_t seed) const {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    std::mt19937_64 random(seed);
    State::Names names = state_->durable;
    const auto fate = random() % 3;
    for (const auto& [directory, changes] : state_->unsynced) {
        for (const State::NameChange& change : changes) {
            if (fate == 1 || (fate == 2 && chance(random, 50))) {
                change.apply(names);
            }
        }
    }
    auto after = std::make_unique<FaultFileSystem>();
    after->state_->directories = state_->directories;
    std::map<const Node*, std::shared_ptr<Node>> nodes;  // a file may have got two names
    for (const auto& [name, node] : names) {
        auto& copy = nodes[node.get()];
        if (!copy) {
            copy = std::make_shared<Node>();
            copy->seen = node->after_crash(random);
            copy->durable = copy->seen;
        }
        after->state_->seen[name] = copy;
        after->state_->durable[name] = copy;
    }
    return after;
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::after_kill() const {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    auto after = std::make_unique<FaultFileSystem>();
    std::map<const Node*, std::shared_ptr<Node>> nodes;
    const auto copy = [&](const std::shared_ptr<Node>& node) {
        auto& made = nodes[node.get()];
        if (!made) {
            made = std::make_shared<Node>(*node);
        }
        return made;
    };
    State& state = *after->state_;
    state.directories = state_->directories;
    for (const auto& [name, node] : state_->seen) {
        state.seen[name] = copy(node);
    }
    for (const auto& [name, node] : state_->durable) {
        state.durable[name] = copy(node);
    }
    for (const auto& [directory, changes] : state_->unsynced) {
        for (const State::NameChange& change : changes) {
            state.unsynced[directory].push_back({change.from, change.to, change.node ? copy(change.node) : nullptr});
        }
    }
    return after;
}

std::vector<std::byte> FaultFileSystem::content(const std::string& path) const {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    return state_->require(path)->seen;
}

void FaultFileSystem::set_content(const std::string& path, std::vector<std::byte> content) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    auto node = std::make_shared<Node>();
    node->seen = content;
    node->durable = std::move(content);
    state_->seen[path] = node;
    state_->durable[path] = node;
    state_->directories.insert(parent_of(path));
}

std::unique_ptr<File> FaultFileSystem::open(const std::string& path, OpenMode mode) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    if (mode == OpenMode::create) {
        if (state_->seen.contains(path)) {
            throw IoError("cannot open '" + path + "': File exists (errno " + std::to_string(EEXIST) + ")", EEXIST);
        }
        if (!state_->directories.contains(parent_of(path))) {
            throw NotFound("cannot open '" + path + "': No such file or directory (errno 2)");
        }
        const bool crash = state_->begin(path);
        state_->change_names(parent_of(path), {"", path, std::make_shared<Node>()});
        if (crash) {
            throw SimulatedCrash();
        }
    }
    const auto node = state_->require(path);
    if (mode == OpenMode::change && state_->read_only) {
        throw IoError("cannot open '" + path + "': Read-only file system (errno " + std::to_string(EROFS) + ")", EROFS);
    }
    return std::make_unique<OpenFile>(path, state_, node, mode != OpenMode::read);
}

std::shared_ptr<const MappedFile> FaultFileSystem::map(const std::string& path) {
    class Copy final : public MappedFile {
    public:
        explicit Copy(const Content& content) : content_(content.begin(), content.end()) {}
        Bytes bytes() const noexcept override { return content_; }

    private:
        AlignedVector<std::byte> content_;
    };
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    return std::make_shared<Copy>(state_->require(path)->seen);
}

bool FaultFileSystem::exists(const std::string& path) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    return state_->seen.contains(path) || state_->directories.contains(without_trailing_slash(path));
}

std::vector<std::string> FaultFileSystem::list(const std::string& directory) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    const std::string folder = without_trailing_slash(directory);
    if (!state_->directories.contains(folder)) {
        throw NotFound("cannot list '" + directory + "': No such file or directory (errno 2)");
    }
    std::vector<std::string> names;
    for (const auto& [name, node] : state_->seen) {
        if (parent_of(name) == folder) {
            names.push_back(name.substr(name.rfind('/') + 1));
        }
    }
    return names;
}

// Durable at once: losing a whole empty folder is the same as not having begun.
void FaultFileSystem::create_directories(const std::string& directory) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    for (std::string path = without_trailing_slash(directory); !state_->directories.contains(path);
         path = parent_of(path)) {
        state_->begin_whole(path);
        state_->directories.insert(path);
    }
}

void FaultFileSystem::rename(const std::string& from, const std::string& to) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    const auto node = state_->require(from);
    const bool crash = state_->begin(to);
    state_->change_names(parent_of(to), {from, to, node});
    if (crash) {
        throw SimulatedCrash();
    }
}

void FaultFileSystem::remove(const std::string& path) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    state_->require_running();
    static_cast<void>(state_->require(path));
    const bool crash = state_->begin(path);
    state_->change_names(parent_of(path), {path, "", nullptr});
    if (crash) {
        throw SimulatedCrash();
    }
}

void FaultFileSystem::sync_directory(const std::string& directory) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    const std::string folder = without_trailing_slash(directory);
    state_->begin_whole(folder);
    auto& changes = state_->unsynced[folder];
    if (state_->syncs++ == state_->failing_sync) {
        throw IoError("cannot sync the folder '" + directory + "' (errno " + std::to_string(EIO) + ")", EIO);
    }
    for (const State::NameChange& change : changes) {
        change.apply(state_->durable);
    }
    changes.clear();
}

std::unique_ptr<FileLock> FaultFileSystem::try_lock(const std::string& path) {
    const std::lock_guard<std::mutex> guard(state_->mutex);
    if (!state_->seen.contains(path)) {
        const bool crash = state_->begin(path);
        state_->change_names(parent_of(path), {"", path, std::make_shared<Node>()});
        if (crash) {
            throw SimulatedCrash();
        }
    }
    if (state_->read_only) {  // a lock file is opened for writing
        throw IoError("cannot open '" + path + "': Read-only file system (errno " + std::to_string(EROFS) + ")", EROFS);
    }
    if (!state_->locks.insert(path).second) {
        return nullptr;
    }
    return std::make_unique<Lock>(state_, path, state_->require(path));
}

}  // namespace sage::storage::testing
