#include "sage/common/distance.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "kernel_tables.hpp"
#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

const Kernels& table(simd::Level level) {
    switch (level) {
#ifdef SAGE_HAVE_NEON
        case simd::Level::neon: return neon_kernels;
#endif
#ifdef SAGE_HAVE_AVX2
        case simd::Level::avx2: return avx2_kernels;
#endif
#ifdef SAGE_HAVE_AVX512
        case simd::Level::avx512: return avx512_kernels;
#endif
        default: return scalar_kernels;
    }
}

void require_same_size(std::span<const float> a, std::span<const float> b) {
    if (a.size() != b.size()) {
        throw InvalidArgument("both vectors must have the same dimension, got " + std::to_string(a.size()) + " and " +
                              std::to_string(b.size()));
    }
}

void require_block(std::span<const float> query, std::span<const float> rows, std::span<float> scores) {
    const bool overflows =
        !query.empty() && scores.size() > std::numeric_limits<std::size_t>::max() / query.size();
    if (overflows || rows.size() != query.size() * scores.size()) {
        throw InvalidArgument("rows must hold one query's dimension per score, got " + std::to_string(rows.size()) +
                              " values for " + std::to_string(scores.size()) + " scores of dimension " +
                              std::to_string(query.size()));
    }
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = table(simd::active_level());
    return chosen;
}

const Kernels& kernels(simd::Level level) {
    const auto& available = simd::available_levels();
    if (std::find(available.begin(), available.end(), level) == available.end()) {
        throw InvalidArgument("the instruction set must be available on this machine, got '" +
                              std::string(simd::level_name(level)) + "'");
    }
    return table(level);
}

float l2_squared(std::span<const float> a, std::span<const float> b) {
    require_same_size(a, b);
    return kernels().l2_squared(a.data(), b.data(), a.size());
}

float inner_product(std::span<const float> a, std::span<const float> b) {
    require_same_size(a, b);
    return kernels().inner_product(a.data(), b.data(), a.size());
}

float cosine(std::span<const float> a, std::span<const float> b) {
    require_same_size(a, b);
    return kernels().cosine(a.data(), b.data(), a.size());
}

void l2_squared_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores) {
    require_block(query, rows, scores);
    kernels().l2_squared_rows(query.data(), rows.data(), scores.size(), query.size(), scores.data());
}

void inner_product_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores) {
    require_block(query, rows, scores);
    kernels().inner_product_rows(query.data(), rows.data(), scores.size(), query.size(), scores.data());
}

void cosine_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores) {
    require_block(query, rows, scores);
    kernels().cosine_rows(query.data(), rows.data(), scores.size(), query.size(), scores.data());
}

}  // namespace sage::distance
