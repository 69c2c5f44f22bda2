// How two vectors are compared.
#pragma once

#include <string_view>

namespace sage::vdb {

enum class Metric {
    cosine,         // inner product of the directions, in [-1, 1]; higher is better
    inner_product,  // higher is better
    l2,             // squared Euclidean distance, >= 0; lower is better
};

[[nodiscard]] std::string_view metric_name(Metric metric) noexcept;

// The metric of that name. Throws InvalidArgument for an unknown one.
[[nodiscard]] Metric metric_from_name(std::string_view name);

[[nodiscard]] constexpr bool higher_is_better(Metric metric) noexcept { return metric != Metric::l2; }

}  // namespace sage::vdb
