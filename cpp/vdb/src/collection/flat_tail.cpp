#include "collection/flat_tail.hpp"

#include <algorithm>
#include <array>
#include <new>

#include "top_k.hpp"

namespace sage::vdb::detail {
namespace {

constexpr std::uint32_t block_rows = 64;  // divides the sizes of SlotArray's chunks: a block is contiguous

template <class T>
void fill_with(T* memory, std::size_t count, typename T::value_type value) {
    for (std::size_t i = 0; i < count; ++i) {
        new (memory + i) T(value);
    }
}

}  // namespace

FlatTail::FlatTail(std::size_t dimension, Metric metric)
    : dimension_(dimension),
      metric_(metric),
      kernels_(distance::kernels()),
      rows_(dimension),
      slots_(1),
      places_(1) {}

std::uint32_t FlatTail::place_of(Slot slot) const {
    return slot < slot_end_.load(std::memory_order_acquire) ? places_.row(slot)->load(std::memory_order_acquire)
                                                            : no_place;
}

void FlatTail::reclaim() {
    while (!retired_.empty() && epochs_.passed(retired_.front().ticket)) {
        free_.insert(retired_.front().place);
        retired_.pop_front();
    }
    std::uint32_t end = end_.load(std::memory_order_relaxed);
    while (!free_.empty() && *free_.rbegin() + 1 == end) {
        free_.erase(std::prev(free_.end()));
        --end;
    }
    end_.store(end, std::memory_order_release);
}

std::uint32_t FlatTail::take_place() {
    if (!free_.empty()) {
        const std::uint32_t place = *free_.begin();
        free_.erase(free_.begin());
        return place;
    }
    const std::uint32_t place = end_.load(std::memory_order_relaxed);
    if (place >= room_) {
        rows_.reserve(std::size_t{place} + 1, [](float*, std::size_t) {});
        slots_.reserve(std::size_t{place} + 1, [](std::atomic<Slot>* memory, std::size_t count) {
            fill_with(memory, count, no_head);
        });
        room_ = place + 1;
    }
    return place;
}

void FlatTail::insert(std::span<const Slot> slots, std::span<const float> vectors) {
    reclaim();
    Slot above = slot_end_.load(std::memory_order_relaxed);
    for (const Slot slot : slots) {
        above = std::max(above, slot + 1);
    }
    places_.reserve(above, [](std::atomic<std::uint32_t>* memory, std::size_t count) {
        fill_with(memory, count, no_place);
    });
    slot_end_.store(above, std::memory_order_release);
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const std::uint32_t place = take_place();
        std::copy_n(vectors.data() + i * dimension_, dimension_, rows_.row(place));
        slots_.row(place)->store(slots[i], std::memory_order_release);
        places_.row(slots[i])->store(place, std::memory_order_release);
        if (place == end_.load(std::memory_order_relaxed)) {
            end_.store(place + 1, std::memory_order_release);
        }
    }
    size_.fetch_add(slots.size(), std::memory_order_acq_rel);
}

std::size_t FlatTail::remove(std::span<const Slot> slots) {
    std::vector<std::uint32_t> gone;
    for (const Slot slot : slots) {
        const std::uint32_t place = place_of(slot);
        if (place != no_place) {
            places_.row(slot)->store(no_place, std::memory_order_release);
            slots_.row(place)->store(no_head, std::memory_order_release);
            gone.push_back(place);
        }
    }
    if (!gone.empty()) {
        size_.fetch_sub(gone.size(), std::memory_order_acq_rel);
        const Epochs::Ticket ticket = epochs_.ticket();
        for (const std::uint32_t place : gone) {
            retired_.push_back({ticket, place});
        }
    }
    reclaim();
    return gone.size();
}

void FlatTail::score_block(const float* query, std::uint32_t first, std::uint32_t count, float* scores) const {
    const float* rows = rows_.row(first);
    if (metric_ == Metric::l2) {
        kernels_.l2_squared_rows(query, rows, count, dimension_, scores);
    } else {
        kernels_.inner_product_rows(query, rows, count, dimension_, scores);
    }
}

std::size_t FlatTail::search(std::span<const float> query, std::size_t k, const Words* allowed, Slot* slots,
                             float* scores) const {
    const Epochs::Guard guard = epochs_.enter();
    const std::uint32_t end = end_.load(std::memory_order_acquire);
    TopK best(std::min<std::size_t>(k, end));
    const bool higher = higher_is_better(metric_);
    std::array<Slot, block_rows> held{};
    std::array<float, block_rows> found{};
    for (std::uint32_t first = 0; first < end; first += block_rows) {
        const std::uint32_t count = std::min(block_rows, end - first);
        for (std::uint32_t i = 0; i < count; ++i) {
            const Slot slot = slots_.row(first + i)->load(std::memory_order_acquire);
            const bool take = slot != no_head && (allowed == nullptr || (slot / 64 < allowed->size() &&
                                                                         (((*allowed)[slot / 64] >> (slot % 64)) & 1U) != 0));
            held[i] = take ? slot : no_head;
        }
        // Runs of rows that are wanted: the others may be written to at this moment.
        for (std::uint32_t i = 0; i < count;) {
            std::uint32_t run_end = i;
            while (run_end < count && held[run_end] != no_head) {
                ++run_end;
            }
            if (run_end > i) {
                score_block(query.data(), first + i, run_end - i, &found[i]);
                for (; i < run_end; ++i) {
                    best.push(higher ? -found[i] : found[i], held[i]);
                }
            } else {
                ++i;
            }
        }
    }
    const auto sorted = best.sorted();
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        slots[i] = static_cast<Slot>(sorted[i].id);
        scores[i] = higher ? -sorted[i].cost : sorted[i].cost;
    }
    return sorted.size();
}

const float* FlatTail::row(Slot slot) const {
    const std::uint32_t place = place_of(slot);
    return place == no_place ? nullptr : rows_.row(place);
}

bool FlatTail::get(Slot slot, std::span<float> vector) const {
    const Epochs::Guard guard = epochs_.enter();
    const float* found = row(slot);
    if (found != nullptr) {
        std::copy_n(found, dimension_, vector.data());
    }
    return found != nullptr;
}

std::size_t FlatTail::memory_bytes() const {
    return std::size_t{end_.load(std::memory_order_acquire)} * (dimension_ * sizeof(float) + sizeof(Slot)) +
           std::size_t{slot_end_.load(std::memory_order_acquire)} * sizeof(std::uint32_t);
}

std::vector<Slot> FlatTail::first(std::size_t count) const {
    std::vector<Slot> all;
    const std::uint32_t end = end_.load(std::memory_order_acquire);
    for (std::uint32_t place = 0; place < end && all.size() < count; ++place) {
        const Slot slot = slots_.row(place)->load(std::memory_order_acquire);
        if (slot != no_head) {
            all.push_back(slot);
        }
    }
    return all;
}

}  // namespace sage::vdb::detail
