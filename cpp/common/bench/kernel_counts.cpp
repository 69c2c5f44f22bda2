// Runs every kernel of every level once on fixed input, for tools/callgrind.py, which counts the instructions.
//
//   valgrind --tool=callgrind --toggle-collect=sage_counted --dump-after=sage_counted <program>
//
// Prints the compiler, and then one name per call of sage_counted: Callgrind's n-th dump belongs to the n-th name.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/codes.hpp"
#include "sage/common/distance.hpp"
#include "sage/common/panel.hpp"

// The only function whose instructions count, with those that it calls. Its name is fixed, and so it is no template.
extern "C" __attribute__((noinline)) void sage_counted(const std::function<void()>* kernel) { (*kernel)(); }

namespace {

using namespace sage;

constexpr std::size_t row_count = 64;
constexpr std::size_t query_count = 8;
// With and without a rest behind the last whole register, and the usual size of an embedding.
constexpr std::array<std::size_t, 3> dimensions{100, 384, 1024};

// The input of all kernels of one dimension.
struct Input {
    Input(simd::Level at, std::size_t of) : level(simd::level_name(at)), dimension(of) {
        std::mt19937 random(1);
        for (std::size_t i = 0; i < row_count * dimension; ++i) {
            // No distribution of the library: its values differ between libraries.
            floats.push_back(static_cast<float>(random() % 2001) / 1000.0F - 1.0F);
            halves.push_back(static_cast<std::uint16_t>(0x3000U + random() % 0x0C00U));
            bytes.push_back(static_cast<std::uint8_t>(random()));
        }
        for (std::size_t i = 0; i < (dimension + 63) / 64 * 64; ++i) {
            signed_query.push_back(i < dimension ? static_cast<std::int8_t>(random()) : std::int8_t{0});
        }
        for (std::size_t row = 0; row < row_count; ++row) {
            float_rows.push_back(floats.data() + row * dimension);
            half_rows.push_back(halves.data() + row * dimension);
            byte_rows.push_back(bytes.data() + row * dimension);
        }
        addends.assign(distance::panel_rows, 1.0F);
        panel.resize(distance::panel_rows * dimension);
        products.resize(distance::panel_rows * query_count);
        narrowed.resize(dimension);
        widened.resize(dimension);
        integers.resize(row_count);
    }

    void count(const char* name, const std::function<void()>& kernel) const {
        std::printf("%s/%s/%zu\n", level.c_str(), name, dimension);
        sage_counted(&kernel);
    }

    std::string level;
    std::size_t dimension;
    AlignedVector<float> floats;
    AlignedVector<std::uint16_t> halves;
    AlignedVector<std::uint8_t> bytes;
    AlignedVector<std::int8_t> signed_query;
    std::vector<const float*> float_rows;
    std::vector<const std::uint16_t*> half_rows;
    std::vector<const std::uint8_t*> byte_rows;
    AlignedVector<float> addends;
    AlignedVector<float> panel;
    AlignedVector<float> products;
    AlignedVector<std::uint16_t> narrowed;
    AlignedVector<float> widened;
    AlignedVector<std::int32_t> integers;
};

void count_distances(const distance::Kernels& kernels, Input& in) {
    const float* query = in.floats.data();
    const auto rows = [&](const char* name, distance::Kernels::Rows kernel) {
        in.count(name, [&] { kernel(query, query, row_count, in.dimension, in.products.data()); });
    };
    rows("inner_product_rows", kernels.inner_product_rows);
    rows("l2_squared_rows", kernels.l2_squared_rows);
    rows("cosine_rows", kernels.cosine_rows);
    const auto pair = [&](const char* name, distance::Kernels::Pair kernel) {
        in.count(name, [&] { in.products[0] = kernel(query, in.float_rows[1], in.dimension); });
    };
    pair("inner_product", kernels.inner_product);
    pair("l2_squared", kernels.l2_squared);
    pair("cosine", kernels.cosine);
}

void count_codes(const distance::CodeKernels& kernels, Input& in) {
    const float* query = in.floats.data();
    const auto bytes = [&](const char* name, distance::CodeKernels::ByteRows kernel) {
        in.count(name, [&] {
            kernel(in.signed_query.data(), in.byte_rows.data(), row_count, in.dimension, in.integers.data());
        });
    };
    bytes("byte_product_rows", kernels.byte_product_rows);
    bytes("nibble_product_rows", kernels.nibble_product_rows);
    const auto halves = [&](const char* name, distance::CodeKernels::HalfRows kernel) {
        in.count(name,
              [&] { kernel(query, in.half_rows.data(), row_count, in.dimension, in.products.data()); });
    };
    halves("bfloat16_product_rows", kernels.bfloat16_product_rows);
    halves("bfloat16_l2_squared_rows", kernels.bfloat16_l2_squared_rows);
    halves("float16_product_rows", kernels.float16_product_rows);
    halves("float16_l2_squared_rows", kernels.float16_l2_squared_rows);
    const auto floats = [&](const char* name, distance::CodeKernels::FloatRows kernel) {
        in.count(name,
              [&] { kernel(query, in.float_rows.data(), row_count, in.dimension, in.products.data()); });
    };
    floats("float_product_rows", kernels.float_product_rows);
    floats("float_l2_squared_rows", kernels.float_l2_squared_rows);
    in.count("to_bfloat16", [&] { kernels.to_bfloat16(query, in.dimension, in.narrowed.data()); });
    in.count("to_float16", [&] { kernels.to_float16(query, in.dimension, in.narrowed.data()); });
    in.count("from_bfloat16",
          [&] { kernels.from_bfloat16(in.halves.data(), in.dimension, in.widened.data()); });
    in.count("from_float16",
          [&] { kernels.from_float16(in.halves.data(), in.dimension, in.widened.data()); });
}

void count_panels(const distance::PanelKernels& kernels, Input& in) {
    const float* query = in.floats.data();
    in.count("panel_pack",
          [&] { kernels.pack(in.float_rows.data(), nullptr, row_count, in.dimension, in.panel.data()); });
    in.count("panel_products",
          [&] { kernels.products(in.panel.data(), in.dimension, query, query_count, in.products.data()); });
    std::uint64_t mask = 0;
    in.count("panel_select", [&] {
        mask = kernels.select(in.products.data(), in.addends.data(), -1.0F, 0.5F, in.products.data());
    });
    const std::size_t words = in.dimension / 64;
    in.count("bit_product_rows", [&] {
        kernels.bit_product_rows(in.signed_query.data(), in.byte_rows.data(), row_count, words, in.integers.data());
    });
    in.count("stream_product_rows", [&] {
        kernels.product_rows(query, in.float_rows.data(), row_count, in.dimension, in.products.data());
    });
    in.count("stream_l2_squared_rows", [&] {
        kernels.l2_squared_rows(query, in.float_rows.data(), row_count, in.dimension, in.products.data());
    });
}

}  // namespace

int main() {
#ifdef __clang__
    std::printf("Clang %d\n", __clang_major__);
#else
    std::printf("GNU %d\n", __GNUC__);
#endif
    try {
        for (const simd::Level level : simd::available_levels()) {
            for (const std::size_t dimension : dimensions) {
                Input input(level, dimension);
                count_distances(distance::kernels(level), input);
                count_codes(distance::code_kernels(level), input);
                count_panels(distance::panel_kernels(level), input);
            }
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
