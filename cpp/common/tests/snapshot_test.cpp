#include "sage/common/snapshot.hpp"

#include <gtest/gtest.h>

#include <random>

#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

class SnapshotTest : public ::testing::Test {
protected:
    SnapshotIdentity write(const std::map<std::string, std::string>& sections) {
        SnapshotWriter writer(files_, "snap", test_application);
        for (const auto& [name, content] : sections) {
            writer.add_section(name, as_bytes(content));
        }
        return writer.commit();
    }
    Snapshot open() { return {files_, "snap", test_application}; }

    testing::FaultFileSystem files_;
};

TEST_F(SnapshotTest, GivesBackItsSections) {
    std::map<std::string, std::string> sections;
    for (const std::size_t size : {0, 1, 63, 64, 65, 4096, 1048576, 3000001}) {
        sections["of " + std::to_string(size)] = std::string(size, static_cast<char>('a' + size % 26));
    }
    sections[std::string(255, 'n')] = "long name";
    const SnapshotIdentity identity = write(sections);
    const Snapshot snapshot = open();
    snapshot.verify();
    EXPECT_EQ(snapshot.identity(), identity);
    EXPECT_EQ(snapshot.application(), test_application);
    EXPECT_EQ(snapshot.sections().size(), sections.size());
    for (const auto& [name, content] : sections) {
        ASSERT_TRUE(snapshot.has_section(name));
        const Bytes bytes = snapshot.section(name);
        EXPECT_EQ(as_text(bytes), content);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % section_alignment, 0U);
        EXPECT_EQ(snapshot.verified_section(name).size(), content.size());
    }
    EXPECT_FALSE(snapshot.has_section("of"));
    expect_error<NotFound>([&] { static_cast<void>(snapshot.section("of 2")); }, {"'snap' has no section 'of 2'"});
    EXPECT_FALSE(files_.exists("snap.tmp"));
}

TEST_F(SnapshotTest, TakesSectionsInPieces) {
    std::mt19937 random(3);
    std::string expected;
    {
        SnapshotWriter writer(files_, "snap", test_application);
        writer.begin_section("a");
        writer.begin_section("b");
        for (int i = 0; i < 200; ++i) {
            const std::string piece(random() % 40000, static_cast<char>('a' + i % 26));
            writer.write(as_bytes(piece));
            expected += piece;
        }
        writer.commit();
    }
    EXPECT_EQ(as_text(open().verified_section("b")), expected);
    EXPECT_TRUE(open().section("a").empty());
    write({});
    EXPECT_TRUE(open().sections().empty());
}

TEST_F(SnapshotTest, RefusesBadUse) {
    SnapshotWriter writer(files_, "snap", test_application);
    expect_error<InvalidArgument>([&] { writer.write(as_bytes("x")); }, {"begin_section() must come before", "'snap'"});
    writer.add_section("a", {});
    expect_error<InvalidArgument>([&] { writer.begin_section("a"); }, {"different names, got 'a' again"});
    expect_error<InvalidArgument>([&] { writer.begin_section(""); }, {"1 to 255 bytes, got 0"});
    expect_error<InvalidArgument>([&] { writer.begin_section(std::string(256, 'x')); }, {"got 256"});
    writer.commit();
    EXPECT_THROW(writer.begin_section("b"), InvalidArgument);
    EXPECT_THROW(writer.commit(), InvalidArgument);
}

TEST_F(SnapshotTest, AppearsWholeOrNotAtAll) {
    write({{"a", "old"}});
    {
        SnapshotWriter writer(files_, "snap", test_application);
        writer.add_section("a", as_bytes("new"));
        EXPECT_EQ(as_text(open().section("a")), "old");
    }
    EXPECT_FALSE(files_.exists("snap.tmp"));
    EXPECT_EQ(as_text(open().section("a")), "old");
    files_.sync_directory(".");
    const auto base = files_.after_crash(0);
    for (std::uint64_t crash = 0;; ++crash) {
        const auto disk = base->after_kill();
        disk->crash_at(crash);
        bool done = false;
        try {
            SnapshotWriter writer(*disk, "snap", test_application);
            writer.add_section("a", as_bytes("new"));
            writer.commit();
            done = true;
        } catch (const testing::SimulatedCrash&) {
            done = false;
        }
        for (std::uint64_t seed = 0; seed < 30; ++seed) {
            const auto after = disk->after_crash(seed);
            const Snapshot snapshot(*after, "snap", test_application);
            snapshot.verify();
            const std::string found = as_text(snapshot.section("a"));
            ASSERT_TRUE(found == "new" || (found == "old" && !done)) << crash << " " << seed << " " << found;
        }
        if (done) {
            EXPECT_GT(crash, 3U);
            break;
        }
    }
}

TEST_F(SnapshotTest, FindsEveryBitThatTurned) {
    write({{"a", "some content"}, {"b", ""}, {"third", std::string(100, 'x')}});
    const std::vector<std::byte> sound = files_.content("snap");
    for (std::size_t place = 0; place < sound.size(); ++place) {
        for (unsigned bit = 0; bit < 8; ++bit) {
            std::vector<std::byte> damaged = sound;
            damaged[place] ^= static_cast<std::byte>(1U << bit);
            files_.set_content("snap", damaged);
            try {
                open().verify();
                FAIL() << "bit " << bit << " of byte " << place << " was not noticed";
            } catch (const UnsupportedFormat&) {
                EXPECT_LT(place, 8U);
            } catch (const Corruption& error) {
                EXPECT_NE(std::string(error.what()).find("'snap'"), std::string::npos);
            }
        }
    }
    std::vector<std::byte> damaged = sound;
    damaged[64] ^= std::byte{1};
    files_.set_content("snap", damaged);
    expect_error<Corruption>([&] { static_cast<void>(open().verified_section("a")); },
                             {"checksum of section 'a' (12 bytes at offset 64) must be 0x", "it is 0x"});
    EXPECT_TRUE(open().verified_section("b").empty());  // the others are sound
}

TEST_F(SnapshotTest, RefusesEveryOtherLength) {
    write({{"a", "some content"}});
    const std::vector<std::byte> sound = files_.content("snap");
    for (std::size_t size = 0; size < sound.size() + 3; ++size) {
        if (size == sound.size()) {
            continue;
        }
        std::vector<std::byte> cut = sound;
        cut.resize(size);
        files_.set_content("snap", cut);
        EXPECT_THROW(open(), Corruption) << size;
    }
    EXPECT_THROW(Snapshot(files_, "none", test_application), NotFound);
    EXPECT_THROW(Snapshot(files_, "snap", {{'o', 't', 'h', 'r'}, 1}), UnsupportedFormat);
}

TEST_F(SnapshotTest, AFullDiskLeavesTheOldOne) {
    write({{"a", "old"}});
    files_.set_capacity(500);
    EXPECT_THROW(write({{"a", std::string(5000, 'x')}}), IoError);
    EXPECT_FALSE(files_.exists("snap.tmp"));
    EXPECT_EQ(as_text(open().section("a")), "old");
}

TEST(SnapshotOnDisk, IsMapped) {
    const TemporaryDirectory temporary;
    const std::string path = temporary.file("snap");
    {
        SnapshotWriter writer(system_files(), path, test_application);
        writer.add_section("a", as_bytes("first"));
        writer.add_section("vectors", as_bytes(std::string(100000, 'v')));
        writer.commit();
    }
    const Snapshot snapshot(system_files(), path, test_application);
    snapshot.verify();
    EXPECT_EQ(snapshot.section("vectors").size(), 100000U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(snapshot.section("vectors").data()) % section_alignment, 0U);
    EXPECT_EQ(system_files().list(temporary.path()), std::vector<std::string>{"snap"});
}

}  // namespace
}  // namespace sage::storage
