// The index as one block of bytes, in the order of the machine (little endian wherever this is built today).
//
//   "SAGEGRPH", version, then the fields of FileHeader
//   a byte of state for each slot: 0 free, 1 removed, 3 live
//   the rows of all slots that are not free, in ascending order
//   if trained: step, longest, energy, entry, code_dimension, mean, basis
//     the recall of each effort of Calibration, changes since
//     and for all slots that are not free: codes (without padding), then links (degree of them, ~0 for none)
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "graph_core.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

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

class Writer {
public:
    template <class T>
    void put(const T* values, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        const auto* from = reinterpret_cast<const std::byte*>(values);
        bytes_.insert(bytes_.end(), from, from + count * sizeof(T));
    }
    template <class T>
    void put(const T& value) {
        put(&value, 1);
    }
    void reserve(std::size_t size) { bytes_.reserve(size); }
    std::vector<std::byte> take() { return std::move(bytes_); }

private:
    std::vector<std::byte> bytes_;
};

[[noreturn]] void refuse(const std::string& why) { throw InvalidArgument("not a saved graph index: " + why); }

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

class FileReader {
public:
    explicit FileReader(std::span<const std::byte> bytes) : left_(bytes) {}

    template <class T>
    void get(T* values, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        const std::byte* from = take(count, sizeof(T));
        if (count > 0) {  // a null pointer must not reach memcpy
            std::memcpy(values, from, count * sizeof(T));
        }
    }
    template <class T>
    T get() {
        T value;
        get(&value, 1);
        return value;
    }
    // Before anything of that size is allocated.
    void require_left(std::size_t count, std::size_t size) const {
        if (size != 0 && count > left_.size() / size) {
            refuse("it ends too early, " + std::to_string(count) + " values of " + std::to_string(size) +
                   " bytes were expected and " + std::to_string(left_.size()) + " bytes are left");
        }
    }
    [[nodiscard]] std::size_t left() const { return left_.size(); }

private:
    const std::byte* take(std::size_t count, std::size_t size) {
        require_left(count, size);
        const std::byte* from = left_.data();
        left_ = left_.subspan(count * size);
        return from;
    }

    std::span<const std::byte> left_;
};

std::vector<std::byte> GraphIndex::Core::save() const {
    Writer out;
    const Slot end = slot_end.load(std::memory_order_acquire);
    const bool ready = trained.load(std::memory_order_acquire);
    out.reserve(64 + end * (1 + row_bytes + (ready ? transform.code_dimension + options.degree * sizeof(Slot) : 0)) +
                transform.basis.size() * sizeof(float));
    out.put(magic, sizeof magic);
    out.put(version);
    out.put(FileHeader{static_cast<std::uint32_t>(metric), static_cast<std::uint32_t>(options.rows), options.degree,
                   options.build_effort, options.code_dimension, ready ? 1U : 0U, options.alpha,
                   options.removed_share_max, dimension, end});
    std::vector<Slot> kept;
    for (Slot slot = 0; slot < end; ++slot) {
        const unsigned bits = states.row(slot)->load(std::memory_order_acquire);
        const auto state = static_cast<std::uint8_t>(bits & (present | live));
        out.put(state);
        if (state != 0) {
            kept.push_back(slot);
        }
    }
    const std::size_t value_bytes = dimension * (options.rows == RowFormat::float32 ? 4 : 2);
    for (const Slot slot : kept) {
        out.put(rows.row(slot), value_bytes);
    }
    if (!ready) {
        return out.take();
    }
    out.put(Learned{transform.step, transform.longest, transform.energy, entry.load(std::memory_order_relaxed),
                    transform.code_dimension, transform.basis.size()});
    out.put(transform.mean.data(), transform.mean.size());
    out.put(transform.basis.data(), transform.basis.size());
    for (const std::atomic<float>& recall : calibration.recalls) {
        out.put(recall.load(std::memory_order_relaxed));
    }
    out.put(std::uint64_t{calibration.changes});
    for (const Slot slot : kept) {
        out.put(codes->row(slot), transform.code_dimension);
    }
    for (const Slot slot : kept) {
        const Links* row = links->row(slot);
        for (std::size_t i = 0; i < options.degree; ++i) {
            out.put(row[i].load(std::memory_order_relaxed));
        }
    }
    return out.take();
}

namespace {

// What the file says was learned; the sizes are checked before anything is allocated.
Transform read_transform(FileReader& in, const FileHeader& header, Metric metric, Slot& entry) {
    const auto learned = in.get<Learned>();
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
    in.get(transform.mean.data(), transform.mean.size());
    in.get(transform.basis.data(), transform.basis.size());
    require(all_finite(transform.mean) && all_finite(transform.basis), "a value of the projection is not finite");
    transform.finish();
    return transform;
}

}  // namespace

std::unique_ptr<GraphIndex::Core> GraphIndex::Core::load(std::span<const std::byte> bytes) {
    FileReader in(bytes);
    char begin[sizeof magic];
    in.get(begin, sizeof begin);
    require(std::equal(std::begin(begin), std::end(begin), std::begin(magic)), "it does not begin as one");
    const auto found_version = in.get<std::uint32_t>();
    if (found_version < version_least || found_version > version) {
        refuse("its version is " + std::to_string(found_version) + ", this program reads versions up to " +
               std::to_string(version));
    }
    const auto header = in.get<FileHeader>();
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
    in.get(found_states.data(), end);
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
        in.get(core->rows.row(slot), value_bytes);
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
            const auto value = in.get<float>();
            require(value >= least && value <= 1.0F, "a recall falls with the effort or is no share");
            least = value;
            recall.store(value, std::memory_order_relaxed);
        }
        calibration.changes = in.get<std::uint64_t>();
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
        in.get(code, transform.code_dimension);
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
        in.get(row.data(), row.size());
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
