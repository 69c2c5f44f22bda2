// A database whose files are sound but hold what nobody has written: the first byte says which part the rest replaces.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "sage/vdb/database.hpp"
#include "fuzz_target.hpp"

namespace sage::vdb {
namespace {

using storage::Bytes;
using storage::testing::FaultFileSystem;

constexpr storage::Application application{{'v', 'd', 'b', ' '}, 1};

DatabaseOptions options_on(FaultFileSystem& files) {
    DatabaseOptions options;
    options.files = &files;
    options.background = false;
    options.checkpoint_at_close = false;
    return options;
}

CollectionOptions collection_options() {
    CollectionOptions options;
    options.dimension = 2;
    return options;
}

void fill(Database& database) {
    Collection numbers = database.create_collection("numbers", collection_options());
    const std::vector<std::int64_t> ids{5, -1, 7};
    const std::vector<float> rows{1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<std::uint32_t> counts{1, 2, 1};
    const std::vector<Record> metadata{{{"a", std::int64_t{1}}, {"b", Strings{"x", "y"}}}, {}, {{"c", 0.5}, {"d", true}}};
    const std::vector<std::optional<std::string>> texts{"one text", std::nullopt, "another"};
    numbers.add({.ids = std::span<const std::int64_t>(ids), .vectors = rows, .vector_counts = counts, .metadata = metadata, .texts = texts});
    numbers.update({.ids = std::span<const std::int64_t>(ids), .metadata = metadata});
    numbers.remove(std::span<const std::int64_t>(ids).first(1));
    Collection names = database.create_collection("names", collection_options());
    const std::vector<std::string> texts_as_ids{"x", "y"};
    names.add({.ids = std::span<const std::string>(texts_as_ids), .vectors = std::span(rows).first(4)});
    database.rename_collection("names", "other names");
    database.create_collection("gone", collection_options());
    database.drop_collection("gone");
}

struct Parts {
    std::vector<std::vector<std::byte>> records;
    std::vector<std::pair<std::string, std::vector<std::byte>>> sections;
};

std::vector<std::byte> copy(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

const Parts& parts() {
    static const Parts all = [] {
        Parts made;
        FaultFileSystem files;
        {
            Database database = Database::open("db", options_on(files));
            fill(database);
        }
        static_cast<void>(storage::Store::read(
            files, "db", application,
            {{}, [&made](std::uint64_t, Bytes payload) { made.records.push_back(copy(payload)); }}));
        {
            Database database = Database::open("db", options_on(files));
            database.checkpoint();
        }
        static_cast<void>(storage::Store::read(files, "db", application,
                                               {[&made](const std::shared_ptr<const storage::Snapshot>& snapshot) {
                                                    for (const auto& section : snapshot->sections()) {
                                                        made.sections.emplace_back(section.name,
                                                                                   copy(snapshot->section(section.name)));
                                                    }
                                                },
                                                [](std::uint64_t, Bytes) {}}));
        return made;
    }();
    return all;
}

// What can be opened can be read, saved, and opened again.
void open_and_use(FaultFileSystem& files) {
    std::size_t documents = 0;
    try {
        Database database = Database::open("db", options_on(files));
        for (const std::string& name : database.collection_names()) {
            const Collection collection = database.collection(name);
            documents += collection.count();
            const std::vector<float> query(collection.options().dimension, 1.0F);
            const SearchHits hits = collection.search({.queries = query, .k = 3, .include = {true, true, true}});
            const DocumentList all = collection.scroll({.include = {true, true, true}});
            if (hits.scores.size() > 3 || all.size() > collection.count()) {
                std::abort();
            }
        }
        database.checkpoint();
    } catch (const Corruption&) {
        return;
    } catch (const UnsupportedFormat&) {
        return;
    }
    if (Database::verify("db", &files).documents != documents) {
        std::abort();
    }
}

}  // namespace
}  // namespace sage::vdb

sage::fuzz::Inputs sage::fuzz::seeds() {
    Inputs all;
    const auto& parts = vdb::parts();
    const auto add = [&all](std::size_t place, const std::vector<std::byte>& content) {
        std::vector<std::uint8_t> input{static_cast<std::uint8_t>(place)};
        for (const std::byte byte : content) {
            input.push_back(static_cast<std::uint8_t>(byte));
        }
        all.push_back(std::move(input));
    };
    for (std::size_t i = 0; i < parts.records.size(); ++i) {
        add(i, parts.records[i]);
    }
    for (std::size_t i = 0; i < parts.sections.size(); ++i) {
        add(parts.records.size() + i, parts.sections[i].second);
    }
    return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace sage;
    if (size == 0) {
        return 0;
    }
    const auto& parts = vdb::parts();
    const std::size_t place = data[0] % (parts.records.size() + parts.sections.size());
    const auto content = std::as_bytes(std::span(data + 1, size - 1));
    storage::testing::FaultFileSystem files;
    {
        const auto store = storage::Store::open(files, "db", vdb::application, {}, {});
        if (place < parts.records.size()) {
            for (std::size_t i = 0; i < parts.records.size(); ++i) {
                store->log().append(i == place ? content : storage::Bytes(parts.records[i]));
            }
        } else {
            static_cast<void>(store->checkpoint(0, [&](storage::SnapshotWriter& writer) {
                for (std::size_t i = 0; i < parts.sections.size(); ++i) {
                    const auto& [name, bytes] = parts.sections[i];
                    writer.add_section(name, i + parts.records.size() == place ? content : storage::Bytes(bytes));
                }
            }));
        }
        store->close();
    }
    vdb::open_and_use(files);
    return 0;
}
