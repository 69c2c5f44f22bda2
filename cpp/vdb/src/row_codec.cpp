#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "sage/common/distance.hpp"
#include "sage/common/error.hpp"
#include "sage/common/panel.hpp"
#include "sage/vdb/row_store.hpp"

namespace sage::vdb {
namespace {

// int8, int4: lo, step, squares of the decoded row. bit1: what a unit of the bits' product is worth, squares, 0.
struct Factors {
    float first;
    float step;
    float squares;
};

constexpr Storage all_storages[] = {Storage::float32, Storage::float16, Storage::bfloat16,
                                    Storage::int8,    Storage::int4,    Storage::bit1};

std::size_t code_bytes(std::size_t dimension, Storage storage) {
    switch (storage) {
        case Storage::float32: return dimension * 4;
        case Storage::float16:
        case Storage::bfloat16: return (dimension * 2 + 3) / 4 * 4;
        case Storage::int8: return (dimension + 3) / 4 * 4;
        case Storage::int4: return (distance::nibble_bytes(dimension) + 3) / 4 * 4;
        case Storage::bit1: return (dimension + 63) / 64 * 8;
    }
    return 0;
}

Factors factors_of(const std::byte* row, std::size_t behind) {
    Factors factors;
    std::memcpy(&factors, row + behind, sizeof factors);
    return factors;
}

const std::uint16_t* halves(const std::byte* row) { return reinterpret_cast<const std::uint16_t*>(row); }
const std::uint8_t* bytes(const std::byte* row) { return reinterpret_cast<const std::uint8_t*>(row); }

// The Walsh-Hadamard transform of a power of two of values, of length-preserving scale.
void hadamard(float* values, std::size_t count) {
    for (std::size_t half = 1; half < count; half *= 2) {
        for (std::size_t first = 0; first < count; first += 2 * half) {
            for (std::size_t i = first; i < first + half; ++i) {
                const float a = values[i];
                const float b = values[i + half];
                values[i] = a + b;
                values[i + half] = a - b;
            }
        }
    }
    const float scale = 1.0F / std::sqrt(static_cast<float>(count));
    for (std::size_t i = 0; i < count; ++i) {
        values[i] *= scale;
    }
}

// A fixed sequence of bits, the same on every machine (Steele et al., "Fast splittable pseudorandom number
// generators", OOPSLA 2014).
std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31U);
}

constexpr std::size_t rounds = 3;

}  // namespace

std::string_view storage_name(Storage storage) noexcept {
    switch (storage) {
        case Storage::float32: return "float32";
        case Storage::float16: return "float16";
        case Storage::bfloat16: return "bfloat16";
        case Storage::int8: return "int8";
        case Storage::int4: return "int4";
        case Storage::bit1: return "bit1";
    }
    return "unknown";
}

Storage storage_from_name(std::string_view name) {
    for (const Storage storage : all_storages) {
        if (storage_name(storage) == name) {
            return storage;
        }
    }
    throw InvalidArgument("storage must be one of float32, float16, bfloat16, int8, int4, bit1, got '" +
                          std::string(name) + "'");
}

RowCodec::RowCodec(std::size_t dimension, Metric metric, Storage storage)
    : dimension_(dimension),
      metric_(metric),
      storage_(storage),
      code_bytes_(code_bytes(dimension, storage)),
      row_bytes_(code_bytes_ + (storage >= Storage::int8 ? sizeof(Factors) : 0)),
      kernels_(distance::code_kernels()) {
    if (storage == Storage::bit1) {
        centre_.assign(dimension, 0.0F);
    }
}

void RowCodec::learn(std::span<const float> vectors) {
    const std::size_t count = vectors.size() / dimension_;
    if (storage_ != Storage::bit1 || count == 0) {
        return;
    }
    std::vector<double> sums(dimension_, 0.0);
    for (std::size_t i = 0; i < vectors.size(); ++i) {
        sums[i % dimension_] += static_cast<double>(vectors[i]);
    }
    for (std::size_t i = 0; i < dimension_; ++i) {
        centre_[i] = static_cast<float>(sums[i] / static_cast<double>(count));
    }
}

void RowCodec::set_centre(std::span<const float> centre) { centre_.assign(centre.begin(), centre.end()); }

void RowCodec::flip(float* values, std::size_t round) const {
    for (std::size_t i = 0; i < dimension_; ++i) {
        const std::uint64_t word = mixed((round * 65537 + i / 64 + 1) * 0x9E3779B97F4A7C15ULL);
        if ((word >> (i % 64) & 1U) != 0) {
            values[i] = -values[i];
        }
    }
}

// Signs and transforms of the first and the last power of two of values: a rotation of any dimension.
void RowCodec::rotate(float* values) const {
    const std::size_t block = std::bit_floor(dimension_);
    for (std::size_t round = 0; round < rounds; ++round) {
        flip(values, round);
        hadamard(values, block);
        if (block != dimension_) {
            hadamard(values + (dimension_ - block), block);
        }
    }
}

void RowCodec::rotate_back(float* values) const {
    const std::size_t block = std::bit_floor(dimension_);
    for (std::size_t round = rounds; round-- > 0;) {
        if (block != dimension_) {
            hadamard(values + (dimension_ - block), block);
        }
        hadamard(values, block);
        flip(values, round);
    }
}

void RowCodec::encode(const float* vector, std::byte* row) const {
    switch (storage_) {
        case Storage::float32: std::memcpy(row, vector, dimension_ * sizeof(float)); return;
        case Storage::float16:
            kernels_.to_float16(vector, dimension_, reinterpret_cast<std::uint16_t*>(row));
            return;
        case Storage::bfloat16:
            kernels_.to_bfloat16(vector, dimension_, reinterpret_cast<std::uint16_t*>(row));
            return;
        case Storage::int8:
        case Storage::int4: encode_codes(vector, row); return;
        case Storage::bit1: encode_bits(vector, row); return;
    }
}

void RowCodec::encode_codes(const float* vector, std::byte* row) const {
    const auto [low, high] = std::minmax_element(vector, vector + dimension_);
    const float most = storage_ == Storage::int8 ? 255.0F : 15.0F;
    // Halves, because the difference of two large floats may be infinite.
    const float step = 2.0F * (*high / (2.0F * most) - *low / (2.0F * most));
    const float inverse = step > 0.0F && std::isfinite(1.0F / step) ? 1.0F / step : 0.0F;
    std::vector<std::uint8_t> codes(dimension_);
    double squares = 0.0;
    for (std::size_t i = 0; i < dimension_; ++i) {
        const float code = std::clamp(std::nearbyint((vector[i] - *low) * inverse), 0.0F, most);
        codes[i] = static_cast<std::uint8_t>(code);
        const auto value = static_cast<double>(*low + step * code);
        squares += value * value;
    }
    std::memset(row, 0, row_bytes_);
    auto* to = reinterpret_cast<std::uint8_t*>(row);
    if (storage_ == Storage::int8) {
        std::copy(codes.begin(), codes.end(), to);
    } else {
        distance::pack_nibbles(codes, {to, distance::nibble_bytes(dimension_)});
    }
    const Factors factors{*low, step, static_cast<float>(squares)};
    std::memcpy(row + code_bytes_, &factors, sizeof factors);
}

void RowCodec::encode_bits(const float* vector, std::byte* row) const {
    std::vector<float> values(vector, vector + dimension_);
    double squares = 0.0;
    for (std::size_t i = 0; i < dimension_; ++i) {
        values[i] -= centre_[i];
        squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    rotate(values.data());
    std::memset(row, 0, row_bytes_);
    auto* to = reinterpret_cast<std::uint8_t*>(row);
    double sizes = 0.0;
    for (std::size_t i = 0; i < dimension_; ++i) {
        to[i / 8] = static_cast<std::uint8_t>(to[i / 8] | (values[i] > 0.0F ? 1U << (i % 8) : 0U));
        sizes += static_cast<double>(std::fabs(values[i]));
    }
    const double worth = sizes > 0.0 ? squares / sizes : 0.0;
    const Factors factors{static_cast<float>(worth), 0.0F, static_cast<float>(squares)};
    std::memcpy(row + code_bytes_, &factors, sizeof factors);
}

void RowCodec::decode(const std::byte* row, float* vector) const {
    if (storage_ == Storage::float32) {
        std::memcpy(vector, row, dimension_ * sizeof(float));
        return;
    }
    if (storage_ == Storage::float16 || storage_ == Storage::bfloat16) {
        (storage_ == Storage::float16 ? kernels_.from_float16 : kernels_.from_bfloat16)(halves(row), dimension_,
                                                                                        vector);
        return;
    }
    const Factors factors = factors_of(row, code_bytes_);
    const std::uint8_t* codes = bytes(row);
    if (storage_ == Storage::int8) {
        for (std::size_t i = 0; i < dimension_; ++i) {
            vector[i] = factors.first + factors.step * static_cast<float>(codes[i]);
        }
    } else if (storage_ == Storage::int4) {
        for (std::size_t first = 0; first < dimension_; first += 128) {
            const std::size_t count = std::min<std::size_t>(128, dimension_ - first);
            const std::size_t half = (count + 1) / 2;
            for (std::size_t i = 0; i < count; ++i) {
                const unsigned byte = codes[first / 2 + (i < half ? i : i - half)];
                vector[first + i] =
                    factors.first + factors.step * static_cast<float>(i < half ? byte & 15U : byte >> 4U);
            }
        }
    } else {
        for (std::size_t i = 0; i < dimension_; ++i) {
            // The closest to the original along the direction of its signs.
            const float size = factors.squares > 0.0F
                                   ? factors.squares / (factors.first * static_cast<float>(dimension_))
                                   : 0.0F;
            vector[i] = (codes[i / 8] >> (i % 8) & 1) != 0 ? size : -size;
        }
        rotate_back(vector);
        for (std::size_t i = 0; i < dimension_; ++i) {
            vector[i] += centre_[i];
        }
    }
}

const char* RowCodec::flaw(const std::byte* row) const {
    if (storage_ >= Storage::int8) {
        const Factors factors = factors_of(row, code_bytes_);
        if (!std::isfinite(factors.first) || !std::isfinite(factors.step) || !std::isfinite(factors.squares) ||
            factors.step < 0.0F || factors.squares < 0.0F || (storage_ == Storage::bit1 && factors.first < 0.0F)) {
            return "the factors of a row are not finite or negative";
        }
    }
    std::vector<float> values(dimension_);
    decode(row, values.data());
    const float squares = distance::kernels().inner_product(values.data(), values.data(), dimension_);
    return squares <= 6.5e18F * 6.5e18F ? nullptr : "a vector is not finite or too long";
}

void RowCodec::prepare(const float* query, Query& prepared) const {
    prepared.values.assign(query, query + dimension_);
    if (exact()) {
        return;
    }
    const std::size_t room = storage_ == Storage::bit1 ? code_bytes_ * 8 : dimension_;
    AlignedVector<float> values = prepared.values;
    prepared.centre_product = 0.0F;
    if (storage_ == Storage::bit1) {
        prepared.centre_product = distance::kernels().inner_product(query, centre_.data(), dimension_);
        for (std::size_t i = 0; i < dimension_ && metric_ == Metric::l2; ++i) {
            values[i] -= centre_[i];
        }
    }
    prepared.squares = distance::kernels().inner_product(values.data(), values.data(), dimension_);
    if (storage_ == Storage::bit1) {
        rotate(values.data());
    }
    float most = 0.0F;
    for (const float value : values) {
        most = std::max(most, std::fabs(value));
    }
    prepared.step = most / 127.0F;
    const float inverse = prepared.step > 0.0F && std::isfinite(1.0F / prepared.step) ? 1.0F / prepared.step : 0.0F;
    prepared.bytes.assign(room, 0);
    prepared.byte_sum = 0;
    double sum = 0.0;
    for (std::size_t i = 0; i < dimension_; ++i) {
        const float code = std::clamp(std::nearbyint(values[i] * inverse), -127.0F, 127.0F);
        prepared.bytes[i] = static_cast<std::int8_t>(code);
        prepared.byte_sum += static_cast<std::int32_t>(code);
        sum += static_cast<double>(values[i]);
    }
    prepared.value_sum = static_cast<float>(sum);
}

void RowCodec::code_costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const {
    constexpr std::size_t batch = 64;
    const std::uint8_t* codes[batch];
    std::int32_t products[batch];
    for (std::size_t first = 0; first < count; first += batch) {
        const std::size_t here = std::min(batch, count - first);
        for (std::size_t i = 0; i < here; ++i) {
            codes[i] = bytes(rows[first + i]);
        }
        if (storage_ == Storage::bit1) {
            distance::panel_kernels().bit_product_rows(query.bytes.data(), codes, here, code_bytes_ / 8, products);
        } else {
            (storage_ == Storage::int8 ? kernels_.byte_product_rows : kernels_.nibble_product_rows)(
                query.bytes.data(), codes, here, dimension_, products);
        }
        for (std::size_t i = 0; i < here; ++i) {
            const Factors factors = factors_of(rows[first + i], code_bytes_);
            float product = 0.0F;
            if (storage_ == Storage::bit1) {
                product = factors.first * query.step * static_cast<float>(2 * products[i] - query.byte_sum);
                product += metric_ == Metric::l2 ? 0.0F : query.centre_product;
            } else {
                product = factors.first * query.value_sum + factors.step * query.step * static_cast<float>(products[i]);
            }
            costs[first + i] =
                metric_ == Metric::l2 ? factors.squares + query.squares - 2.0F * product : -product;
        }
    }
}

void RowCodec::costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const {
    if (!exact()) {
        code_costs(query, rows, count, costs);
        return;
    }
    const bool squared = metric_ == Metric::l2;
    constexpr std::size_t batch = 64;
    for (std::size_t first = 0; first < count; first += batch) {
        const std::size_t here = std::min(batch, count - first);
        if (storage_ == Storage::float32) {
            const float* values[batch];
            for (std::size_t i = 0; i < here; ++i) {
                values[i] = reinterpret_cast<const float*>(rows[first + i]);
            }
            const auto& kernels = distance::panel_kernels();
            (squared ? kernels.l2_squared_rows : kernels.product_rows)(query.values.data(), values, here, dimension_,
                                                                      costs + first);
        } else {
            const std::uint16_t* values[batch];
            for (std::size_t i = 0; i < here; ++i) {
                values[i] = halves(rows[first + i]);
            }
            const bool brain = storage_ == Storage::bfloat16;
            (squared ? (brain ? kernels_.bfloat16_l2_squared_rows : kernels_.float16_l2_squared_rows)
                     : (brain ? kernels_.bfloat16_product_rows : kernels_.float16_product_rows))(
                query.values.data(), values, here, dimension_, costs + first);
        }
    }
    if (!squared) {
        for (std::size_t i = 0; i < count; ++i) {
            costs[i] = -costs[i];
        }
    }
}

void RowCodec::exact_costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const {
    if (exact()) {
        this->costs(query, rows, count, costs);
        return;
    }
    std::vector<float> row(dimension_);
    const distance::Kernels& kernels = distance::kernels();
    for (std::size_t i = 0; i < count; ++i) {
        decode(rows[i], row.data());
        costs[i] = metric_ == Metric::l2 ? kernels.l2_squared(query.values.data(), row.data(), dimension_)
                                         : -kernels.inner_product(query.values.data(), row.data(), dimension_);
    }
}

}  // namespace sage::vdb
