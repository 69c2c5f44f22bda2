// Durable ingest, reopening and filtered search of a whole collection; times that depend on the disk and on threads, so
// no Google Benchmark: collection_bench FOLDER [documents] [dimension]. Prints a line for each measurement;
// searches are counted by the time of their thread.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "sage/vdb/database.hpp"

namespace {

using sage::vdb::Collection;
using sage::vdb::Database;
using sage::vdb::FilterPlan;
using sage::vdb::Record;
using sage::vdb::SearchHits;
using sage::vdb::SearchRequest;
using Numbers = std::vector<std::int64_t>;

class Clock {
public:
    [[nodiscard]] double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    }

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Of this thread, whoever else is busy on the machine.
class CpuClock {
public:
    [[nodiscard]] double seconds() const { return now() - begin_; }

private:
    static double now() {
        timespec time{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
    }
    double begin_ = now();
};

// Clustered: each vector is a cluster's centre and noise of `intrinsic` dimensions, mixed into all.
class Data {
public:
    Data(std::size_t dimension, std::size_t intrinsic) : dimension_(dimension), intrinsic_(intrinsic) {
        mix_ = normal(intrinsic * dimension);
        centres_ = normal(1000 * intrinsic);
    }
    std::vector<float> rows(std::size_t count) {
        std::vector<float> all(count * dimension_, 0.0F);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t centre = random_() % 1000;
            for (std::size_t j = 0; j < intrinsic_; ++j) {
                const float value = centres_[centre * intrinsic_ + j] + 0.7F * one_(random_);
                for (std::size_t d = 0; d < dimension_; ++d) {
                    all[i * dimension_ + d] += value * mix_[j * dimension_ + d];
                }
            }
        }
        return all;
    }

private:
    std::vector<float> normal(std::size_t count) {
        std::vector<float> values(count);
        std::generate(values.begin(), values.end(), [this] { return one_(random_); });
        return values;
    }
    std::size_t dimension_;
    std::size_t intrinsic_;
    std::mt19937 random_{1};
    std::normal_distribution<float> one_;
    std::vector<float> mix_;
    std::vector<float> centres_;
};

void add(Collection& collection, std::size_t first, std::size_t count, const std::vector<float>& rows,
         std::size_t dimension) {
    Numbers ids(count);
    std::vector<Record> metadata(count);
    for (std::size_t i = 0; i < count; ++i) {
        ids[i] = static_cast<std::int64_t>(first + i);
        metadata[i] = {{"part", static_cast<std::int64_t>((first + i) * 7919 % 1000)}};
    }
    collection.add({.ids = std::span<const std::int64_t>(ids),
                    .vectors = std::span(rows).subspan(first * dimension, count * dimension),
                    .metadata = metadata});
}

void measure_filters(const Collection& collection, const std::vector<float>& queries, std::size_t dimension) {
    const std::size_t count = queries.size() / dimension;
    for (const std::int64_t part : {1, 5, 10, 20, 50, 100, 300, 500, 800, 1000}) {
        for (const FilterPlan plan : {FilterPlan::before, FilterPlan::in_index, FilterPlan::after}) {
            if ((plan == FilterPlan::before && part > 200) || (plan == FilterPlan::after && part < 50)) {
                continue;
            }
            double seconds = 0;
            std::size_t found = 0;
            for (std::size_t i = 0; i < count; ++i) {
                SearchRequest request{.queries = std::span(queries).subspan(i * dimension, dimension)};
                request.filter = sage::vdb::field("part") < sage::vdb::Value(part);
                request.plan = plan;
                const CpuClock clock;
                const SearchHits hits = collection.search(request);
                seconds += clock.seconds();
                request.recall = 1;
                const SearchHits exact = collection.search(request);
                const auto& near = std::get<Numbers>(hits.documents.ids);
                for (const std::int64_t id : std::get<Numbers>(exact.documents.ids)) {
                    found += std::find(near.begin(), near.end(), id) != near.end() ? 1 : 0;
                }
            }
            std::printf("filter %5.1f %% %-8s %8.0f queries/s, recall %.3f\n", static_cast<double>(part) / 10,
                        sage::vdb::filter_plan_name(plan), static_cast<double>(count) / seconds,
                        static_cast<double>(found) / static_cast<double>(count * 10));
        }
    }
}

}  // namespace

int main(int argument_count, char** arguments) {
    if (argument_count < 2) {
        std::fputs("usage: collection_bench FOLDER [documents] [dimension]\n", stderr);
        return 2;
    }
    const std::string folder = std::string(arguments[1]) + "/sage_collection_bench";
    const std::size_t documents = argument_count > 2 ? std::stoul(arguments[2]) : 200'000;
    const std::size_t dimension = argument_count > 3 ? std::stoul(arguments[3]) : 128;
    std::filesystem::remove_all(folder);
    Data data(dimension, 16);
    const std::vector<float> rows = data.rows(documents);
    sage::vdb::DatabaseOptions options;
    options.background = false;
    options.checkpoint_at_close = false;
    sage::vdb::CollectionOptions collection_options;
    collection_options.dimension = dimension;
    collection_options.metric = sage::vdb::Metric::l2;
    for (const std::size_t batch : {std::size_t{1}, std::size_t{256}}) {
        std::filesystem::remove_all(folder);
        Database database = Database::open(folder, options);
        Collection collection = database.create_collection("docs", collection_options);
        const std::size_t count = batch == 1 ? std::min<std::size_t>(documents, 2000) : documents;
        const Clock clock;
        for (std::size_t first = 0; first < count; first += batch) {
            add(collection, first, std::min(batch, count - first), rows, dimension);
        }
        std::printf("durable ingest, calls of %zu: %.0f documents/s\n", batch, static_cast<double>(count) / clock.seconds());
    }
    {
        const Clock clock;
        Database database = Database::open(folder, options);
        std::printf("open from the log: %.3f s, %zu documents\n", clock.seconds(), database.collection("docs").count());
        const Clock checkpoint;
        database.checkpoint();
        std::printf("checkpoint: %.3f s\n", checkpoint.seconds());
    }
    {
        const Clock clock;
        Database database = Database::open(folder, options);
        std::printf("open from a snapshot, nothing indexed: %.3f s\n", clock.seconds());
        Collection collection = database.collection("docs");
        const Clock index;
        collection.compact(2);
        std::printf("index, 2 threads: %.1f s\n", index.seconds());
        database.checkpoint();
    }
    const Clock clock;
    Database database = Database::open(folder, options);
    std::printf("open from a snapshot, all indexed: %.3f s\n", clock.seconds());
    Collection collection = database.collection("docs");
    const std::vector<float> queries = data.rows(200);
    for (const double recall : {0.9, 0.95, 0.99}) {
        std::size_t found = 0;
        double seconds = 0;
        for (std::size_t i = 0; i < 200; ++i) {
            SearchRequest request{.queries = std::span(queries).subspan(i * dimension, dimension), .recall = recall};
            const CpuClock one;
            const SearchHits hits = collection.search(request);
            seconds += one.seconds();
            request.recall = 1;
            const SearchHits exact = collection.search(request);
            const auto& near = std::get<Numbers>(hits.documents.ids);
            for (const std::int64_t id : std::get<Numbers>(exact.documents.ids)) {
                found += std::find(near.begin(), near.end(), id) != near.end() ? 1 : 0;
            }
        }
        std::printf("search for recall %.2f: %.0f queries/s, recall %.3f\n", recall, 200 / seconds,
                    static_cast<double>(found) / 2000);
    }
    measure_filters(collection, queries, dimension);
    std::filesystem::remove_all(folder);
}
