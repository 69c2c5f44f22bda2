#include "unicode.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

namespace sage::vdb::unicode {
namespace {

struct Mapping {
    char32_t from;
    std::uint16_t place;  // in the pool
    std::uint16_t length;
};
struct Range {
    char32_t first;
    char32_t last;
    std::uint8_t value;
};
struct Composition {
    char32_t first;
    char32_t second;
    char32_t composed;
};
#include "unicode_tables.inc"

// Hangul is arithmetic: The Unicode Standard, 3.12.
constexpr char32_t hangul = 0xAC00;
constexpr char32_t leading = 0x1100;
constexpr char32_t vowel = 0x1161;
constexpr char32_t trailing = 0x11A7;  // one below the first: 0 is "none"
constexpr char32_t leading_count = 19;
constexpr char32_t vowel_count = 21;
constexpr char32_t trailing_count = 28;
constexpr char32_t hangul_count = leading_count * vowel_count * trailing_count;

template <std::size_t N>
const Mapping* find(const Mapping (&table)[N], char32_t character) noexcept {
    const Mapping* found = std::lower_bound(std::begin(table), std::end(table), character,
                                            [](const Mapping& entry, char32_t wanted) { return entry.from < wanted; });
    return found == std::end(table) || found->from != character ? nullptr : found;
}

template <std::size_t N>
std::uint8_t value_of(const Range (&table)[N], char32_t character) noexcept {
    const Range* found = std::lower_bound(std::begin(table), std::end(table), character,
                                          [](const Range& range, char32_t wanted) { return range.last < wanted; });
    return found == std::end(table) || character < found->first ? 0 : found->value;
}

std::uint8_t combining_class(char32_t character) noexcept {
    return character < 0x300 ? 0 : value_of(combining_classes, character);
}

void decompose(char32_t character, std::u32string& out) {
    if (character >= hangul && character < hangul + hangul_count) {
        const char32_t index = character - hangul;
        out += leading + index / (vowel_count * trailing_count);
        out += vowel + index % (vowel_count * trailing_count) / trailing_count;
        if (index % trailing_count != 0) {
            out += trailing + index % trailing_count;
        }
    } else if (const Mapping* found = character < 0xA0 ? nullptr : find(decompositions, character)) {
        out.append(decompositions_pool + found->place, found->length);
    } else {
        out += character;
    }
}

// The character that both make, or 0.
char32_t compose(char32_t first, char32_t second) noexcept {
    if (first >= leading && first < leading + leading_count && second >= vowel && second < vowel + vowel_count) {
        return hangul + ((first - leading) * vowel_count + (second - vowel)) * trailing_count;
    }
    if (first >= hangul && first < hangul + hangul_count && (first - hangul) % trailing_count == 0 && second > trailing &&
        second < trailing + trailing_count) {
        return first + (second - trailing);
    }
    const Composition* found =
        std::lower_bound(std::begin(compositions), std::end(compositions), std::pair{first, second},
                         [](const Composition& entry, const std::pair<char32_t, char32_t>& wanted) {
                             return std::pair{entry.first, entry.second} < wanted;
                         });
    const bool known = found != std::end(compositions) && found->first == first && found->second == second;
    return known ? found->composed : 0;
}

}  // namespace

void decode(std::string_view text, std::u32string& out) {
    constexpr char32_t replacement = 0xFFFD;
    constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
    std::size_t at = 0;
    while (at < text.size()) {
        const auto first = static_cast<unsigned char>(text[at]);
        const std::size_t length = first < 0x80 ? 1 : first >> 5U == 6 ? 2 : first >> 4U == 14 ? 3 : first >> 3U == 30 ? 4 : 0;
        char32_t character = length <= 1 ? first : first & (0x7FU >> length);
        bool valid = length > 0 && length <= text.size() - at;
        for (std::size_t i = 1; valid && i < length; ++i) {
            const auto next = static_cast<unsigned char>(text[at + i]);
            valid = next >> 6U == 2;
            character = (character << 6U) | (next & 0x3FU);
        }
        valid = valid && character >= least[length] && character <= 0x10FFFF && (character < 0xD800 || character > 0xDFFF);
        out += valid ? character : replacement;
        at += valid ? length : 1;
    }
}

void normalize_kc(std::u32string& text, std::u32string& scratch) {
    scratch.clear();
    for (const char32_t character : text) {
        decompose(character, scratch);
    }
    // Canonical order: marks of one run by class.
    for (std::size_t first = 0; first < scratch.size(); ++first) {
        if (combining_class(scratch[first]) == 0) {
            continue;
        }
        std::size_t last = first;
        while (last < scratch.size() && combining_class(scratch[last]) != 0) {
            ++last;
        }
        std::stable_sort(scratch.begin() + static_cast<std::ptrdiff_t>(first),
                         scratch.begin() + static_cast<std::ptrdiff_t>(last),
                         [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
        first = last;
    }
    text.clear();
    std::size_t starter = std::u32string::npos;
    std::uint8_t last_class = 0;  // of what lies between the starter and here, 0: nothing does
    for (const char32_t character : scratch) {
        const std::uint8_t now = combining_class(character);
        if (starter != std::u32string::npos && (starter + 1 == text.size() || (last_class != 0 && last_class < now))) {
            if (const char32_t composed = compose(text[starter], character)) {
                text[starter] = composed;
                continue;
            }
        }
        if (now == 0) {
            starter = text.size();
        }
        last_class = now;
        text += character;
    }
}

void fold_case(std::u32string& text, std::u32string& scratch) {
    scratch.clear();
    for (const char32_t character : text) {
        if (character < 0x80) {
            scratch += character >= U'A' && character <= U'Z' ? character + 32 : character;
        } else if (const Mapping* found = find(folds, character)) {
            scratch.append(folds_pool + found->place, found->length);
        } else {
            scratch += character;
        }
    }
    text.swap(scratch);
}

bool is_word(char32_t character) noexcept { return value_of(word_characters, character) != 0; }

}  // namespace sage::vdb::unicode
