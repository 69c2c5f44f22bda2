// How the indexes over slots are saved and loaded.
#include <algorithm>
#include <cmath>
#include <string>

#include "sage/common/error.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

constexpr char magic[8] = {'S', 'A', 'G', 'E', 'I', 'N', 'D', 'X'};
constexpr std::uint32_t version = 1;
constexpr std::uint32_t no_rerank = 0xFFFFFFFF;
constexpr std::uint8_t removed_state = 1;
constexpr std::uint8_t live_state = 3;

struct Head {
    std::uint32_t kind;
    std::uint32_t metric;
    std::uint32_t storage;
    std::uint32_t rerank;
    std::uint32_t rerank_factor;
    std::uint32_t lists;
    std::uint32_t links;
    std::uint32_t build_effort;
    float removed_share_max;
    std::uint32_t unused;
    std::uint64_t dimension;
};

}  // namespace

void refuse_bytes(const std::string& why) { throw InvalidArgument(std::string(saved_index) + ": " + why); }

void require_bytes(bool holds, const char* why) {
    if (!holds) {
        refuse_bytes(why);
    }
}

// "SAGEINDX", version, Head; a byte: 1 when the codec has learned, else 0; the number of slots and a byte of each: 0
// free, 1 removed, 3 live; of all that are not free in ascending order the fine rows; then, if it has learned, the
// codec's centre and rows, and what the kind adds.
std::vector<std::byte> SlotIndex::save() const {
    ByteWriter out;
    out.values(magic, sizeof magic);
    out.fixed(version);
    out.fixed(Head{static_cast<std::uint32_t>(index_kind_from_name(name())),
                 static_cast<std::uint32_t>(options_.metric), static_cast<std::uint32_t>(options_.storage),
                 options_.rerank ? static_cast<std::uint32_t>(*options_.rerank) : no_rerank, options_.rerank_factor,
                 options_.lists, options_.links, options_.build_effort, options_.removed_share_max, 0,
                 options_.dimension});
    const bool learned = has_learned();
    out.fixed(static_cast<std::uint8_t>(learned ? 1 : 0));
    std::vector<Slot> held;
    std::vector<std::uint8_t> states(slot_end());
    std::vector<bool> placed(held_.size(), learned);
    for (const Retired& retired : retired_) {
        placed[retired.slot] = retired.placed;
    }
    for (std::size_t i = 0; i < states.size(); ++i) {
        const auto slot = static_cast<Slot>(i);
        const bool kept = keeps_removed() && held_[slot] && placed[slot];
        states[i] = is_live(slot) ? live_state : kept ? removed_state : 0;
        if (states[i] != 0) {
            held.push_back(slot);
        }
    }
    out.fixed(std::uint64_t{states.size()});
    out.values(states.data(), states.size());
    for (const Slot slot : held) {
        if (fine_) {
            out.values(fine_rows_->row(slot), fine_->row_bytes());
        }
    }
    if (learned) {
        out.values(codec_.centre().data(), codec_.centre().size());
        for (const Slot slot : held) {
            out.values(row_of(slot), codec_.row_bytes());
        }
        save_more(out, held);
    }
    return out.take();
}

IndexOptions SlotIndex::read_head(IndexReader& in) {
    char begin[sizeof magic];
    in.values(begin, sizeof begin);
    require_bytes(std::equal(std::begin(begin), std::end(begin), std::begin(magic)), "it does not begin as one");
    if (const auto found = in.fixed<std::uint32_t>(); found != version) {
        refuse_bytes("its version is " + std::to_string(found) + ", this program reads version " +
                     std::to_string(version));
    }
    const auto head = in.fixed<Head>();
    require_bytes(head.kind >= 1 && head.kind <= static_cast<std::uint32_t>(IndexKind::graph), "its kind is unknown");
    require_bytes(head.metric <= static_cast<std::uint32_t>(Metric::l2), "its metric is unknown");
    require_bytes(head.storage <= static_cast<std::uint32_t>(Storage::bit1), "its storage is unknown");
    require_bytes(head.rerank == no_rerank || head.rerank <= static_cast<std::uint32_t>(Storage::int4),
                  "its second form is unknown");
    IndexOptions options;
    options.kind = static_cast<IndexKind>(head.kind);
    options.dimension = head.dimension;
    options.metric = static_cast<Metric>(head.metric);
    options.storage = static_cast<Storage>(head.storage);
    if (head.rerank != no_rerank) {
        options.rerank = static_cast<Storage>(head.rerank);
    }
    options.rerank_factor = head.rerank_factor;
    options.lists = head.lists;
    options.links = head.links;
    options.build_effort = head.build_effort;
    options.removed_share_max = head.removed_share_max;
    return options;
}

void SlotIndex::load(IndexReader& in) {
    const auto learned = in.fixed<std::uint8_t>();
    require_bytes(learned == 1 || (learned == 0 && options_.storage == Storage::bit1),
                  "its codec is in no known state");
    const auto end = in.fixed<std::uint64_t>();
    in.require_left(end, 1);
    require_bytes(end <= std::uint64_t{slot_max} + 1, "it has too many slots");
    std::vector<std::uint8_t> states(end);
    in.values(states.data(), states.size());
    const bool removed_may_be = keeps_removed() && learned == 1;
    std::vector<Slot> held;
    std::vector<Slot> lives;
    std::vector<bool> live;
    for (std::size_t i = 0; i < states.size(); ++i) {
        require_bytes(states[i] == 0 || states[i] == live_state || (states[i] == removed_state && removed_may_be),
                      "a state is unknown");
        if (states[i] != 0) {
            held.push_back(static_cast<Slot>(i));
            live.push_back(states[i] == live_state);
            if (live.back()) {
                lives.push_back(held.back());
            }
        }
    }
    require_bytes(learned == 1 || held.size() < learn_min, "its codec should have learned");
    in.require_left(held.size(), (learned == 1 ? codec_.row_bytes() : 0) + (fine_ ? fine_->row_bytes() : 0));
    reserve_slots(held.empty() ? 0 : std::size_t{held.back()} + 1);
    load_fine_rows(in, held);
    if (learned == 1) {
        load_codec_rows(in, held, live);
    }
    learned_.store(learned == 1, std::memory_order_release);
    in.finish();
    for (const Slot slot : held) {
        held_[slot] = true;
    }
    if (!held.empty()) {
        slot_end_.store(std::size_t{held.back()} + 1, std::memory_order_relaxed);
        held_count_.store(held.size() - lives.size(), std::memory_order_relaxed);
    }
    if (!lives.empty()) {
        publish(lives);
    }
}

void SlotIndex::load_fine_rows(IndexReader& in, std::span<const Slot> held) {
    for (const Slot slot : held) {
        if (fine_) {
            in.values(fine_rows_->row(slot), fine_->row_bytes());
            const char* flaw = fine_->flaw(fine_rows_->row(slot));
            require_bytes(flaw == nullptr, flaw);
        }
    }
}

void SlotIndex::load_codec_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live) {
    std::vector<float> centre(codec_.centre().size());
    in.values(centre.data(), centre.size());
    require_bytes(std::all_of(centre.begin(), centre.end(), [](float x) { return std::fabs(x) <= length_max; }),
                  "its centre is not finite");
    codec_.set_centre(centre);
    in.require_left(held.size(), codec_.row_bytes());
    std::vector<std::byte> rows(held.size() * codec_.row_bytes());
    in.values(rows.data(), rows.size());
    for (std::size_t i = 0; i < held.size(); ++i) {
        const char* flaw = codec_.flaw(rows.data() + i * codec_.row_bytes());
        require_bytes(flaw == nullptr, flaw);
    }
    load_rows(in, held, live, rows);
}

}  // namespace sage::vdb
