// The exact index in ten lines: three vectors, one question.
#include <sage/vdb/flat_index.hpp>

#include <cstdint>
#include <iostream>
#include <vector>

int main() {
    sage::vdb::FlatIndex index(3, sage::vdb::Metric::cosine);
    index.add(std::vector<std::int64_t>{10, 11, 12}, std::vector<float>{1, 0, 0, 0, 1, 0, 1, 1, 0});

    const sage::vdb::SearchResult found = index.search(std::vector<float>{2, 0, 0}, 2);
    for (std::size_t rank = 0; rank < found.per_query; ++rank) {
        std::cout << found.ids[rank] << " " << found.scores[rank] << "\n";
    }
    const bool as_expected = found.ids == std::vector<std::int64_t>{10, 12};
    return as_expected ? 0 : 1;
}
