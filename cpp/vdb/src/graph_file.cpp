// The index as one block of bytes, in the order of the machine (little endian wherever this is built today).
//
//   "SAGEGRPH", version, then the fields of FileHeader
//   a byte of state for each slot: 0 free, 1 removed, 3 live
//   the rows of all slots that are not free, in ascending order
//   if trained: step, longest, energy, entry, code_dimension, mean, basis
//     the recall of each effort of Calibration, changes since
//     and for all slots that are not free: codes (without padding), then links (degree of them, ~0 for none)
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "byte_stream.hpp"
#include "graph_core.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

constexpr char magic[8] = {'S', 'A', 'G', 'E', 'G', 'R', 'P', 'H'};
constexpr std::uint32_t version = 2;
constexpr std::uint32_t version_least = 1;  // without the recalls

struct Learned {
    float step;
    float longest;
    float energy;
    std::uint32_t entry;
    std::uint64_t code_dimension;
    std::uint64_t basis_size;
};

constexpr const char* saved_graph = "not a saved graph index";

[[noreturn]] void refuse(const std::string& why) { throw InvalidArgument(std::string(saved_graph) + ": " + why); }

void require(bool holds, const char* why) {
    if (!holds) {
        refuse(why);
    }
}

bool all_finite(std::span<const float> values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

}  // namespace

struct FileHeader {
    std::uint32_t metric;
    std::uint32_t row_format;
    std::uint32_t degree;
    std::uint32_t build_effort;
    std::uint32_t code_dimension_wanted;
    std::uint32_t trained;
    float alpha;
    float removed_share_max;
    std::uint64_t dimension;
    std::uint64_t slot_end;
};

class FileReader : public ByteReader<InvalidArgument> {
public:
    explicit FileReader(std::span<const std::byte> bytes) : ByteReader(bytes, saved_graph) {}
};

std::vector<std::byte> GraphIndex::Core::save() const {
    ByteWriter out;
    const Slot end = slot_end.load(std::memory_order_acquire);
    const bool ready = trained.load(std::memory_order_acquire);
    out.reserve(64 + end * (1 + row_bytes + (ready ? transform.code_dimension + options.degree * sizeof(Slot) : 0)) +
                transform.basis.size() * sizeof(float));
    out.values(magic, sizeof magic);
    out.fixed(version);
    out.fixed(FileHeader{static_cast<std::uint32_t>(metric), static_cast<std::uint32_t>(options.rows), options.degree,
                   options.build_effort, options.code_dimension, ready ? 1U : 0U, options.alpha,
                   options.removed_share_max, dimension, end});
    std::vector<Slot> kept;
    for (Slot slot = 0; slot < end; ++slot) {
        const unsigned bits = states.row(slot)->load(std::memory_order_acquire);
        const auto state = static_cast<std::uint8_t>(bits & (present | live));
        out.fixed(state);
        if (state != 0) {
            kept.push_back(slot);
        }
    }
    const std::size_t value_bytes = dimension * (options.rows == RowFormat::float32 ? 4 : 2);
    for (const Slot slot : kept) {
        out.values(rows.row(slot), value_bytes);
    }
    if (!ready) {
        return out.take();
    }
    out.fixed(Learned{transform.step, transform.longest, transform.energy, entry.load(std::memory_order_relaxed),
                    transform.code_dimension, transform.basis.size()});
    out.values(transform.mean.data(), transform.mean.size());
    out.values(transform.basis.data(), transform.basis.size());
    for (const std::atomic<float>& recall : calibration.recalls) {
        out.fixed(recall.load(std::memory_order_relaxed));
    }
    out.fixed(std::uint64_t{calibration.changes});
    for (const Slot slot : kept) {
        out.values(codes->row(slot), transform.code_dimension);
    }
    for (const Slot slot : kept) {
        const Links* row = links->row(slot);
        for (std::size_t i = 0; i < options.degree; ++i) {
            out.fixed(row[i].load(std::memory_order_relaxed));
        }
    }
    return out.take();
}

namespace {

// What the file says was learned; the sizes are checked before anything is allocated.
Transform read_transform(FileReader& in, const FileHeader& header, Metric metric, Slot& entry) {
    const auto learned = in.fixed<Learned>();
    Transform transform;
    transform.dimension = header.dimension;
    transform.wide_dimension = header.dimension + (metric == Metric::inner_product ? 1 : 0);
    transform.code_dimension = learned.code_dimension;
    transform.step = learned.step;
    transform.longest = learned.longest;
    transform.energy = learned.energy;
    entry = learned.entry;
    require(std::isfinite(learned.step) && learned.step > 0.0F, "the step of the codes is not positive");
    require(std::isfinite(learned.longest) && learned.longest >= 0.0F, "a length is negative or not finite");
    require(std::isfinite(learned.energy), "the energy is not finite");
    require(learned.code_dimension >= 1 && learned.code_dimension <= transform.wide_dimension,
            "the codes have more dimensions than the vectors");
    require(learned.basis_size == 0 ? learned.code_dimension == transform.wide_dimension
                                    : learned.basis_size == learned.code_dimension * transform.wide_dimension,
            "the projection does not fit the dimensions");
    in.require_left(transform.wide_dimension + learned.basis_size, sizeof(float));
    transform.mean.resize(transform.wide_dimension);
    transform.basis.resize(learned.basis_size);
    in.values(transform.mean.data(), transform.mean.size());
    in.values(transform.basis.data(), transform.basis.size());
    require(all_finite(transform.mean) && all_finite(transform.basis), "a value of the projection is not finite");
    transform.finish();
    return transform;
}

}  // namespace

std::unique_ptr<GraphIndex::Core> GraphIndex::Core::load(std::span<const std::byte> bytes) {
    FileReader in(bytes);
    char begin[sizeof magic];
    in.values(begin, sizeof begin);
    require(std::equal(std::begin(begin), std::end(begin), std::begin(magic)), "it does not begin as one");
    const auto found_version = in.fixed<std::uint32_t>();
    if (found_version < version_least || found_version > version) {
        refuse("its version is " + std::to_string(found_version) + ", this program reads versions up to " +
               std::to_string(version));
    }
    const auto header = in.fixed<FileHeader>();
    require(header.metric <= static_cast<std::uint32_t>(Metric::l2), "its metric is unknown");
    require(header.row_format <= static_cast<std::uint32_t>(RowFormat::bfloat16), "its row format is unknown");
    require(header.trained <= 1, "a flag is neither 0 nor 1");
    require(header.slot_end <= std::uint64_t{slot_max} + 1, "it has too many slots");
    GraphOptions options;
    options.degree = header.degree;
    options.build_effort = header.build_effort;
    options.alpha = header.alpha;
    options.removed_share_max = header.removed_share_max;
    options.code_dimension = header.code_dimension_wanted;
    options.rows = static_cast<RowFormat>(header.row_format);
    auto core = std::make_unique<Core>(header.dimension, static_cast<Metric>(header.metric), options);
    const auto end = static_cast<Slot>(header.slot_end);
    const std::size_t value_bytes = core->dimension * (options.rows == RowFormat::float32 ? 4 : 2);

    in.require_left(end, 1);
    std::vector<std::uint8_t> found_states(end);
    in.values(found_states.data(), end);
    std::vector<Slot> kept;
    std::size_t lives = 0;
    for (Slot slot = 0; slot < end; ++slot) {
        const std::uint8_t state = found_states[slot];
        require(state == 0 || state == present || state == (present | live), "a state is unknown");
        if (state != 0) {
            kept.push_back(slot);
            lives += state == present ? 0 : 1;
        }
    }
    in.require_left(kept.size(), value_bytes);
    // Free slots behind the last one need no memory.
    const Slot last = kept.empty() ? 0 : kept.back() + 1;
    core->reserve(last);
    std::vector<float> vector(core->dimension);
    for (const Slot slot : kept) {
        in.values(core->rows.row(slot), value_bytes);
        core->load_row(slot, vector.data());
        const float squares = distance::kernels().inner_product(vector.data(), vector.data(), vector.size());
        require(squares <= 6.5e18F * 6.5e18F, "a vector is not finite or too long");
        core->states.row(slot)->store(found_states[slot], std::memory_order_relaxed);
        if (found_states[slot] == present) {
            core->removed.push_back(slot);
        }
    }
    core->slot_end.store(last, std::memory_order_relaxed);
    core->live_count.store(lives, std::memory_order_relaxed);
    if (header.trained == 0) {
        for (const Slot slot : core->removed) {
            core->retired.push_back({slot, core->epochs.ticket()});
        }
        core->removed.clear();
        require(in.left() == 0, "bytes follow behind its end");
        return core;
    }

    core->removed_count.store(core->removed.size(), std::memory_order_relaxed);
    core->read_graph(in, header, kept, lives, found_version);
    return core;
}

// What follows the rows in the file of a trained index.
void GraphIndex::Core::read_graph(FileReader& in, const FileHeader& header, std::span<const Slot> kept,
                                  std::size_t lives, std::uint32_t found_version) {
    const Slot last = slot_end.load(std::memory_order_relaxed);
    Slot start = no_slot;
    transform = read_transform(in, header, metric, start);
    if (found_version >= 2) {
        float least = 0.0F;
        for (std::atomic<float>& recall : calibration.recalls) {
            const auto value = in.fixed<float>();
            require(value >= least && value <= 1.0F, "a recall falls with the effort or is no share");
            least = value;
            recall.store(value, std::memory_order_relaxed);
        }
        calibration.changes = in.fixed<std::uint64_t>();
        require(calibration.changes <= std::uint64_t{1} << 62U, "it speaks of more changes than there can be");
    }
    in.require_left(kept.size(), transform.code_dimension + options.degree * sizeof(Slot));
    require(in.left() == kept.size() * (transform.code_dimension + options.degree * sizeof(Slot)),
            "bytes follow behind its end");
    require(start == no_slot ? lives == 0 : start < last && is(start, present), "its entry is not a node");
    codes = std::make_unique<SlotArray<std::uint8_t>>(transform.stride);
    norms = std::make_unique<SlotArray<float>>(1);
    links = std::make_unique<SlotArray<Links>>(options.degree);
    reserve(last);
    for (const Slot slot : kept) {
        std::uint8_t* code = codes->row(slot);
        in.values(code, transform.code_dimension);
        std::fill(code + transform.code_dimension, code + transform.stride, std::uint8_t{128});
        std::int64_t squares = 0;
        for (std::size_t i = 0; i < transform.code_dimension; ++i) {
            const int value = static_cast<int>(code[i]) - 128;
            squares += value * value;
        }
        *norms->row(slot) = transform.step * transform.step * static_cast<float>(squares);
        require(std::isfinite(*norms->row(slot)), "a code is too long");
    }
    std::vector<Slot> row(options.degree);
    for (const Slot slot : kept) {
        in.values(row.data(), row.size());
        const auto used = std::find(row.begin(), row.end(), no_slot);
        require(std::all_of(used, row.end(), [](Slot x) { return x == no_slot; }), "a row of links has a gap");
        for (auto link = row.begin(); link != used; ++link) {
            require(*link < last && is(*link, present) && *link != slot, "a link leads to no node");
        }
        clear_links(slot);
        write_links(slot, {row.begin(), used});
    }
    entry.store(start, std::memory_order_relaxed);
    partition_all(1);
    trained.store(true, std::memory_order_release);
}

}  // namespace sage::vdb
