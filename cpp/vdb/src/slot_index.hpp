// What flat, hnsw and ivf_flat share: which slots are live, who may still read them, checks, scores. Internal.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "byte_stream.hpp"
#include "exact_scan.hpp"
#include "sage/common/epoch.hpp"
#include "sage/vdb/index.hpp"
#include "sage/vdb/slot_set.hpp"
#include "slot_array.hpp"

namespace sage::vdb {

// Calls work(i) for 0 <= i < count on several threads, `claim` at a time; the first failure is passed on.
void share_work(std::size_t count, std::size_t threads, std::size_t claim,
                const std::function<void(std::size_t)>& work);

using IndexReader = ByteReader<InvalidArgument>;

inline constexpr const char* saved_index = "not a saved index";
[[noreturn]] void refuse_bytes(const std::string& why);
void require_bytes(bool holds, const char* why);

inline bool is_allowed(const Allowed& allowed, Slot slot) {
    return slot / 64 < allowed.size() && (allowed[slot / 64] >> (slot % 64) & 1U) != 0;
}

// What one search needs, kept between searches of a thread.
struct SearchScratch {
    AlignedVector<float> values;
    RowCodec::Query query;
    RowCodec::Query fine_query;
    TopK best{0};
    std::vector<const std::byte*> rows;
    std::vector<float> costs;
};

class SlotIndex : public Index {
public:
    static constexpr std::size_t dimension_max = 65536;
    // Squares of such lengths, and their sums and differences, are finite.
    static constexpr float length_max = 6.5e18F;
    // So many vectors a codec that learns has to have seen; fewer are compared in their fine form.
    static constexpr std::size_t learn_min = 256;

    void insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) override;
    std::size_t remove(std::span<const Slot> slots) override;
    void consolidate(std::size_t threads) override;
    std::vector<Slot> take_free() override;
    using Index::search;
    std::size_t search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                       const Allowed* allowed) const override;
    void search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                      std::size_t* counts, std::size_t threads, const Allowed* allowed) const override;
    [[nodiscard]] Hits range_search(std::span<const float> query, float radius, std::size_t effort,
                                    const Allowed* allowed) const override;
    [[nodiscard]] bool contains(Slot slot) const override;
    bool get(Slot slot, std::span<float> vector) const override;
    [[nodiscard]] std::size_t size() const override;
    [[nodiscard]] std::size_t dimension() const noexcept override { return options_.dimension; }
    [[nodiscard]] Metric metric() const noexcept override { return options_.metric; }
    [[nodiscard]] IndexStats stats() const override;
    [[nodiscard]] std::vector<std::byte> save() const override;

    void load(IndexReader& in);
    // The head of a file, up to what load() reads.
    [[nodiscard]] static IndexOptions read_head(IndexReader& in);

protected:
    explicit SlotIndex(const IndexOptions& options);

    // --- what a kind has to say
    // Takes rows whose fine forms are stored already; they become live afterwards.
    virtual void place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) = 0;
    // They are live no more. A kind that keeps them calls retire() later.
    virtual void drop(std::span<const Slot> slots) = 0;
    virtual void tidy(std::size_t /*threads*/) {}
    // Slots may be used again: what was kept under them is read by nobody.
    virtual void release(std::span<const Slot> /*slots*/) {}
    // The candidates with the lowest costs of the codec, about `best`'s k.
    virtual void find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const = 0;
    // The row of the codec, of a slot that is held; nullptr when it is gone.
    [[nodiscard]] virtual const std::byte* row_of(Slot slot) const = 0;
    // Memory for the row of a slot that is being loaded.
    [[nodiscard]] virtual std::size_t kept_bytes() const = 0;
    virtual void save_more(ByteWriter& /*out*/, std::span<const Slot> /*held*/) const {}
    // Links what was loaded: `vectors` are the decoded rows of `held`.
    virtual void load_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                           std::span<const std::byte> rows) = 0;
    // Whether removed rows go into a file.
    [[nodiscard]] virtual bool keeps_removed() const { return false; }

    // --- for the kinds
    void reserve_slots(std::size_t end);
    void retire(std::span<const Slot> slots);
    [[nodiscard]] bool is_live(Slot slot) const {
        return (live_.row(slot / 64)->load(std::memory_order_acquire) >> (slot % 64) & 1U) != 0;
    }
    [[nodiscard]] std::uint64_t live_word(std::size_t word) const {
        return live_.row(static_cast<Slot>(word))->load(std::memory_order_acquire);
    }
    [[nodiscard]] bool is_held(Slot slot) const { return slot < held_.size() && held_[slot]; }
    [[nodiscard]] std::size_t slot_end() const { return slot_end_.load(std::memory_order_acquire); }
    void check_queries(std::span<const float> queries, std::size_t k, const char* what) const;
    void normalise(std::span<float> vectors) const;
    [[nodiscard]] float score_of(float cost) const;
    // How many candidates of the codec k hits need.
    [[nodiscard]] std::size_t candidates(std::size_t k) const;
    // Gives the best k of the candidates, scored as the caller knows them.
    std::size_t rank(SearchScratch& scratch, TopK& found, std::size_t k, Slot* slots, float* scores) const;
    std::size_t search_prepared(SearchScratch& scratch, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                                const Allowed* allowed) const;
    static SearchScratch& scratch_of_thread();
    void look_at_allowed(SearchScratch& scratch, const Allowed& allowed, TopK& best) const;
    // Costs of rows that mostly follow one another, `stride` bytes apart; fetches what comes behind them.
    void costs_in_order(const RowCodec::Query& query, const std::byte* const* rows, std::size_t count,
                        std::size_t stride, float* costs) const;
    [[nodiscard]] std::string storage_text() const;

    const IndexOptions options_;
    RowCodec codec_;
    std::unique_ptr<RowCodec> fine_;
    std::unique_ptr<SlotArray<std::byte>> fine_rows_;
    mutable Epochs epochs_;
    std::atomic<std::size_t> live_count_{0};
    std::atomic<std::size_t> held_count_{0};

private:
    void check_insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) const;
    void learn(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads);
    void publish(std::span<const Slot> slots);
    void reclaim();
    // Whether the codec is ready and what is live was placed.
    [[nodiscard]] bool has_learned() const { return learned_.load(std::memory_order_acquire); }
    void look_at_fine(SearchScratch& scratch, const Allowed* allowed, TopK& best) const;
    void load_fine_rows(IndexReader& in, std::span<const Slot> held);
    void load_codec_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live);

    std::atomic<bool> learned_;
    SlotArray<std::atomic<std::uint64_t>> live_{1};
    std::atomic<std::size_t> slot_end_{0};
    // Of the writer alone.
    struct Retired {
        Slot slot;
        bool placed;
        Epochs::Ticket ticket;
    };
    std::vector<bool> held_;
    std::deque<Retired> retired_;
    std::vector<Slot> freed_;
};

// A range search by searches for ever more neighbours.
Hits search_until(const Index& index, std::span<const float> query, float radius, std::size_t effort,
                  const Allowed* allowed);

std::unique_ptr<SlotIndex> make_flat_rows(const IndexOptions& options, std::string why);
std::unique_ptr<SlotIndex> make_ivf_index(const IndexOptions& options);
std::unique_ptr<SlotIndex> make_hnsw_index(const IndexOptions& options);

}  // namespace sage::vdb
