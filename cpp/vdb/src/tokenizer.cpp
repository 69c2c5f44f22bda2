#include "sage/vdb/tokenizer.hpp"

#include <algorithm>
#include <array>

#include "unicode.hpp"

namespace sage::vdb {
namespace {

constexpr char32_t curly_apostrophe = 0x2019;

constexpr bool is_cjk(char32_t c) noexcept {
    return c >= 0x3040 && ((c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
                           (c >= 0xAC00 && c <= 0xD7AF) || (c >= 0xF900 && c <= 0xFAFF));
}

// The lower-case letter or digit, 0 for everything else.
constexpr std::array<char, 256> ascii_word = [] {
    std::array<char, 256> table{};
    for (char c = '0'; c <= '9'; ++c) {
        table[static_cast<unsigned char>(c)] = c;
    }
    for (char c = 'a'; c <= 'z'; ++c) {
        table[static_cast<unsigned char>(c)] = c;
        table[static_cast<unsigned char>(c) - 32U] = c;
    }
    return table;
}();

char folded(char c) noexcept { return ascii_word[static_cast<unsigned char>(c)]; }

bool is_word(char32_t c) noexcept {
    return c < 0x80 ? ascii_word[c] != 0 : unicode::is_word(c) && !is_cjk(c);
}

}  // namespace

std::span<const std::string_view> Tokenizer::tokens(std::string_view text) {
    bytes_.clear();
    places_.clear();
    tokens_.clear();
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
        split_ascii(text);
    } else {
        split(text);
    }
    for (const auto& [first, length] : places_) {
        tokens_.push_back(std::string_view(bytes_).substr(first, length));
    }
    return tokens_;
}

// What was appended since `first` is a token.
void Tokenizer::emit(std::size_t first) {
    if (std::string_view(bytes_).substr(first).ends_with("'s")) {
        bytes_.resize(bytes_.size() - 2);
    }
    places_.emplace_back(first, bytes_.size() - first);
}

void Tokenizer::split_ascii(std::string_view text) {
    std::size_t at = 0;
    const auto word = [&] {
        for (; at < text.size() && folded(text[at]) != 0; ++at) {
            bytes_ += folded(text[at]);
        }
    };
    while (at < text.size()) {
        if (folded(text[at]) == 0) {
            ++at;
            continue;
        }
        const std::size_t first = bytes_.size();
        word();
        if (at + 1 < text.size() && text[at] == '\'' && folded(text[at + 1]) != 0) {
            bytes_ += '\'';
            ++at;
            word();
        }
        emit(first);
    }
}

void Tokenizer::append(char32_t c) {
    const auto byte = [this](char32_t value) { bytes_ += static_cast<char>(static_cast<unsigned char>(value)); };
    if (c < 0x80) {
        byte(c);
    } else if (c < 0x800) {
        byte(0xC0U | (c >> 6U));
        byte(0x80U | (c & 0x3FU));
    } else if (c < 0x10000) {
        byte(0xE0U | (c >> 12U));
        byte(0x80U | ((c >> 6U) & 0x3FU));
        byte(0x80U | (c & 0x3FU));
    } else {
        byte(0xF0U | (c >> 18U));
        byte(0x80U | ((c >> 12U) & 0x3FU));
        byte(0x80U | ((c >> 6U) & 0x3FU));
        byte(0x80U | (c & 0x3FU));
    }
}

void Tokenizer::split(std::string_view text) {
    characters_.clear();
    unicode::decode(text, characters_);
    unicode::normalize_kc(characters_, scratch_);
    unicode::fold_case(characters_, scratch_);
    const std::u32string& all = characters_;
    std::size_t at = 0;
    const auto word = [&] {
        for (; at < all.size() && is_word(all[at]); ++at) {
            append(all[at]);
        }
    };
    while (at < all.size()) {
        const std::size_t first = bytes_.size();
        if (is_cjk(all[at])) {
            const std::size_t begin = at;
            while (at < all.size() && is_cjk(all[at])) {
                ++at;
            }
            // One character alone is a token, too.
            for (std::size_t place = begin; place == begin || place + 1 < at; ++place) {
                const std::size_t start = bytes_.size();
                append(all[place]);
                if (place + 1 < at) {
                    append(all[place + 1]);
                }
                places_.emplace_back(start, bytes_.size() - start);
            }
        } else if (is_word(all[at])) {
            word();
            const bool apostrophe = at + 1 < all.size() && (all[at] == U'\'' || all[at] == curly_apostrophe);
            if (apostrophe && is_word(all[at + 1])) {
                bytes_ += '\'';
                ++at;
                word();
            }
            emit(first);
        } else {
            ++at;
        }
    }
}

}  // namespace sage::vdb
