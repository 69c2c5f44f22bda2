#include "sage/common/log.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "log_format.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

constexpr LogIdentity identity{test_application, 77};
const std::string first_segment = "log/log-00000000000000000001.sagelog";
using Records = std::map<std::uint64_t, std::string>;

class LogTest : public ::testing::Test {
protected:
    LogTest() { files_.create_directories("log"); }

    std::unique_ptr<Log> create(const LogOptions& options = {}) {
        return Log::create(files_, "log", identity, options);
    }

    std::unique_ptr<Log> open(FileSystem& files, Records* records = nullptr, std::uint64_t from = 1,
                              const LogOptions& options = {}) {
        return Log::open(
            files, "log", identity, options, from,
            [&](std::uint64_t sequence, Bytes payload) {
                if (records != nullptr) {
                    records->emplace(sequence, as_text(payload));
                }
            },
            &recovery_);
    }

    Records read(FileSystem& files, std::uint64_t from = 1) {
        Records records;
        recovery_ = LogReader(files, "log", identity, from).replay([&](std::uint64_t sequence, Bytes payload) {
            records.emplace(sequence, as_text(payload));
        });
        return records;
    }

    testing::FaultFileSystem files_;
    LogRecovery recovery_;
};

TEST_F(LogTest, GivesBackWhatWasAppended) {
    Records expected;
    {
        const auto log = create();
        EXPECT_EQ(log->last_sequence(), 0U);
        for (std::size_t size : {0, 1, 7, 8, 9, 100, 5000, 70000, 3000000}) {
            const std::string text(size, static_cast<char>('a' + size % 26));
            expected[log->commit(as_bytes(text))] = text;
        }
        EXPECT_EQ(log->last_sequence(), 9U);
        EXPECT_EQ(log->durable_sequence(), 9U);
        EXPECT_EQ(read(files_), expected);  // while it is open
    }
    EXPECT_EQ(read(files_), expected);
    EXPECT_EQ(recovery_.next_sequence, 10U);
    EXPECT_EQ(recovery_.records, 9U);
    EXPECT_EQ(recovery_.dropped_bytes, 0U);
    Records again;
    const auto log = open(files_, &again, 4);
    EXPECT_EQ(again, Records(expected.find(4), expected.end()));
    EXPECT_EQ(log->append(as_bytes("ten")), 10U);
}

TEST_F(LogTest, OpeningAndClosingWithoutARecordChangesNothing) {
    create()->commit(as_bytes("x"));
    const std::uint64_t operations = files_.operations();
    for (int turn = 0; turn < 3; ++turn) {
        open(files_)->close();
    }
    EXPECT_EQ(files_.operations(), operations);
}

TEST_F(LogTest, GoesOnInNewSegments) {
    LogOptions options;
    options.segment_bytes_max = 300;
    Records expected;
    for (int turn = 0; turn < 5; ++turn) {
        const auto log = turn == 0 ? create(options) : open(files_, nullptr, 1, options);
        for (int i = 0; i < 7; ++i) {
            const std::string text = "record " + std::to_string(turn) + "/" + std::to_string(i);
            expected[log->append(as_bytes(text))] = text;
        }
        const std::string large(1000, 'l');  // larger than a segment
        expected[log->append(as_bytes(large))] = large;
        log->sync();
        EXPECT_GE(log->segment_count(), 3U);
    }
    EXPECT_EQ(read(files_), expected);
    EXPECT_EQ(recovery_.records, 40U);
}

TEST_F(LogTest, RemovesSegmentsThatAreNotNeeded) {
    const auto log = create();
    for (int i = 0; i < 3; ++i) {
        log->append(as_bytes("a"));
        log->append(as_bytes("b"));
        log->roll();
        log->roll();  // nothing to end
    }
    EXPECT_EQ(log->segment_count(), 4U);
    log->remove_before(4);  // record 4 shares a segment with 3
    EXPECT_EQ(log->segment_count(), 3U);
    EXPECT_EQ(read(files_, 3).size(), 4U);
    expect_error<Corruption>([&] { read(files_, 2); }, {"must hold record 2", "begins with record 3"});
    log->remove_before(100);
    EXPECT_EQ(log->segment_count(), 1U);
    EXPECT_TRUE(read(files_, 7).empty());
    expect_error<Corruption>([&] { read(files_, 9); }, {"must reach record 8", "ends before record 7"});
    EXPECT_EQ(log->commit(as_bytes("c")), 7U);
}

TEST_F(LogTest, IgnoresHolesBeforeWhatIsNeeded) {
    const auto log = create();
    for (int i = 0; i < 4; ++i) {
        log->append(as_bytes("a"));
        log->roll();
    }
    // Removing old segments is not one step: after a crash, any of them may be there.
    files_.remove("log/log-00000000000000000002.sagelog");
    EXPECT_EQ(read(files_, 3).size(), 2U);
    expect_error<Corruption>([&] { read(files_, 1); }, {"must go on with record 2", "begins with record 3", "missing"});
    log->close();
    open(files_, nullptr, 3)->remove_before(3);
    EXPECT_FALSE(files_.exists(first_segment));
}

TEST_F(LogTest, SyncsAsThePolicySays) {
    LogOptions options;
    options.policy = SyncPolicy::none;
    auto log = create(options);
    const std::uint64_t syncs = files_.syncs();
    log->commit(as_bytes("a"));
    EXPECT_EQ(files_.syncs(), syncs);
    EXPECT_EQ(log->durable_sequence(), 0U);
    log->sync(1);
    EXPECT_EQ(log->durable_sequence(), 1U);
    log.reset();
    options.policy = SyncPolicy::each;
    log = open(files_, nullptr, 1, options);
    log->append(as_bytes("b"));
    EXPECT_EQ(log->durable_sequence(), 2U);
    log->append(as_bytes("c"));
    EXPECT_EQ(log->sync_count(), 2U);
    log.reset();
    options.policy = SyncPolicy::group;
    log = open(files_, nullptr, 1, options);
    log->append(as_bytes("d"));
    log->append(as_bytes("e"));
    EXPECT_EQ(log->durable_sequence(), 3U);
    log->settle(5);
    log->settle(4);
    EXPECT_EQ(log->sync_count(), 1U);
}

TEST_F(LogTest, RefusesBadArguments) {
    LogOptions options;
    options.record_bytes_max = 10;
    const auto log = create(options);
    expect_error<InvalidArgument>([&] { log->append(as_bytes("12345678901")); }, {"at most 10 bytes, got 11"});
    expect_error<InvalidArgument>([&] { log->sync(1); }, {"got 1, the last one is 0"});
    expect_error<InvalidArgument>([&] { create(); }, {"there is a log in 'log' already"});
    log->close();
    log->close();
    expect_error<InvalidArgument>([&] { log->append(as_bytes("x")); }, {"is closed"});
    options.record_bytes_max = log_record_bytes_limit + 1;
    EXPECT_THROW(open(files_, nullptr, 1, options), InvalidArgument);
    options = {};
    options.group_delay_max = std::chrono::microseconds(-1);
    EXPECT_THROW(open(files_, nullptr, 1, options), InvalidArgument);
    files_.create_directories("other");
    EXPECT_THROW(LogReader(files_, "other", identity, 1), NotFound);
    EXPECT_THROW(static_cast<void>(Log::create(files_, "other", identity, {}, 0)), InvalidArgument);
}

TEST_F(LogTest, PassesOnWhatTheVisitorThrows) {
    create()->commit(as_bytes("x"));
    const auto visit = [](std::uint64_t, Bytes) { throw std::out_of_range("mine"); };
    EXPECT_THROW(LogReader(files_, "log", identity, 1).replay(visit), std::out_of_range);
    EXPECT_THROW(static_cast<void>(Log::open(files_, "log", identity, {}, 1, visit)), std::out_of_range);
    EXPECT_EQ(read(files_).size(), 1U);
}

// --- Damage ----------------------------------------------------------------------------------------------------------

TEST_F(LogTest, FindsEveryBitThatTurnedAfterAClose) {
    {
        const auto log = create();
        log->commit(as_bytes("first"));
        log->commit(as_bytes("the second record"));
        log->commit(as_bytes(""));
    }
    const std::vector<std::byte> sound = files_.content(first_segment);
    // The last 32 bytes are the note of the close: without it, all records are there, and that is the truth.
    const std::size_t note = sound.size() - log_format::record_header_bytes;
    for (std::size_t place = 0; place < sound.size(); ++place) {
        for (unsigned bit = 0; bit < 8; ++bit) {
            std::vector<std::byte> damaged = sound;
            damaged[place] ^= static_cast<std::byte>(1U << bit);
            files_.set_content(first_segment, damaged);
            if (place >= note) {
                EXPECT_EQ(read(files_).size(), 3U) << place;
                continue;
            }
            try {
                static_cast<void>(read(files_));
                FAIL() << "bit " << bit << " of byte " << place << " was not noticed";
            } catch (const UnsupportedFormat&) {
                EXPECT_LT(place, 8U);
            } catch (const Corruption& error) {
                EXPECT_NE(std::string(error.what()).find(first_segment), std::string::npos);
            }
        }
    }
}

TEST_F(LogTest, NamesFileOffsetAndExpectationOfDamage) {
    {
        const auto log = create();
        log->commit(as_bytes("first"));
        log->commit(as_bytes("second"));
        log->commit(as_bytes("third"));
    }
    const std::vector<std::byte> sound = files_.content(first_segment);
    const auto damage = [&](std::size_t place) {
        std::vector<std::byte> damaged = sound;
        damaged[place] ^= std::byte{4};
        files_.set_content(first_segment, damaged);
    };
    damage(64 + 40 + 32);  // payload of the second
    expect_error<Corruption>([&] { read(files_); },
                             {"damaged log '" + first_segment + "' at offset 104",
                              "expected a payload of record 2 with checksum 0x", "found 0x",
                              "the record at offset 144 proves that everything up to offset 144 was durable"});
    expect_error<Corruption>([&] { open(files_); }, {"at offset 104"});
    damage(64 + 40 + 8);  // its length
    expect_error<Corruption>([&] { read(files_); }, {"at offset 104", "expected a record's header with checksum 0x"});
}

TEST_F(LogTest, CutsOffAnUnfinishedEndAtEveryByte) {
    LogOptions options;
    options.policy = SyncPolicy::none;
    const auto log = create(options);
    const std::vector<std::string> texts{"first", "the second record", "", "fourth"};
    std::vector<std::uint64_t> ends{64};
    for (const std::string& text : texts) {
        log->append(as_bytes(text));
        ends.push_back(ends.back() + log_format::frame_bytes(text.size()));
    }
    const std::vector<std::byte> whole = files_.content(first_segment);  // ends in reserved zeros
    ASSERT_GT(whole.size(), ends.back());
    for (std::size_t size = 64; size <= ends.back(); ++size) {
        for (const bool zeros : {false, true}) {
            std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            cut.resize(zeros ? whole.size() : size);
            // Bytes that are missing may be zeros anyway.
            const std::size_t same = static_cast<std::size_t>(
                std::mismatch(cut.begin(), cut.end(), whole.begin()).first - cut.begin());
            const auto there =
                static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), same) - ends.begin()) - 1;
            testing::FaultFileSystem files;
            files.create_directories("log");
            files.set_content(first_segment, cut);
            Records records;
            const auto reopened = open(files, &records);
            ASSERT_EQ(records.size(), there) << size;
            if (!zeros) {
                EXPECT_EQ(recovery_.dropped_bytes != 0, size != ends[there]) << size;
                const std::string where = "at offset " + std::to_string(ends[there]);
                EXPECT_EQ(recovery_.dropped_why.find(where) != std::string::npos, size != ends[there]);
            }
            EXPECT_EQ(reopened->commit(as_bytes("next")), there + 1);
            EXPECT_EQ(read(files).size(), there + 1);
        }
    }
}

TEST_F(LogTest, RefusesForeignNewerAndShortFiles) {
    create()->commit(as_bytes("x"));
    const std::vector<std::byte> sound = files_.content(first_segment);
    const auto put_text = [&](std::string_view text) {
        const Bytes bytes = as_bytes(text);
        files_.set_content(first_segment, {bytes.begin(), bytes.end()});
    };
    put_text("%PDF-1.7 and so on, for longer than the sixty-four bytes that a header of ours has");
    expect_error<UnsupportedFormat>([&] { read(files_); },
                                    {first_segment, "is no log segment of SAGE", "it begins with '%PDF-1.7'"});
    put_text("hi");
    expect_error<UnsupportedFormat>([&] { read(files_); }, {"begins with 'hi'"});
    put_text("");
    expect_error<Corruption>([&] { read(files_); }, {"is cut short", "the file has 0"});
    put_text("SAGELOG\nxxx");
    expect_error<Corruption>([&] { read(files_); }, {"is cut short", "the file has 11"});

    FileHeader header{test_application, {}};
    std::memcpy(header.body.data(), sound.data() + 24, header.body.size());
    const auto with_header = [&](FileHeaderBytes start) {
        std::vector<std::byte> changed = sound;
        std::copy(start.begin(), start.end(), changed.begin());
        files_.set_content(first_segment, changed);
    };
    FileKind newer = log_format::segment_kind;
    newer.version = 9;
    with_header(encode_file_header(newer, header));
    expect_error<UnsupportedFormat>([&] { read(files_); }, {"newer SAGE", "version 9, this one reads up to version 1"});
    with_header(encode_file_header(log_format::segment_kind, {{{'m', 'e', 'm', 0}, 3}, header.body}));
    expect_error<UnsupportedFormat>([&] { read(files_); }, {"holds data of 'mem?', expected 'test'"});
    with_header(encode_file_header(log_format::segment_kind, {{test_application.tag, 4}, header.body}));
    expect_error<UnsupportedFormat>([&] { read(files_); }, {"its data have version 4, this one reads up to version 3"});
    with_header(encode_file_header(log_format::segment_kind, {{test_application.tag, 2}, header.body}));
    EXPECT_EQ(read(files_).size(), 1U);  // an older one of the application is its own affair
    with_header(log_format::encode_segment_header({test_application, 78}, 1));
    expect_error<Corruption>([&] { read(files_); }, {"belongs to another store", "must be 77, it is 78"});
    with_header(log_format::encode_segment_header(identity, 5));
    expect_error<Corruption>([&] { read(files_); }, {"was renamed", "begins with record 5"});
}

// --- Failures --------------------------------------------------------------------------------------------------------

TEST_F(LogTest, AFullDiskLosesNothingAndCanBeTriedAgain) {
    const auto log = create();
    log->commit(as_bytes("one"));
    const std::string large(100000, 'x');  // more than what was reserved ahead
    files_.set_capacity(80000);
    expect_error<IoError>([&] { log->append(as_bytes(large)); }, {first_segment});
    EXPECT_EQ(log->last_sequence(), 1U);
    EXPECT_EQ(log->commit(as_bytes("two")), 2U);  // there is room for a small one
    files_.set_capacity(1000000);
    EXPECT_EQ(log->commit(as_bytes(large)), 3U);
    EXPECT_EQ(read(files_).size(), 3U);
    files_.set_capacity(10);
    log->close();  // without its note
    EXPECT_EQ(read(*files_.after_crash(1)).size(), 3U);
}

TEST_F(LogTest, AFullDiskAtANewSegmentCanBeTriedAgain) {
    LogOptions options;
    options.segment_bytes_max = 200;
    const auto log = create(options);
    log->commit(as_bytes(std::string(50, 'a')));
    files_.set_capacity(170);
    for (int turn = 0; turn < 3; ++turn) {
        EXPECT_THROW(log->append(as_bytes(std::string(50, 'b'))), IoError);
    }
    files_.set_capacity(100000);
    EXPECT_EQ(log->commit(as_bytes(std::string(50, 'b'))), 2U);
    EXPECT_EQ(read(files_).size(), 2U);
    EXPECT_EQ(log->segment_count(), 2U);
}

TEST_F(LogTest, AFailedSyncIsFinal) {
    auto log = create();
    log->commit(as_bytes("one"));
    files_.fail_sync_at(files_.syncs());
    EXPECT_THROW(log->commit(as_bytes("two")), IoError);
    for (int turn = 0; turn < 2; ++turn) {
        expect_error<IoError>([&] { log->commit(as_bytes("three")); },
                              {"'log' cannot be used any more", "the reason: "});
        EXPECT_THROW(log->sync(2), IoError);
    }
    log->sync(1);  // that one is durable
    // The next process finds the record in the system's memory. What it builds upon must be on the disk.
    log.reset();
    Records records;
    log = open(files_, &records);
    const std::size_t found = records.size();
    log->commit(as_bytes("three"));
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        EXPECT_EQ(read(*files_.after_crash(seed)).size(), found + 1);
    }
}

TEST_F(LogTest, AKillDuringANewSegmentLosesNothingLater) {
    for (std::uint64_t crash = 0, crashed = 1; crashed != 0; ++crash) {
        testing::FaultFileSystem files;
        files.create_directories("log");
        const auto log = Log::create(files, "log", identity, {});
        log->commit(as_bytes("one"));
        files.crash_at(files.operations() + crash);
        crashed = 0;
        try {
            log->roll();
        } catch (const testing::SimulatedCrash&) {
            crashed = 1;
        }
        const auto disk = files.after_kill();
        const auto again = open(*disk);
        again->commit(as_bytes("two"));
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            ASSERT_EQ(read(*disk->after_crash(seed)).size(), 2U) << crash << " " << seed;
        }
    }
}

TEST_F(LogTest, AReadOnlyDiskCanBeReadOnly) {
    create()->commit(as_bytes("one"));
    files_.set_read_only(true);
    EXPECT_EQ(read(files_).size(), 1U);
    EXPECT_THROW(open(files_), IoError);
}

}  // namespace
}  // namespace sage::storage
