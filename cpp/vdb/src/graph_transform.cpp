#include "graph_transform.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

namespace sage::vdb {
namespace {

// What is learned does not get better with more.
constexpr std::size_t sample_max = 16384;
// The projection has to keep that share of the variance, and to save at least a third of the coordinates.
constexpr double energy_wanted = 0.985;
constexpr std::size_t projected_min = 64;
constexpr int iterations = 6;

float dot(const float* a, const float* b, std::size_t n) { return distance::kernels().inner_product(a, b, n); }

// Calls work(i) for 0 <= i < count, spread over `threads`.
template <class Work>
void parallel(std::size_t count, std::size_t threads, Work work) {
    std::vector<std::jthread> helpers;
    for (std::size_t thread = 1; thread < threads; ++thread) {
        helpers.emplace_back([=, &work] {
            for (std::size_t i = thread; i < count; i += threads) {
                work(i);
            }
        });
    }
    for (std::size_t i = 0; i < count; i += threads) {
        work(i);
    }
}

void widen(const Transform& transform, Metric metric, const float* vector, float* wide) {
    std::copy_n(vector, transform.dimension, wide);
    if (metric == Metric::inner_product) {
        const float left = transform.longest * transform.longest - dot(vector, vector, transform.dimension);
        wide[transform.dimension] = left > 0.0F ? std::sqrt(left) : 0.0F;
    }
    for (std::size_t i = 0; i < transform.wide_dimension; ++i) {
        wide[i] -= transform.mean[i];
    }
}

// Makes the rows orthonormal, one after the other, twice each: once is not enough in float.
void orthonormalise(std::vector<float>& rows, std::size_t count, std::size_t n) {
    std::vector<float> shares(count);
    for (std::size_t row = 0; row < count; ++row) {
        float* vector = rows.data() + row * n;
        for (int turn = 0; turn < 2; ++turn) {
            if (row > 0) {
                distance::kernels().inner_product_rows(vector, rows.data(), row, n, shares.data());
            }
            for (std::size_t other = 0; other < row; ++other) {
                const float* basis = rows.data() + other * n;
                const float share = shares[other];
                for (std::size_t i = 0; i < n; ++i) {
                    vector[i] -= share * basis[i];
                }
            }
        }
        const float length = std::sqrt(dot(vector, vector, n));
        const float scale = length > 0.0F ? 1.0F / length : 0.0F;
        std::transform(vector, vector + n, vector, [scale](float x) { return x * scale; });
    }
}

std::vector<float> random_rows(std::size_t count, std::size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> rows(count * n);
    std::generate(rows.begin(), rows.end(), [&] { return normal(random); });
    orthonormalise(rows, count, n);
    return rows;
}

// The covariance of centred rows, times their number.
std::vector<float> scatter_of(std::span<const float> rows, std::size_t n, std::size_t threads) {
    const std::size_t count = rows.size() / n;
    std::vector<float> columns(rows.size());
    parallel(n, threads, [&](std::size_t column) {
        for (std::size_t row = 0; row < count; ++row) {
            columns[column * count + row] = rows[row * n + column];
        }
    });
    std::vector<float> scatter(n * n);
    constexpr std::size_t block = 32;  // columns that stay in the cache while the others pass
    const std::size_t blocks = (n + block - 1) / block;
    parallel(blocks, threads, [&](std::size_t at) {
        const std::size_t first = at * block;
        const std::size_t last = std::min(n, first + block);
        for (std::size_t other = first; other < n; ++other) {
            std::array<float, block> products;
            distance::kernels().inner_product_rows(columns.data() + other * count, columns.data() + first * count,
                                                   last - first, count, products.data());
            for (std::size_t i = first; i < last; ++i) {
                scatter[i * n + other] = products[i - first];
            }
        }
    });
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            scatter[i * n + j] = scatter[j * n + i];
        }
    }
    return scatter;
}

// The principal directions, by orthogonal iteration, as many as are needed for the energy that is wanted, and in a
// random rotation of their space: so all coordinates have about the same range, and one step suits all. Empty when
// that does not pay.
std::vector<float> learn_basis(std::span<const float> rows, std::size_t n, std::size_t wanted, std::size_t threads,
                               float& energy) {
    const std::size_t count = rows.size() / n;
    const std::size_t most = wanted != 0 ? wanted : n / 3 * 2 / 64 * 64;
    if (most < projected_min || most >= n || count < 2 * most) {
        return {};
    }
    const std::vector<float> scatter = scatter_of(rows, n, threads);
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
        total += static_cast<double>(scatter[i * n + i]);
    }
    // No more than the half of the search's room is worth a try unless it was asked for.
    const std::size_t tried = wanted != 0 ? wanted : std::min<std::size_t>(most, 512);
    std::vector<float> basis = random_rows(tried, n, 7);
    std::vector<float> image(basis.size());
    std::vector<double> variances(tried);
    for (int turn = 0; turn < iterations; ++turn) {
        parallel(tried, threads, [&](std::size_t row) {
            distance::kernels().inner_product_rows(basis.data() + row * n, scatter.data(), n, n,
                                                   image.data() + row * n);
            variances[row] = static_cast<double>(dot(basis.data() + row * n, image.data() + row * n, n));
        });
        if (turn + 1 < iterations) {
            basis.swap(image);
            orthonormalise(basis, tried, n);
        }
    }
    double kept = 0.0;
    std::size_t chosen = 0;
    while (chosen < tried && (wanted != 0 || kept < energy_wanted * total)) {
        for (std::size_t i = 0; i < 64 && chosen < tried; ++i, ++chosen) {
            kept += variances[chosen];
        }
    }
    if (wanted == 0 && kept < energy_wanted * total) {
        return {};
    }
    energy = total > 0.0 ? static_cast<float>(std::min(1.0, kept / total)) : 1.0F;
    const std::vector<float> rotation = random_rows(chosen, chosen, 11);
    std::vector<float> rotated(chosen * n);
    parallel(chosen, threads, [&](std::size_t row) {
        float* to = rotated.data() + row * n;
        for (std::size_t other = 0; other < chosen; ++other) {
            const float share = rotation[row * chosen + other];
            const float* from = basis.data() + other * n;
            for (std::size_t i = 0; i < n; ++i) {
                to[i] += share * from[i];
            }
        }
    });
    return rotated;
}

void project(const Transform& transform, const float* wide, float* coordinates) {
    if (transform.projects()) {
        distance::kernels().inner_product_rows(wide, transform.basis.data(), transform.code_dimension,
                                               transform.wide_dimension, coordinates);
    } else {
        std::copy_n(wide, transform.wide_dimension, coordinates);
    }
}

void prepare(const Transform& transform, TransformBuffers& buffers) {
    buffers.wide.resize(transform.wide_dimension);
    buffers.coordinates.resize(std::max(transform.code_dimension, transform.wide_dimension));
    buffers.bytes.resize(transform.wide_dimension);
    buffers.products.resize(transform.code_dimension);
}

// The largest magnitude but for a share of 1/10000: what lies beyond is cut off.
float step_of(std::vector<float> magnitudes) {
    if (magnitudes.empty()) {
        return 1.0F;
    }
    const std::size_t rank = magnitudes.size() - 1 - magnitudes.size() / 10000;
    const auto at = magnitudes.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(magnitudes.begin(), at, magnitudes.end());
    return *at > 0.0F ? *at / 127.0F : 1.0F;
}

// Rounds to bytes in a step of its own; returns the step.
float quantise(const float* values, std::size_t count, std::int8_t* bytes) {
    float largest = 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
        largest = std::max(largest, std::fabs(values[i]));
    }
    // Values that small are zeros in a step of theirs: 127 / largest must be finite.
    constexpr float largest_min = 127.0F * std::numeric_limits<float>::min();
    const float inverse = largest >= largest_min ? 127.0F / largest : 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
        // To the nearest: the cast cuts off, and 0.5 with the value's sign makes it round.
        const float scaled = values[i] * inverse;
        bytes[i] = static_cast<std::int8_t>(static_cast<int>(scaled + std::copysign(0.5F, scaled)));
    }
    return largest / 127.0F;
}

}  // namespace

void Transform::finish() {
    stride = (code_dimension + 63) / 64 * 64;
    if (!projects()) {
        return;
    }
    basis_bytes.resize(code_dimension * wide_dimension);
    basis_rows.resize(code_dimension);
    basis_steps.resize(code_dimension);
    std::vector<std::int8_t> bytes(wide_dimension);
    for (std::size_t row = 0; row < code_dimension; ++row) {
        std::uint8_t* to = basis_bytes.data() + row * wide_dimension;
        basis_steps[row] = quantise(basis.data() + row * wide_dimension, wide_dimension, bytes.data());
        std::transform(bytes.begin(), bytes.end(), to,
                       [](std::int8_t x) { return static_cast<std::uint8_t>(x + 128); });
        basis_rows[row] = to;
    }
}

Transform train(std::span<const float> vectors, std::size_t dimension, Metric metric, std::size_t code_dimension,
                std::size_t threads) {
    Transform transform;
    transform.dimension = dimension;
    transform.wide_dimension = dimension + (metric == Metric::inner_product ? 1 : 0);
    const std::size_t n = transform.wide_dimension;
    const std::size_t count = vectors.size() / dimension;
    const std::size_t taken = std::min(count, sample_max);
    if (metric == Metric::inner_product) {
        for (std::size_t row = 0; row < count; ++row) {
            const float* vector = vectors.data() + row * dimension;
            transform.longest = std::max(transform.longest, std::sqrt(dot(vector, vector, dimension)));
        }
        transform.longest *= 1.05F;  // room for those to come
    }
    transform.mean.assign(n, 0.0F);
    std::vector<float> sample(taken * n);
    std::vector<double> sums(n);
    for (std::size_t i = 0; i < taken; ++i) {
        float* wide = sample.data() + i * n;
        widen(transform, metric, vectors.data() + (i * count / taken) * dimension, wide);
        for (std::size_t j = 0; j < n; ++j) {
            sums[j] += static_cast<double>(wide[j]);
        }
    }
    for (std::size_t j = 0; j < n; ++j) {
        transform.mean[j] = taken == 0 ? 0.0F : static_cast<float>(sums[j] / static_cast<double>(taken));
    }
    for (std::size_t i = 0; i < taken * n; ++i) {
        sample[i] -= transform.mean[i % n];
    }
    transform.basis = learn_basis(sample, n, code_dimension, threads, transform.energy);
    transform.code_dimension = transform.basis.empty() ? n : transform.basis.size() / n;
    std::vector<float> magnitudes(taken * transform.code_dimension);
    parallel(taken, threads, [&](std::size_t i) {
        float* to = magnitudes.data() + i * transform.code_dimension;
        project(transform, sample.data() + i * n, to);
        std::transform(to, to + transform.code_dimension, to, [](float x) { return std::fabs(x); });
    });
    transform.step = step_of(std::move(magnitudes));
    transform.finish();
    return transform;
}

float encode(const Transform& transform, Metric metric, const float* vector, std::uint8_t* code,
             TransformBuffers& buffers) {
    prepare(transform, buffers);
    widen(transform, metric, vector, buffers.wide.data());
    project(transform, buffers.wide.data(), buffers.coordinates.data());
    const float inverse = 1.0F / transform.step;
    std::int64_t squares = 0;
    for (std::size_t i = 0; i < transform.code_dimension; ++i) {
        const float scaled = std::clamp(buffers.coordinates[i] * inverse, -127.0F, 127.0F);
        const int rounded = static_cast<int>(scaled + std::copysign(0.5F, scaled));
        code[i] = static_cast<std::uint8_t>(rounded + 128);
        squares += rounded * rounded;
    }
    std::fill(code + transform.code_dimension, code + transform.stride, std::uint8_t{128});
    return transform.step * transform.step * static_cast<float>(squares);
}

void encode_query(const Transform& transform, Metric metric, const float* query, CodeQuery& out,
                  TransformBuffers& buffers) {
    prepare(transform, buffers);
    float* wide = buffers.wide.data();
    std::copy_n(query, transform.dimension, wide);
    if (metric == Metric::inner_product) {
        // As long as the vectors are: where it points decides, and this keeps it within the range of the codes.
        const float length = std::sqrt(dot(query, query, transform.dimension));
        const float scale = length > 0.0F ? transform.longest / length : 0.0F;
        std::transform(wide, wide + transform.dimension, wide, [scale](float x) { return x * scale; });
        wide[transform.dimension] = 0.0F;
    }
    for (std::size_t i = 0; i < transform.wide_dimension; ++i) {
        wide[i] -= transform.mean[i];
    }
    const float* coordinates = wide;
    if (transform.projects()) {
        const float step = quantise(wide, transform.wide_dimension, buffers.bytes.data());
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < transform.wide_dimension; ++i) {
            sum += buffers.bytes[i];
        }
        distance::code_kernels().byte_product_rows(buffers.bytes.data(), transform.basis_rows.data(),
                                                   transform.code_dimension, transform.wide_dimension,
                                                   buffers.products.data());
        for (std::size_t i = 0; i < transform.code_dimension; ++i) {
            buffers.coordinates[i] =
                step * transform.basis_steps[i] * static_cast<float>(buffers.products[i] - 128 * sum);
        }
        coordinates = buffers.coordinates.data();
    }
    out.bytes.assign(transform.stride, 0);
    out.step = quantise(coordinates, transform.code_dimension, out.bytes.data());
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < transform.code_dimension; ++i) {
        sum += out.bytes[i];
    }
    out.offset = 128 * sum;
}

}  // namespace sage::vdb
