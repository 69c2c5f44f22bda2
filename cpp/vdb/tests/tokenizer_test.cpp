#include "sage/vdb/tokenizer.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace sage::vdb {
namespace {

std::vector<std::string> tokens_of(std::string_view text) {
    Tokenizer tokenizer;
    std::vector<std::string> tokens;
    for (const std::string_view token : tokenizer.tokens(text)) {
        tokens.emplace_back(token);
    }
    return tokens;
}

using Tokens = std::vector<std::string>;

TEST(Tokenizer, KnowsTheExamplesOfItsPythonTwin) {
    EXPECT_EQ(tokens_of("The Operator's key_by() in Straße"),
              (Tokens{"the", "operator", "key", "by", "in", "strasse"}));
    EXPECT_EQ(tokens_of("東京都 is big"), (Tokens{"東京", "京都", "is", "big"}));
    EXPECT_EQ(tokens_of("don’t 'tis rock'n'roll 日"), (Tokens{"don't", "tis", "rock'n", "roll", "日"}));
    EXPECT_EQ(tokens_of(""), Tokens{});
}

// Line by line: a text, a tab, the tokens that Python's tokenize() gave, separated by spaces. Written by
// tools/golden_tokens.py.
TEST(Tokenizer, GivesTheTokensOfItsPythonTwin) {
    std::ifstream file(SAGE_TEST_DATA "/tokens.txt");
    ASSERT_TRUE(file.good());
    std::size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines) {
        const std::size_t tab = line.find('\t');
        ASSERT_NE(tab, std::string::npos);
        std::string found;
        for (const std::string& token : tokens_of(std::string_view(line).substr(0, tab))) {
            found += (found.empty() ? "" : " ") + token;
        }
        ASSERT_EQ(found, line.substr(tab + 1)) << "line " << lines + 1;
    }
    EXPECT_GT(lines, 1'000U);
}

TEST(Tokenizer, TakesWhatIsNotUtf8AsSeparators) {
    EXPECT_EQ(tokens_of("a\xFF" "b"), (Tokens{"a", "b"}));
    EXPECT_EQ(tokens_of("a\xC0\xAF" "b"), (Tokens{"a", "b"}));          // overlong
    EXPECT_EQ(tokens_of("a\xED\xA0\x80" "b"), (Tokens{"a", "b"}));      // a surrogate
    EXPECT_EQ(tokens_of("a\xF4\x90\x80\x80" "b"), (Tokens{"a", "b"}));  // beyond the last character
    EXPECT_EQ(tokens_of("\xC3\xA9\xC3"), (Tokens{"é"}));                // cut off
}

}  // namespace
}  // namespace sage::vdb
