// From text to the words that full-text search knows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sage::vdb {

// The very tokens of sage.libs' tokenize() without stemming and with stop words: the text is normalised (NFKC, Unicode
// 14) and case folded; a token is a run of letters and digits with at most one apostrophe inside, without a final 's;
// runs of Chinese, Japanese and Korean characters give their pairs of neighbours. Bytes that are no UTF-8 separate
// tokens.
//
// Threads: one object, one thread; it keeps its buffers from call to call.
class Tokenizer {
public:
    // In the order of the text. They last until the next call and as long as the object.
    [[nodiscard]] std::span<const std::string_view> tokens(std::string_view text);

private:
    void split_ascii(std::string_view text);
    void split(std::string_view text);
    void emit(std::size_t first);
    void append(char32_t character);

    std::string bytes_;  // of all tokens
    std::vector<std::pair<std::size_t, std::size_t>> places_;
    std::vector<std::string_view> tokens_;
    std::u32string characters_;
    std::u32string scratch_;
};

}  // namespace sage::vdb
