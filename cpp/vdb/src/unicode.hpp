// The part of Unicode that the tokenizer needs. Internal.
#pragma once

#include <string>
#include <string_view>

namespace sage::vdb::unicode {

// Appends the characters of `text` to `out`; bytes that are no UTF-8 give U+FFFD, one each.
void decode(std::string_view text, std::u32string& out);
// Normalization form KC. `scratch` is for reuse.
void normalize_kc(std::u32string& text, std::u32string& scratch);
// Full case folding, as Python's str.casefold.
void fold_case(std::u32string& text, std::u32string& scratch);
// Letters, digits and other numbers, as Python's str.isalnum.
[[nodiscard]] bool is_word(char32_t character) noexcept;

}  // namespace sage::vdb::unicode
