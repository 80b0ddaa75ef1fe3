#include "text/unicode.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/rng.h"

namespace tailor {
namespace {

using std::string_literals::operator""s;
constexpr auto kValid = std::string_view::npos;

TEST(Utf8, FindsTheFirstByteThatIsNotWellFormed) {
  EXPECT_EQ(find_invalid_utf8(""), kValid);
  EXPECT_EQ(find_invalid_utf8("plain ASCII that is longer than a word \x7F"), kValid);
  EXPECT_EQ(find_invalid_utf8("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \xED\x9F\xBF \xEE\x80\x80 \xF4\x8F\xBF\xBF"),
            kValid);
  EXPECT_EQ(find_invalid_utf8("\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80"),
            kValid);  // ends of the ranges
  const std::vector<std::string> bad = {"\x80",
                                        "\xC0\x80",
                                        "\xC1\xBF",
                                        "\xE0\x9F\xBF",
                                        "\xED\xA0\x80",
                                        "\xF0\x8F\xBF\xBF",
                                        "\xF4\x90\x80\x80",
                                        "\xF5\x80\x80\x80",
                                        "\xFF",
                                        "\xC3",
                                        "\xE2\x82",
                                        "\xF0\x9F\x98",
                                        "\xC3(",
                                        "\xE2(\xA1"};
  for (const std::string& bytes : bad) {
    EXPECT_EQ(find_invalid_utf8(bytes), 0U);
    EXPECT_EQ(find_invalid_utf8("0123456789\xC3\xA9" + bytes + "x"), 12U);
  }
}

TEST(Utf8, CountsCodePoints) {
  EXPECT_EQ(count_code_points("abc"), 3U);
  EXPECT_EQ(count_code_points("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), 3U);
  EXPECT_EQ(count_code_points(""), 0U);
}

TEST(Unicode, TrimsUnicodeSpace) {
  EXPECT_EQ(trim(" \t\n a b \xC2\xA0\xE3\x80\x80\xEF\xBB\xBF"), "a b");
  EXPECT_EQ(trim("\xC3\xA9"), "\xC3\xA9");
  EXPECT_EQ(trim(" \n"), "");
  EXPECT_TRUE(is_blank("\xE2\x80\x8B \x01\xC2\xAD"));
  EXPECT_FALSE(is_blank("."));
  EXPECT_TRUE(is_blank(""));
}

TEST(Unicode, FoldsAsPythonsUnicodedata) {
  const char* const source = std::getenv("TAILOR_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const Json rows = read_json(std::filesystem::path(source) / "tests/golden/data/text_folding.json").value();
  ASSERT_GT(rows.size(), 20U);
  for (const Json& row : rows) {
    const auto text = row["text"].get<std::string>();
    EXPECT_EQ(nfc(text), row["nfc"].get<std::string>()) << text;
    EXPECT_EQ(fold(text), row["fold"].get<std::string>()) << text;
    EXPECT_EQ(duplicate_key(text), row["key"].get<std::string>()) << text;
  }
}

TEST(Unicode, SkeletonKeepsLettersAndDigits) {
  EXPECT_EQ(skeleton("  Can't   PAY: \xC2\xA3"
                     "3.50!"),
            "can t pay 3 50");
  EXPECT_EQ(skeleton("caf\xC3\xA9-bar"), "caf\xC3\xA9 bar");
  EXPECT_EQ(skeleton("?!  \xF0\x9F\x98\x80"), "?! \xF0\x9F\x98\x80");
  EXPECT_EQ(skeleton("\xE0\xA4\xB9\xE0\xA4\xBF"), "\xE0\xA4\xB9\xE0\xA4\xBF");  // a vowel sign is a mark
  EXPECT_EQ(skeleton(""), "");
}

TEST(Words, AnnexTwentyNine) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words("Can't pay \xC2\xA3"
                  "3.50 on two-bed"),
            (Words{"can't", "pay", "3.50", "on", "two", "bed"}));
  EXPECT_EQ(words("don\xE2\x80\x99t"), (Words{"don't"}));
  EXPECT_EQ(words("a_b x. 1,000;5 e.g. 'quoted' 12b ___ _x"),
            (Words{"a_b", "x", "1,000;5", "e.g", "quoted", "12b", "_x"}));
  EXPECT_EQ(words("great \xF0\x9F\x91\x8D!"), (Words{"great", "\xF0\x9F\x91\x8D"}));
  EXPECT_EQ(words("\xE6\x88\x91\xE7\x9A\x84\xE9\x93\xB6\xE8\xA1\x8C\xE5\x8D\xA1"),
            (Words{"\xE6\x88\x91\xE7\x9A\x84", "\xE9\x93\xB6\xE8\xA1\x8C", "\xE5\x8D\xA1"}));
  EXPECT_EQ(words(""), Words{});
}

TEST(Words, FastPathEqualsIcu) {
  constexpr std::string_view kCharacters = "abzAZ019__..,,;;''\"::--  \t\n!@/&\x01";
  Rng rng(17);
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (std::uint64_t n = rng.below(14); n > 0; --n) text += kCharacters[rng.below(kCharacters.size())];
    auto through_icu = words(text + " \xC3\xA9");  // the accent sends the whole text to ICU
    through_icu.pop_back();
    ASSERT_EQ(words(text), through_icu) << text;
  }
}

TEST(Display, OneLineIsSafeForATerminal) {
  EXPECT_EQ(one_line("a\x1B[31mb\r\n c\x07"), "a [31mb c");
  EXPECT_EQ(one_line("x\xE2\x80\xAEy"), "x y");
  EXPECT_EQ(one_line("bad \xFF\xC3"), "bad \xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Display, ShortenCutsAtACharacter) {
  EXPECT_EQ(shorten("caf\xC3\xA9", 4), "caf\xC3\xA9");
  EXPECT_EQ(shorten("caf\xC3\xA9s", 4), "caf\xE2\x80\xA6");
  EXPECT_EQ(shorten("one two", 5), "one\xE2\x80\xA6");
  EXPECT_EQ(count_code_points(shorten(std::string(10'000'000, 'x'), 60)), 60U);
  EXPECT_EQ(shorten("abc", 1), "\xE2\x80\xA6");
}

TEST(Display, EscapesHtml) {
  EXPECT_EQ(escape_html("<a href=\"x\">'&'\n\x01\xFF</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;\n\xEF\xBF\xBD\xEF\xBF\xBD&lt;/a&gt;");
  EXPECT_EQ(escape_html("caf\xC3\xA9\0"s), "caf\xC3\xA9\xEF\xBF\xBD");
}

}  // namespace
}  // namespace tailor
