// Clusters of vectors. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sage/common/aligned.hpp"

namespace sage::vdb {

// The nearest centre (squared distance) of each of the vectors, row after row; distances are optional.
void nearest_centres(std::span<const float> vectors, std::size_t dimension, std::span<const float> centres,
                     std::size_t threads, std::uint32_t* nearest, float* distances = nullptr);

// Lloyd's iteration (Lloyd, "Least squares quantization in PCM", 1982) from `count` of the vectors, on a sample of
// them; a centre that lost all its vectors takes half of the largest cluster's place. Deterministic for equal input.
[[nodiscard]] AlignedVector<float> find_centres(std::span<const float> vectors, std::size_t dimension,
                                                std::size_t count, std::size_t threads);

}  // namespace sage::vdb
