#include "sage/vdb/metric.hpp"

#include <string>

#include "sage/common/error.hpp"

namespace sage::vdb {

std::string_view metric_name(Metric metric) noexcept {
    switch (metric) {
        case Metric::cosine: return "cosine";
        case Metric::inner_product: return "inner_product";
        case Metric::l2: return "l2";
    }
    return "unknown";
}

Metric metric_from_name(std::string_view name) {
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        if (metric_name(metric) == name) {
            return metric;
        }
    }
    throw InvalidArgument("metric must be one of cosine, inner_product, l2, got '" + std::string(name) + "'");
}

}  // namespace sage::vdb
