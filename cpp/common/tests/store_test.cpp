#include "sage/common/store.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

// The smallest thing that can be stored: a text that grows.
struct Text {
    std::string content;
    std::uint64_t sequence = 0;

    StoreVisitor visitor() {
        return {[this](const std::shared_ptr<const Snapshot>& snapshot) {
                    content = as_text(snapshot->verified_section("text"));
                    sequence = content.size();
                },
                [this](std::uint64_t number, Bytes payload) {
                    EXPECT_EQ(number, sequence + 1);
                    sequence = number;
                    content += as_text(payload);
                }};
    }
};

class StoreTest : public ::testing::Test {
protected:
    std::unique_ptr<Store> open(Text& text) { return open(files_, "dir/store", text); }
    static std::unique_ptr<Store> open(FileSystem& files, const std::string& directory, Text& text) {
        return Store::open(files, directory, test_application, {}, text.visitor());
    }
    static void append(Store& store, Text& text, char letter) {
        text.sequence = store.log().commit(as_bytes(std::string(1, letter)));
        text.content += letter;
    }
    static CheckpointResult checkpoint(Store& store, const Text& text) {
        return store.checkpoint(text.sequence,
                                [&](SnapshotWriter& writer) { writer.add_section("text", as_bytes(text.content)); });
    }
    std::string read() {
        Text text;
        Store::read(files_, "dir/store", test_application, text.visitor());
        return text.content;
    }

    testing::FaultFileSystem files_;
};

TEST_F(StoreTest, IsNotMadeInAFolderThatHoldsSomethingElse) {
    files_.create_directories("dir/store");
    const auto put = [this](const char* name) {
        files_.open(join_path("dir/store", name), OpenMode::create)->write(0, as_bytes("x"));
    };
    put(".hidden");
    put("letters.txt");
    Text text;
    expect_error<Corruption>([&] { static_cast<void>(open(text)); },
                             {"'dir/store' is no store and not empty, it holds 'letters.txt'"});
    EXPECT_EQ(files_.list("dir/store"), (std::vector<std::string>{".hidden", "letters.txt"}));
    files_.remove("dir/store/letters.txt");
    append(*open(text), text, 'a');
    EXPECT_EQ(read(), "a");
    put("letters.txt");  // what is put beside a store later is left alone
    Text again;
    static_cast<void>(open(again));
    EXPECT_EQ(again.content, "a");
}

TEST_F(StoreTest, RemembersThroughCheckpoints) {
    std::string expected;
    for (int turn = 0; turn < 5; ++turn) {
        Text text;
        const auto store = open(text);
        EXPECT_EQ(text.content, expected);
        for (int i = 0; i < 4; ++i) {
            append(*store, text, static_cast<char>('a' + 4 * turn + i));
            if (i == 1 && turn != 2) {
                const CheckpointResult result = checkpoint(*store, text);
                EXPECT_EQ(result.left_over, "");
                EXPECT_GT(result.snapshot_bytes, 64U);
            }
        }
        expected = text.content;
        EXPECT_EQ(read(), expected);
        EXPECT_EQ(store->log().segment_count(), 1U);
    }
    EXPECT_EQ(expected, "abcdefghijklmnopqrst");
    EXPECT_EQ(files_.list("dir/store"),
              (std::vector<std::string>{"LOCK", "MANIFEST", "log-00000000000000000019.sagelog",
                                        "snapshot-00000000000000000004.sagesnap"}));
    EXPECT_EQ(Store::verify(files_, "dir/store", test_application).next_sequence, 21U);
}

TEST_F(StoreTest, CoversWhatTheCheckpointSaysAndNoMore) {
    Text text;
    const auto store = open(text);
    append(*store, text, 'a');
    const Text early = text;
    append(*store, text, 'b');
    checkpoint(*store, early);
    EXPECT_EQ(store->manifest().covered, 1U);
    EXPECT_EQ(read(), "ab");
    expect_error<InvalidArgument>([&] { checkpoint(*store, {"", 0}); }, {"records from 1 to 2, got 0"});
    expect_error<InvalidArgument>([&] { checkpoint(*store, {"abc", 3}); }, {"got 3"});
}

TEST_F(StoreTest, AFailedCheckpointChangesNothing) {
    Text text;
    const auto store = open(text);
    append(*store, text, 'a');
    checkpoint(*store, text);
    append(*store, text, 'b');
    EXPECT_THROW(store->checkpoint(2, [](SnapshotWriter&) { throw std::out_of_range("mine"); }), std::out_of_range);
    EXPECT_EQ(read(), "ab");
    files_.set_capacity(2000);
    const auto large = [](SnapshotWriter& writer) { writer.add_section("x", std::vector<std::byte>(9000)); };
    EXPECT_THROW(store->checkpoint(2, large), IoError);
    EXPECT_EQ(read(), "ab");
    files_.set_capacity(1000000);
    append(*store, text, 'c');
    checkpoint(*store, text);
    EXPECT_EQ(read(), "abc");
    EXPECT_EQ(files_.list("dir/store").size(), 4U);
}

TEST_F(StoreTest, MissingFilesAreDamage) {
    Text text;
    auto store = open(text);
    append(*store, text, 'a');
    checkpoint(*store, text);
    append(*store, text, 'b');
    store.reset();
    for (const std::string& name : files_.list("dir/store")) {
        if (name == "LOCK") {
            continue;
        }
        const auto disk = files_.after_kill();
        disk->remove("dir/store/" + name);
        const auto try_open = [&] {
            Text found;
            static_cast<void>(open(*disk, "dir/store", found));
        };
        expect_error<Corruption>(try_open, {"'dir/store' is damaged", name == "MANIFEST" ? "no manifest" : "missing"});
        if (name != "MANIFEST") {
            EXPECT_THROW(Store::verify(*disk, "dir/store", test_application), Corruption) << name;
        }
    }
    files_.remove("dir/store/LOCK");
    EXPECT_EQ(read(), "ab");
    expect_error<NotFound>([&] { Store::read(files_, "dir", test_application, text.visitor()); },
                           {"there is no store in 'dir'"});
}

TEST_F(StoreTest, MixedFilesAreDamage) {
    Text text;
    auto store = open(text);
    append(*store, text, 'a');
    checkpoint(*store, text);
    Text other;
    auto second = open(files_, "dir/other", other);
    append(*second, other, 'z');
    checkpoint(*second, other);
    store.reset();
    second.reset();
    const auto mix = [&](const std::string& name) {
        auto disk = files_.after_kill();
        disk->set_content("dir/store/" + name, files_.content("dir/other/" + name));
        return disk;
    };
    const auto open_mixed = [&](const std::string& name) {
        const auto disk = mix(name);
        Text found;
        static_cast<void>(open(*disk, "dir/store", found));
    };
    expect_error<Corruption>([&] { open_mixed("snapshot-00000000000000000001.sagesnap"); },
                             {"not the snapshot that the manifest names"});
    expect_error<Corruption>([&] { open_mixed("log-00000000000000000002.sagelog"); }, {"belongs to another store"});
    expect_error<Corruption>([&] { open_mixed("MANIFEST"); }, {"dir/store"});
}

TEST_F(StoreTest, FindsEveryBitThatTurnedInTheManifest) {
    Text text;
    auto store = open(text);
    append(*store, text, 'a');
    checkpoint(*store, text);
    store.reset();
    const std::vector<std::byte> sound = files_.content("dir/store/MANIFEST");
    ASSERT_EQ(sound.size(), 64U);
    for (std::size_t place = 0; place < sound.size(); ++place) {
        std::vector<std::byte> damaged = sound;
        damaged[place] ^= std::byte{16};
        files_.set_content("dir/store/MANIFEST", damaged);
        EXPECT_THROW(read(), Error) << place;
        EXPECT_THROW(open(text), Error) << place;
    }
}

// --- Who may open it -------------------------------------------------------------------------------------------------

TEST_F(StoreTest, ASecondWriterIsRefusedReadersAreNot) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    Text text;
    auto store = open(system_files(), directory, text);
    append(*store, text, 'a');
    Text second;
    expect_error<StoreLocked>([&] { static_cast<void>(open(system_files(), directory, second)); },
                              {"the store '" + directory + "' is open for writing in this process (" +
                                   std::to_string(getpid()) + ")",
                               "lock file '" + directory + "/LOCK'", "read-only"});
    Store::read(system_files(), directory, test_application, second.visitor());
    EXPECT_EQ(second.content, "a");
    store->close();
    store->close();
    Text third;
    store = open(system_files(), directory, third);
    EXPECT_EQ(third.content, "a");
}

// What the child does must not be seen by GoogleTest: its exit code says what happened.
int in_child(const std::function<int()>& work) {
    const pid_t child = fork();
    if (child == 0) {
        int code = 99;
        try {
            code = work();
        } catch (...) {  // any error is a wrong answer
        }
        _exit(code);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
}

bool is_refused(const std::function<void()>& use, const std::string& part) {
    try {
        use();
    } catch (const StoreLocked& error) {
        return std::string(error.what()).find(part) != std::string::npos;
    }
    return false;
}

TEST_F(StoreTest, AnotherProcessIsToldWhoHasIt) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    Text text;
    const auto store = open(system_files(), directory, text);
    const std::string me = "is open for writing in process " + std::to_string(getpid());
    EXPECT_EQ(in_child([&] {
                  Text found;
                  return is_refused([&] { static_cast<void>(open(system_files(), directory, found)); }, me) ? 0 : 1;
              }),
              0);
}

TEST_F(StoreTest, AForkedChildIsRefusedAndDoesNotKeepTheLock) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    Text text;
    auto store = open(system_files(), directory, text);
    append(*store, text, 'a');
    Log& log = store->log();
    const std::string part =
        "was opened by process " + std::to_string(getpid()) + " and cannot be used in its forked child";
    EXPECT_EQ(in_child([&] {
                  bool refused = is_refused([&] { static_cast<void>(store->log()); }, part);
                  refused = refused && is_refused([&] { log.append(as_bytes("x")); }, part);
                  refused = refused && is_refused([&] { log.sync(1); }, part);
                  refused = refused && is_refused([&] { checkpoint(*store, text); }, part);
                  store.reset();  // must touch nothing
                  return refused ? 0 : 1;
              }),
              0);
    append(*store, text, 'b');
    // A child that lives on does not keep the store closed to others.
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        close(ends[1]);
        _exit(::read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    store.reset();
    Text again;
    EXPECT_NO_THROW(store = open(system_files(), directory, again));
    EXPECT_EQ(again.content, "ab");
    close(ends[1]);
    close(ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST_F(StoreTest, AReadOnlyDiskCanBeRead) {
    Text text;
    auto store = open(text);
    append(*store, text, 'a');
    store.reset();
    files_.set_read_only(true);
    EXPECT_EQ(read(), "a");
    Text found;
    try {
        store = open(found);
        FAIL() << "opened for writing on a read-only disk";
    } catch (const IoError& error) {
        EXPECT_EQ(error.code(), EROFS);
        EXPECT_NE(std::string(error.what()).find("opened read-only, the store needs no lock"), std::string::npos);
    }
}

TEST_F(StoreTest, ReadersSeeOneMomentWhileCheckpointsGoOn) {
    const TemporaryDirectory temporary;
    const std::string directory = temporary.file("store");
    Text text;
    const auto store = open(system_files(), directory, text);
    std::atomic<bool> stop = false;
    std::jthread writer([&] {
        for (int i = 0; !stop; ++i) {
            append(*store, text, static_cast<char>('a' + i % 26));
            if (i % 3 == 0) {
                EXPECT_EQ(checkpoint(*store, text).left_over, "");
            }
        }
    });
    std::size_t seen = 0;
    for (int turn = 0; turn < 100; ++turn) {
        Text found;
        Store::read(system_files(), directory, test_application, found.visitor());
        ASSERT_GE(found.content.size(), seen);
        seen = found.content.size();
        for (std::size_t i = 0; i < seen; ++i) {
            ASSERT_EQ(found.content[i], static_cast<char>('a' + i % 26));
        }
    }
    stop = true;
}

TEST_F(StoreTest, AppendsGoOnDuringACheckpoint) {
    Text text;
    const auto store = open(text);
    append(*store, text, 'a');
    const Text early = text;
    store->checkpoint(early.sequence, [&](SnapshotWriter& writer) {
        append(*store, text, 'b');
        writer.add_section("text", as_bytes(early.content));
        append(*store, text, 'c');
    });
    EXPECT_EQ(read(), "abc");
    append(*store, text, 'd');
    EXPECT_EQ(read(), "abcd");
}

}  // namespace
}  // namespace sage::storage
