// Forms in which vectors are stored, and their scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/codes.hpp"
#include "sage/vdb/metric.hpp"

namespace sage::vdb {

// float32, float16 and bfloat16 keep the values, rounded to the nearest (up to 65504 with float16).
// int8 and int4 keep lo + step * code with lo and step = (max - min) / 255 or / 15 of each vector: no value is off by
// more than step / 2 (and rounding).
// bit1 keeps the signs after a rotation around a centre, and two factors (Gao & Long, "RaBitQ", SIGMOD 2024): an
// estimate only, of use together with an exact form.
enum class Storage : std::uint32_t { float32, float16, bfloat16, int8, int4, bit1 };

[[nodiscard]] std::string_view storage_name(Storage storage) noexcept;
// Throws InvalidArgument for an unknown name.
[[nodiscard]] Storage storage_from_name(std::string_view name);

// Translates vectors into rows of bytes of one form, and compares queries with such rows. Rows may lie anywhere,
// aligned to 4 bytes.
//
// A cost is what a search makes small: the squared distance for l2, the negated inner product otherwise (cosine is
// the inner product of vectors of length 1, to which the caller brings them).
//
// Threads: everything const from any thread; learn() before any row is encoded.
class RowCodec {
public:
    RowCodec(std::size_t dimension, Metric metric, Storage storage);

    // The centre of bit1, from vectors row after row; nothing for the other forms.
    void learn(std::span<const float> vectors);
    [[nodiscard]] std::span<const float> centre() const noexcept { return centre_; }
    void set_centre(std::span<const float> centre);

    [[nodiscard]] std::size_t row_bytes() const noexcept { return row_bytes_; }
    [[nodiscard]] Storage storage() const noexcept { return storage_; }
    [[nodiscard]] std::size_t dimension() const noexcept { return dimension_; }
    // Whether costs() are those of the decoded rows up to rounding; otherwise exact_costs() are.
    [[nodiscard]] bool exact() const noexcept { return storage_ <= Storage::bfloat16; }
    // Whether the costs are sums over float32 rows as they lie.
    [[nodiscard]] bool plain() const noexcept { return storage_ == Storage::float32; }

    void encode(const float* vector, std::byte* row) const;
    void decode(const std::byte* row, float* vector) const;
    // Why bytes cannot be a row that encode() wrote, or nullptr.
    [[nodiscard]] const char* flaw(const std::byte* row) const;

    // A query in the forms that costs() reads.
    struct Query {
        AlignedVector<float> values;
        AlignedVector<std::int8_t> bytes;
        float step = 0.0F;       // of the bytes
        float value_sum = 0.0F;  // of the query as the bytes give it
        float squares = 0.0F;    // of what the bytes stand for
        float centre_product = 0.0F;
        std::int32_t byte_sum = 0;
    };
    void prepare(const float* query, Query& prepared) const;
    void costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const;
    // Costs of the decoded rows, whatever the form.
    void exact_costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const;

private:
    void encode_codes(const float* vector, std::byte* row) const;
    void encode_bits(const float* vector, std::byte* row) const;
    void code_costs(const Query& query, const std::byte* const* rows, std::size_t count, float* costs) const;
    void rotate(float* values) const;
    void rotate_back(float* values) const;
    void flip(float* values, std::size_t round) const;

    std::size_t dimension_;
    Metric metric_;
    Storage storage_;
    std::size_t code_bytes_ = 0;  // the factors lie behind
    std::size_t row_bytes_ = 0;
    std::vector<float> centre_;
    const distance::CodeKernels& kernels_;
};

}  // namespace sage::vdb
