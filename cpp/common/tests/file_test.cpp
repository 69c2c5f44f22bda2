// What every FileSystem promises, on the real one and on the one that the crash tests use.
#include "sage/common/file.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

class FileSystemTest : public ::testing::TestWithParam<std::string> {
protected:
    FileSystemTest() : files_(GetParam() == "system" ? system_files() : fault_) {
        root_ = GetParam() == "system" ? temporary_.path() : std::string("root");
        files_.create_directories(root_);
    }
    [[nodiscard]] std::string path(std::string_view name) const { return join_path(root_, name); }
    std::string content(std::string_view name) { return as_text(read_file(files_, path(name), 1000)); }

    TemporaryDirectory temporary_;
    testing::FaultFileSystem fault_;
    FileSystem& files_;
    std::string root_;
};

INSTANTIATE_TEST_SUITE_P(All, FileSystemTest, ::testing::Values("system", "fault"),
                         [](const auto& parameter) { return parameter.param; });

TEST_P(FileSystemTest, WritesReadsGrowsAndCuts) {
    const auto file = files_.open(path("a"), OpenMode::create);
    EXPECT_EQ(file->path(), path("a"));
    file->write(0, as_bytes("hello"));
    file->write(7, as_bytes("world"));
    EXPECT_EQ(file->size(), 12U);
    EXPECT_EQ(content("a"), std::string("hello\0\0world", 12));
    file->write(1, as_bytes("ipp"));
    file->truncate(6);
    EXPECT_EQ(content("a"), std::string("hippo\0", 6));
    file->reserve(9);
    EXPECT_GE(file->size(), 6U);
    EXPECT_EQ(content("a").substr(0, 6), std::string("hippo\0", 6));
    EXPECT_EQ(content("a").find_first_not_of('\0', 6), std::string::npos);
    file->sync();
    std::vector<std::byte> out(100);
    EXPECT_EQ(file->read(1, std::span(out).first(3)), 3U);
    EXPECT_EQ(as_text(Bytes(out).first(3)), "ipp");
    EXPECT_EQ(file->read(1000, out), 0U);
}

TEST_P(FileSystemTest, OpensAsAsked) {
    EXPECT_THROW(static_cast<void>(files_.open(path("a"), OpenMode::read)), NotFound);
    EXPECT_THROW(static_cast<void>(files_.open(path("a"), OpenMode::change)), NotFound);
    EXPECT_THROW(static_cast<void>(files_.map(path("a"))), NotFound);
    EXPECT_THROW(static_cast<void>(files_.open(path("no/a"), OpenMode::create)), NotFound);
    files_.open(path("a"), OpenMode::create)->write(0, as_bytes("x"));
    expect_error<IoError>([&] { static_cast<void>(files_.open(path("a"), OpenMode::create)); }, {path("a"), "exists"});
    EXPECT_THROW(files_.open(path("a"), OpenMode::read)->write(0, as_bytes("y")), IoError);
    files_.open(path("a"), OpenMode::change)->write(0, as_bytes("z"));
    EXPECT_EQ(content("a"), "z");
}

TEST_P(FileSystemTest, ListsRenamesAndRemoves) {
    files_.create_directories(path("deep/er"));
    files_.create_directories(path("deep/er"));
    EXPECT_TRUE(files_.exists(path("deep/er")));
    EXPECT_TRUE(files_.list(path("deep/er")).empty());
    static_cast<void>(files_.open(path("deep/er/b"), OpenMode::create));
    files_.open(path("deep/er/a"), OpenMode::create)->write(0, as_bytes("new"));
    EXPECT_EQ(files_.list(path("deep/er/")), (std::vector<std::string>{"a", "b"}));
    files_.rename(path("deep/er/a"), path("deep/er/b"));
    EXPECT_EQ(files_.list(path("deep/er")), std::vector<std::string>{"b"});
    EXPECT_EQ(content("deep/er/b"), "new");
    files_.sync_directory(path("deep/er"));
    files_.remove(path("deep/er/b"));
    EXPECT_FALSE(files_.exists(path("deep/er/b")));
    EXPECT_THROW(files_.remove(path("deep/er/b")), NotFound);
    EXPECT_THROW(files_.rename(path("deep/er/b"), path("c")), NotFound);
    EXPECT_THROW(static_cast<void>(files_.list(path("nowhere"))), NotFound);
}

TEST_P(FileSystemTest, MapsWholeFilesOnCacheLines) {
    files_.open(path("a"), OpenMode::create)->write(0, as_bytes("mapped"));
    static_cast<void>(files_.open(path("empty"), OpenMode::create));
    const auto map = files_.map(path("a"));
    EXPECT_EQ(as_text(map->bytes()), "mapped");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(map->bytes().data()) % 64, 0U);
    EXPECT_TRUE(files_.map(path("empty"))->bytes().empty());
    files_.remove(path("a"));
    EXPECT_EQ(as_text(map->bytes()), "mapped");
}

TEST_P(FileSystemTest, GivesALockToOneAtATime) {
    auto lock = files_.try_lock(path("lock"));
    ASSERT_NE(lock, nullptr);
    lock->write("a longer text");
    lock->write("12\n");
    EXPECT_EQ(content("lock"), "12\n");
    EXPECT_EQ(files_.try_lock(path("lock")), nullptr);
    EXPECT_NE(files_.try_lock(path("other")), nullptr);
    lock.reset();
    EXPECT_NE(files_.try_lock(path("lock")), nullptr);
}

TEST_P(FileSystemTest, ReplacesAFileInOneStep) {
    replace_file(files_, path("a"), as_bytes("one"));
    files_.open(path("a.tmp"), OpenMode::create)->write(0, as_bytes("left over and longer"));
    replace_file(files_, path("a"), as_bytes("two"));
    EXPECT_EQ(content("a"), "two");
    EXPECT_FALSE(files_.exists(path("a.tmp")));
    expect_error<Corruption>([&] { static_cast<void>(read_file(files_, path("a"), 2)); },
                             {path("a"), "at most 2 bytes, it has 3"});
}

// The real errors of a full disk and of a file that may not grow.
TEST(SystemFiles, ReportWhatTheSystemRefuses) {
    if (system_files().exists("/dev/full")) {
        const auto full = system_files().open("/dev/full", OpenMode::change);
        try {
            full->write(0, as_bytes("x"));
            FAIL() << "/dev/full took a byte";
        } catch (const IoError& error) {
            EXPECT_EQ(error.code(), ENOSPC);
            EXPECT_NE(std::string(error.what()).find("'/dev/full': No space left on device"), std::string::npos);
        }
    }
}

TEST(SystemFiles, AreReadableForTheirOwnerAlone) {
    const TemporaryDirectory temporary;
    static_cast<void>(system_files().open(temporary.file("a"), OpenMode::create));
    EXPECT_EQ(std::filesystem::status(temporary.file("a")).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

// --- The failures themselves -----------------------------------------------------------------------------------------

TEST(File, IsPoisonedByAFailedSync) {
    testing::FaultFileSystem files;
    const auto file = files.open("a", OpenMode::create);
    file->write(0, as_bytes("one"));
    files.fail_sync_at(0);
    EXPECT_THROW(file->sync(), IoError);
    for (const auto& use : std::vector<std::function<void()>>{[&] { file->sync(); },
                                                              [&] { file->write(0, as_bytes("x")); },
                                                              [&] { file->truncate(0); }, [&] { file->reserve(9); }}) {
        expect_error<IoError>(use, {"'a'", "earlier sync of it failed"});
    }
}

TEST(FaultFileSystem, LosesWhatAFailedSyncShouldHaveMadeDurable) {
    testing::FaultFileSystem files;
    const auto file = files.open("a", OpenMode::create);
    files.sync_directory(".");
    file->write(0, as_bytes("one"));
    files.fail_sync_at(1);
    EXPECT_THROW(file->sync(), IoError);
    EXPECT_EQ(as_text(files.content("a")), "one");
    files.open("a", OpenMode::change)->sync();  // says that all is well
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        EXPECT_EQ(as_text(files.after_crash(seed)->content("a")), "");
    }
}

TEST(FaultFileSystem, KeepsSyncedBytesAndTearsTheOthers) {
    testing::FaultFileSystem files;
    const auto file = files.open("a", OpenMode::create);
    files.sync_directory(".");
    file->write(0, as_bytes(std::string(1000, 's')));
    file->sync();
    file->write(1000, as_bytes(std::string(3000, 'u')));
    int nothing = 0;
    int everything = 0;
    int holes = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const std::string found = as_text(files.after_crash(seed)->content("a"));
        ASSERT_EQ(found.substr(0, 1000), std::string(1000, 's'));
        nothing += found.size() == 1000 ? 1 : 0;
        everything += found == std::string(1000, 's') + std::string(3000, 'u') ? 1 : 0;
        // Later bytes are there, earlier ones are not.
        const std::size_t zero = found.find('\0');
        holes += zero != std::string::npos && found.find('u', zero) != std::string::npos ? 1 : 0;
    }
    EXPECT_GT(nothing, 10);
    EXPECT_GT(everything, 10);
    EXPECT_GT(holes, 10);
    EXPECT_EQ(files.after_kill()->content("a").size(), 4000U);
}

TEST(FaultFileSystem, LosesNamesOfFoldersThatWereNotSynced) {
    testing::FaultFileSystem files;
    files.open("a", OpenMode::create)->sync();
    files.sync_directory(".");
    files.rename("a", "b");
    files.open("c", OpenMode::create)->sync();
    int renamed = 0;
    int created = 0;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        const auto after = files.after_crash(seed);
        ASSERT_NE(after->exists("a"), after->exists("b"));
        renamed += after->exists("b") ? 1 : 0;
        created += after->exists("c") ? 1 : 0;
    }
    EXPECT_GT(renamed, 10);
    EXPECT_LT(renamed, 90);
    EXPECT_GT(created, 10);
    EXPECT_LT(created, 90);
}

TEST(FaultFileSystem, CrashesInTheOperationThatWasNamed) {
    testing::FaultFileSystem files;
    files.crash_at(1);
    const auto file = files.open("a", OpenMode::create);
    EXPECT_THROW(file->write(0, as_bytes("x")), testing::SimulatedCrash);
    EXPECT_THROW(static_cast<void>(files.exists("a")), testing::SimulatedCrash);
    EXPECT_THROW(static_cast<void>(file->size()), testing::SimulatedCrash);
}

TEST(FaultFileSystem, RunsFullAndReadOnly) {
    testing::FaultFileSystem files;
    const auto file = files.open("a", OpenMode::create);
    files.set_capacity(4);
    EXPECT_THROW(file->write(0, as_bytes("123456")), IoError);
    EXPECT_EQ(as_text(files.content("a")), "1234");
    file->write(0, as_bytes("abcd"));
    files.set_read_only(true);
    EXPECT_THROW(file->write(0, as_bytes("x")), IoError);
    EXPECT_THROW(files.remove("a"), IoError);
}

}  // namespace
}  // namespace sage::storage
