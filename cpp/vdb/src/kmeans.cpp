#include "kmeans.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "sage/common/distance.hpp"
#include "sage/common/panel.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t iterations = 8;
constexpr std::size_t sample_per_centre = 40;
// Vectors that pass over all centres together.
constexpr std::size_t vectors_at_once = 240;

}  // namespace

void nearest_centres(std::span<const float> vectors, std::size_t dimension, std::span<const float> centres,
                     std::size_t threads, std::uint32_t* nearest, float* distances) {
    constexpr std::size_t rows = distance::panel_rows;
    const std::size_t count = vectors.size() / dimension;
    const std::size_t centre_count = centres.size() / dimension;
    const std::size_t panels = (centre_count + rows - 1) / rows;
    const auto& kernels = distance::panel_kernels();
    AlignedVector<float> packed(panels * rows * dimension);
    // Places without a centre are too far from everything.
    std::vector<float> squares(panels * rows, std::numeric_limits<float>::infinity());
    for (std::size_t panel = 0; panel < panels; ++panel) {
        const float* pointers[rows];
        const std::size_t here = std::min(rows, centre_count - panel * rows);
        for (std::size_t i = 0; i < here; ++i) {
            pointers[i] = centres.data() + (panel * rows + i) * dimension;
            squares[panel * rows + i] = distance::kernels().inner_product(pointers[i], pointers[i], dimension);
        }
        kernels.pack(pointers, nullptr, here, dimension, packed.data() + panel * rows * dimension);
    }
    share_work((count + vectors_at_once - 1) / vectors_at_once, threads, 1, [&](std::size_t part) {
        const std::size_t first = part * vectors_at_once;
        const std::size_t here = std::min(vectors_at_once, count - first);
        std::vector<float> best(here, std::numeric_limits<float>::infinity());
        AlignedVector<float> products(here * rows);
        float costs[rows];
        std::fill_n(nearest + first, here, 0);
        for (std::size_t panel = 0; panel < panels; ++panel) {
            kernels.products(packed.data() + panel * rows * dimension, dimension, vectors.data() + first * dimension,
                             here, products.data());
            for (std::size_t i = 0; i < here; ++i) {
                std::uint64_t mask = kernels.select(products.data() + i * rows, squares.data() + panel * rows, -2.0F,
                                                    best[i], costs);
                for (; mask != 0; mask &= mask - 1) {
                    const auto at = static_cast<std::size_t>(std::countr_zero(mask));
                    if (costs[at] < best[i]) {
                        best[i] = costs[at];
                        nearest[first + i] = static_cast<std::uint32_t>(panel * rows + at);
                    }
                }
            }
        }
        for (std::size_t i = 0; distances != nullptr && i < here; ++i) {
            const float* vector = vectors.data() + (first + i) * dimension;
            distances[first + i] = best[i] + distance::kernels().inner_product(vector, vector, dimension);
        }
    });
}

AlignedVector<float> find_centres(std::span<const float> vectors, std::size_t dimension, std::size_t count,
                                  std::size_t threads) {
    const std::size_t all = vectors.size() / dimension;
    const std::size_t sampled = std::min(all, count * sample_per_centre);
    std::mt19937_64 random(all * 31 + count);
    // Every vector is in the sample with the same probability (selection sampling).
    AlignedVector<float> sample;
    sample.reserve(sampled * dimension);
    for (std::size_t row = 0, left = sampled; row < all && left > 0; ++row) {
        if (random() % (all - row) < left) {
            const auto from = vectors.subspan(row * dimension, dimension);
            sample.insert(sample.end(), from.begin(), from.end());
            --left;
        }
    }
    std::vector<std::size_t> order(sampled);
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = 0; i < std::min(count, sampled); ++i) {
        std::swap(order[i], order[i + random() % (sampled - i)]);
    }
    AlignedVector<float> centres(count * dimension);
    for (std::size_t centre = 0; centre < count; ++centre) {
        std::copy_n(sample.data() + order[centre % sampled] * dimension, dimension,
                    centres.data() + centre * dimension);
    }
    std::vector<std::uint32_t> nearest(sampled);
    for (std::size_t iteration = 0; iteration < iterations; ++iteration) {
        nearest_centres(sample, dimension, centres, threads, nearest.data());
        std::vector<std::uint32_t> members(count, 0);
        std::fill(centres.begin(), centres.end(), 0.0F);
        for (std::size_t row = 0; row < sampled; ++row) {
            ++members[nearest[row]];
            float* centre = centres.data() + nearest[row] * dimension;
            const float* vector = sample.data() + row * dimension;
            for (std::size_t i = 0; i < dimension; ++i) {
                centre[i] += vector[i];
            }
        }
        for (std::size_t centre = 0; centre < count; ++centre) {
            float* values = centres.data() + centre * dimension;
            if (members[centre] != 0) {
                const float scale = 1.0F / static_cast<float>(members[centre]);
                std::transform(values, values + dimension, values, [scale](float x) { return x * scale; });
            } else {
                // A member of the largest cluster, which the next iteration then splits.
                const auto largest = static_cast<std::uint32_t>(
                    std::max_element(members.begin(), members.end()) - members.begin());
                const auto row = static_cast<std::size_t>(
                    std::find(nearest.begin(), nearest.end(), largest) - nearest.begin());
                std::copy_n(sample.data() + row * dimension, dimension, values);
                members[largest] -= members[largest] / 2;
            }
        }
    }
    return centres;
}

}  // namespace sage::vdb
