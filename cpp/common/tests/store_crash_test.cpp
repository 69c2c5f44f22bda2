// Random operations on a store, a crash at every single operation on its files, and a look at what is left.
//
// The reference is a list of the records that were appended. What is found after a crash must be what the first n of
// them make, where n is at least the number of those that were acknowledged.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <sstream>

#include "sage/common/store.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

using testing::FaultFileSystem;
using testing::SimulatedCrash;

using Content = std::map<int, std::string>;

// The store under test: numbers and texts. A record is "key=text" or "key" for a removal.
class Dictionary {
public:
    Dictionary(FileSystem& files, const LogOptions& options) {
        store_ = Store::open(files, "store", test_application, options,
                             {[this](const std::shared_ptr<const Snapshot>& snapshot) { load(*snapshot); },
                              [this](std::uint64_t sequence, Bytes payload) {
                                  if (sequence != last_ + 1) {
                                      throw std::logic_error("records are visited out of order");
                                  }
                                  last_ = sequence;
                                  apply(as_text(payload));
                              }});
    }

    std::uint64_t append(const std::string& record) {
        last_ = store_->log().append(as_bytes(record));
        apply(record);
        return last_;
    }
    void sync() { store_->log().sync(last_); }
    void checkpoint() {
        static_cast<void>(store_->checkpoint(last_, [this](SnapshotWriter& writer) {
            writer.begin_section("last");
            writer.write(as_bytes(std::to_string(last_)));
            for (const auto& [key, text] : content_) {
                writer.add_section(std::to_string(key), as_bytes(text));
            }
        }));
    }
    void close() { store_->close(); }
    [[nodiscard]] const Content& content() const { return content_; }
    [[nodiscard]] std::uint64_t last() const { return last_; }

private:
    void load(const Snapshot& snapshot) {
        snapshot.verify();
        for (const SectionInfo& section : snapshot.sections()) {
            const std::string text = as_text(snapshot.section(section.name));
            if (section.name == "last") {
                last_ = std::stoull(text);
            } else {
                content_[std::stoi(section.name)] = text;
            }
        }
    }
    void apply(const std::string& record) {
        const std::size_t equals = record.find('=');
        if (equals == std::string::npos) {
            content_.erase(std::stoi(record));
        } else {
            content_[std::stoi(record.substr(0, equals))] = record.substr(equals + 1);
        }
    }

    Content content_;
    std::uint64_t last_ = 0;
    std::unique_ptr<Store> store_;
};

// What was done, by other code than the store's.
struct Reference {
    std::vector<std::string> records;
    std::size_t acknowledged = 0;

    [[nodiscard]] Content after(std::size_t count) const {
        Content content;
        for (std::size_t i = 0; i < count; ++i) {
            std::istringstream record(records[i]);
            int key = 0;
            record >> key;
            content.erase(key);
            if (record.get() == '=') {
                content[key] = std::string(std::istreambuf_iterator<char>(record), {});
            }
        }
        return content;
    }
};

LogOptions small_segments(SyncPolicy policy) {
    LogOptions options;
    options.policy = policy;
    options.segment_bytes_max = 600;
    return options;
}

std::string random_record(std::mt19937_64& random) {
    const int key = static_cast<int>(random() % 10);
    if (random() % 5 == 0) {
        return std::to_string(key);
    }
    const std::size_t size = random() % 10 == 0 ? random() % 1500 : random() % 60;
    return std::to_string(key) + "=" + std::string(size, static_cast<char>('a' + random() % 26));
}

// Does `steps` random things; stops with whatever the files throw. The reference is exact in any case: a record is
// entered before it is appended, because a crash in the middle may have written it.
void work(FileSystem& files, std::mt19937_64& random, int steps, const LogOptions& options, Reference& reference) {
    auto dictionary = std::make_unique<Dictionary>(files, options);
    reference.acknowledged = reference.records.size();
    for (int step = 0; step < steps; ++step) {
        const auto what = random() % 20;
        if (what < 14) {
            reference.records.push_back(random_record(random));
            const std::uint64_t sequence = dictionary->append(reference.records.back());
            ASSERT_EQ(sequence, reference.records.size());
            if (options.policy == SyncPolicy::each) {
                reference.acknowledged = reference.records.size();
            }
        } else if (what < 17) {
            dictionary->sync();
            reference.acknowledged = reference.records.size();
        } else if (what < 19) {
            dictionary->checkpoint();
            reference.acknowledged = reference.records.size();
        } else {
            dictionary->close();
            reference.acknowledged = reference.records.size();
            dictionary.reset();
            dictionary = std::make_unique<Dictionary>(files, options);
            ASSERT_EQ(dictionary->content(), reference.after(reference.records.size()));
        }
    }
    dictionary->close();
    reference.acknowledged = reference.records.size();
}

// Opens what a crash left and holds it against the reference, which then goes on from there.
void expect_consistent(FileSystem& files, const LogOptions& options, Reference& reference, const std::string& where) {
    const Dictionary found(files, options);
    ASSERT_GE(found.last(), reference.acknowledged) << where << ": acknowledged records are gone";
    ASSERT_LE(found.last(), reference.records.size()) << where << ": records that nobody wrote";
    ASSERT_EQ(found.content(), reference.after(found.last())) << where;
    reference.records.resize(found.last());
    reference.acknowledged = found.last();
}

std::string place(std::uint64_t script, std::uint64_t crash, std::uint64_t seed) {
    return "script " + std::to_string(script) + ", crash at operation " + std::to_string(crash) + ", disk " +
           std::to_string(seed);
}

class StoreCrash : public ::testing::TestWithParam<std::tuple<SyncPolicy, std::uint64_t>> {
protected:
    const LogOptions options_ = small_segments(std::get<0>(GetParam()));
    const std::uint64_t script_ = std::get<1>(GetParam());

    // The script up to a crash; false when it came to its end.
    bool crashes(FaultFileSystem& files, Reference& reference) const {
        std::mt19937_64 random(script_);
        try {
            work(files, random, 40, options_, reference);
        } catch (const SimulatedCrash&) {
            return true;
        }
        return false;
    }
};

// More of them for a night: SAGE_TEST_CRASH_SCRIPTS=1000.
std::uint64_t script_count() {
    const char* wanted = std::getenv("SAGE_TEST_CRASH_SCRIPTS");
    return wanted == nullptr ? 4 : std::stoull(wanted);
}

INSTANTIATE_TEST_SUITE_P(Scripts, StoreCrash,
                         ::testing::Combine(::testing::Values(SyncPolicy::group, SyncPolicy::each, SyncPolicy::none),
                                            ::testing::Range<std::uint64_t>(0, script_count())));

TEST_P(StoreCrash, AtEveryOperationKeepsWhatWasAcknowledged) {
    std::uint64_t crash = 0;
    for (bool crashed = true; crashed; ++crash) {
        FaultFileSystem files;
        files.crash_at(crash);
        Reference reference;
        crashed = crashes(files, reference);
        ASSERT_FALSE(HasFatalFailure());
        for (std::uint64_t seed = 0; seed < 12; ++seed) {
            Reference mine = reference;
            const auto disk = files.after_crash(seed);
            expect_consistent(*disk, options_, mine, place(script_, crash, seed));
            ASSERT_FALSE(HasFatalFailure());
            // It goes on as if nothing had been, and opening was durable: another crash takes nothing back.
            std::mt19937_64 random(seed);
            work(*disk, random, 5, options_, mine);
            expect_consistent(*disk->after_crash(seed + 1), options_, mine, place(script_, crash, seed) + " and on");
            ASSERT_FALSE(HasFatalFailure());
        }
    }
    EXPECT_GT(crash, 60U);
}

TEST_P(StoreCrash, DuringRecoveryKeepsWhatWasAcknowledged) {
    std::mt19937_64 choose(script_);
    for (int turn = 0; turn < 12; ++turn) {
        FaultFileSystem files;
        const std::uint64_t crash = choose() % 120;
        files.crash_at(crash);
        Reference reference;
        static_cast<void>(crashes(files, reference));
        bool crashed = true;
        for (std::uint64_t second = 0; crashed; ++second) {
            const auto disk = files.after_crash(static_cast<std::uint64_t>(turn));
            disk->crash_at(second);
            crashed = false;
            Reference mine = reference;
            try {
                expect_consistent(*disk, options_, mine, place(script_, crash, second));
            } catch (const SimulatedCrash&) {
                crashed = true;
            }
            ASSERT_FALSE(HasFatalFailure());
            for (std::uint64_t seed = 0; seed < 6; ++seed) {
                Reference theirs = mine;
                expect_consistent(*disk->after_crash(seed), options_, theirs, place(script_, crash, seed) + " twice");
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST_P(StoreCrash, AKilledProcessLosesNothingAndAFailedMachineAfterItNeither) {
    std::uint64_t crash = 0;
    for (bool crashed = true; crashed; crash += 3) {
        FaultFileSystem files;
        files.crash_at(crash);
        Reference reference;
        crashed = crashes(files, reference);
        const auto disk = files.after_kill();
        expect_consistent(*disk, options_, reference, place(script_, crash, 0) + ", killed");
        ASSERT_FALSE(HasFatalFailure());
        for (std::uint64_t seed = 0; seed < 6; ++seed) {
            Reference mine = reference;
            expect_consistent(*disk->after_crash(seed), options_, mine, place(script_, crash, seed) + ", killed first");
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST_P(StoreCrash, EveryFailedSyncIsSurvived) {
    for (std::uint64_t failing = 0;; ++failing) {
        FaultFileSystem files;
        files.fail_sync_at(failing);
        Reference reference;
        bool failed = false;
        std::mt19937_64 random(script_);
        try {
            work(files, random, 40, options_, reference);
        } catch (const IoError&) {
            failed = true;
        }
        ASSERT_FALSE(HasFatalFailure());
        if (!failed) {
            EXPECT_GT(failing, 5U);
            break;
        }
        for (std::uint64_t seed = 0; seed < 6; ++seed) {
            Reference mine = reference;
            expect_consistent(*files.after_crash(seed), options_, mine, place(script_, failing, seed) + ", failed");
            ASSERT_FALSE(HasFatalFailure());
        }
        // The same machine goes on: what it believes to be on the disk may not be there.
        const auto disk = files.after_kill();
        expect_consistent(*disk, options_, reference, place(script_, failing, 0) + ", opened again");
        ASSERT_FALSE(HasFatalFailure());
        work(*disk, random, 5, options_, reference);
        for (std::uint64_t seed = 0; seed < 6; ++seed) {
            Reference mine = reference;
            expect_consistent(*disk->after_crash(seed), options_, mine, place(script_, failing, seed) + ", crashed");
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

// The disk is full again and again, in the middle of whatever is going on; space comes back, the work goes on.
TEST_P(StoreCrash, AFullDiskIsSurvived) {
    FaultFileSystem files;
    std::mt19937_64 random(script_ + 100);
    Reference reference;
    int refused = 0;
    {
        Dictionary dictionary(files, options_);
        for (int step = 0; step < 600; ++step) {
            files.set_capacity(random() % 3 == 0 ? 600 + random() % 4000 : 1000000);
            const std::string record = random_record(random);
            try {
                const auto what = random() % 10;
                if (what < 8) {
                    ASSERT_EQ(dictionary.append(record), reference.records.size() + 1);
                    reference.records.push_back(record);
                } else if (what < 9) {
                    dictionary.sync();
                } else {
                    dictionary.checkpoint();
                }
            } catch (const IoError& error) {
                ASSERT_EQ(error.code(), ENOSPC) << error.what();
                ++refused;
            }
            ASSERT_EQ(dictionary.content(), reference.after(reference.records.size()));
        }
        files.set_capacity(1000000);
        dictionary.sync();
        reference.acknowledged = reference.records.size();
    }
    EXPECT_GT(refused, 20);
    expect_consistent(*files.after_crash(1), options_, reference, "full disk");
}

}  // namespace
}  // namespace sage::storage
