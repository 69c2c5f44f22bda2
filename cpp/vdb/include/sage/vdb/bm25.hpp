// Full-text search with BM25 scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {

namespace detail {
struct Bm25State;
struct Bm25Shared;
}  // namespace detail

struct Bm25Options {
    double k1 = 1.2;  // how slowly repetition saturates, finite and >= 0
    double b = 0.75;  // how much length counts, 0 to 1
};

struct TextHit {
    Slot slot = 0;
    double score = 0;
    bool operator==(const TextHit&) const = default;
};

struct Bm25Stats {
    std::size_t documents = 0;
    std::size_t terms = 0;     // different tokens
    std::size_t postings = 0;  // pairs of a document and a token in it
    std::uint64_t tokens = 0;
    std::size_t bytes = 0;  // about
};

// The index as it was at one moment. Cheap to copy; any number of threads may search one.
class Bm25Snapshot {
public:
    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] bool contains(Slot slot) const noexcept;

    // The best k documents that share a token with `query`, best first; equal scores in order of their slots. Only slots
    // in `allowed`, if it is given. k = 0 is an error. Parts of the index that cannot reach the best k are passed over
    // by their bounds; the answer is that of search_all to the last bit.
    [[nodiscard]] std::vector<TextHit> search(std::string_view query, std::size_t k, const SlotSet* allowed = nullptr) const;
    // The same without passing anything over, for tests and comparisons.
    [[nodiscard]] std::vector<TextHit> search_all(std::string_view query, std::size_t k,
                                                  const SlotSet* allowed = nullptr) const;

    // ln(1 + (N - df + 0.5) / (df + 0.5)) of a token.
    [[nodiscard]] double idf(std::string_view token) const;
    [[nodiscard]] Bm25Options options() const noexcept;
    // Walks the index: for people, not for each query.
    [[nodiscard]] Bm25Stats stats() const;
    // The whole as a versioned buffer; see Bm25Index::load.
    [[nodiscard]] std::vector<std::byte> save() const;

private:
    friend class Bm25Index;
    explicit Bm25Snapshot(std::shared_ptr<const detail::Bm25State> state) : state_(std::move(state)) {}

    std::shared_ptr<const detail::Bm25State> state_;
};

// Changes that searches see all at once at commit(), or never. Made by Bm25Index::begin().
class Bm25Batch {
public:
    Bm25Batch(Bm25Batch&&) noexcept = default;
    Bm25Batch& operator=(Bm25Batch&&) = delete;
    ~Bm25Batch();

    // Adds the document, or replaces the one in this slot. A text without tokens is a document, too.
    void replace(Slot slot, std::string_view text);
    // Whether there was one.
    bool erase(Slot slot);
    void commit();

private:
    friend class Bm25Index;
    explicit Bm25Batch(std::shared_ptr<detail::Bm25Shared> shared);
    void require_open() const;

    std::shared_ptr<detail::Bm25Shared> shared_;  // nullptr after commit
    std::shared_ptr<detail::Bm25State> state_;
    std::uint64_t owner_ = 0;
};

// An inverted index that can be updated: documents by slot, tokens by Tokenizer.
//
// The score of a document is the sum over the query's tokens of
//     idf * tf / (tf + k1 * (1 - b + b * length / mean length)),   idf = ln(1 + (N - df + 0.5) / (df + 0.5))
// Lucene's form of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); a token that
// is twice in the query counts twice. Statistics are integers that are kept up to date: an index after any updates gives
// the very scores of one that is built afresh, and of sage.libs' BM25Index.
//
// Threads: one writer at a time (begin() refuses a second batch), any number of readers, who never wait for it: they
// take snapshots, and a commit swaps one pointer.
class Bm25Index {
public:
    static constexpr std::size_t document_bytes_max = std::size_t{1} << 28;

    explicit Bm25Index(Bm25Options options = {});

    [[nodiscard]] Bm25Snapshot snapshot() const;
    [[nodiscard]] Bm25Batch begin();

    // Batches of one.
    void replace(Slot slot, std::string_view text);
    bool erase(Slot slot);

    // What save() wrote. Everything is checked: Corruption for a damaged buffer, UnsupportedFormat for one that is none
    // of ours or newer.
    [[nodiscard]] static Bm25Index load(std::span<const std::byte> bytes);

private:
    std::shared_ptr<detail::Bm25Shared> shared_;
};

}  // namespace sage::vdb
