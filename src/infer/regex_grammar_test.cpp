#include "infer/regex_grammar.h"

#include <gtest/gtest.h>

#include <regex>

#include "infer/test_constraints.h"

namespace tailor {
namespace {

using testing::allows;
using testing::expect_error;

std::shared_ptr<const Constraint> compiled(const std::string& pattern) {
  return testing::smollm_compiler().compile(testing::text_spec(ConstraintSpec::Kind::kRegex, pattern)).value();
}

/// An expression over a few letters, drawn at random.
std::string expression(Rng& rng, int depth) {
  const auto pick = [&](std::initializer_list<const char*> of) {
    return std::string(of.begin()[rng.below(of.size())]);
  };
  std::string out;
  for (std::uint64_t parts = 1 + rng.below(3); parts > 0; --parts) {
    std::string atom = pick({"a", "b", "c", "[ab]", "[^a]", "\\d", "\\w", ".", "1", "-"});
    if (depth > 0 && rng.below(2) == 0) {
      atom = pick({"(", "(?:"}) + expression(rng, depth - 1);
      if (rng.below(2) == 0) atom += "|" + expression(rng, depth - 1);
      atom += ")";
    }
    out += atom + pick({"", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}", "*?"});
  }
  return out;
}

bool ends(const Automaton& automaton, std::string_view text) {
  std::size_t state = 0;
  for (const char c : text) {
    const auto& edges = automaton.states[state].edges;
    const auto edge =
        std::find_if(edges.begin(), edges.end(), [c](const auto& e) { return holds(e.on, static_cast<char32_t>(c)); });
    if (edge == edges.end()) return false;
    state = edge->to;
  }
  return automaton.states[state].ends;
}

/// std::regex is another reader of the same language.
TEST(RegexGrammar, AgreesWithTheStandardLibrary) {
  Rng rng(7);
  int matched = 0, refused = 0, large = 0;
  for (int round = 0; round < 200; ++round) {
    const std::string pattern = expression(rng, 2);
    const std::regex reference(pattern, std::regex::ECMAScript);
    const auto automaton = regex_automaton(pattern);
    if (!automaton) {  // ".*a.{2}" within repetitions: a state for each set of places where an "a" stood
      expect_error(automaton, ErrorCode::kInvalidArgument, "more than 4000 states");
      ++large;
      continue;
    }
    for (int i = 0; i < 50; ++i) {
      std::string text;
      for (std::uint64_t n = rng.below(6); n > 0; --n) text += "abc1-"[rng.below(5)];
      const bool match = std::regex_match(text, reference);
      (match ? matched : refused) += 1;
      EXPECT_EQ(ends(*automaton, text), match) << pattern << " with \"" << text << '"';
    }
  }
  EXPECT_GT(matched, 500);
  EXPECT_GT(refused, 500);
  EXPECT_LT(large, 5);
}

TEST(RegexGrammar, KnowsItsClassesAndEscapes) {
  const auto all = [](const std::string& pattern, std::initializer_list<const char*> yes,
                      std::initializer_list<const char*> no) {
    const auto constraint = compiled(pattern);
    for (const char* text : yes) EXPECT_TRUE(allows(constraint, text)) << pattern << " with " << text;
    for (const char* text : no) EXPECT_FALSE(allows(constraint, text)) << pattern << " with " << text;
  };
  all("^\\s$", {" ", "\t", "\n", "\u00a0", "\u3000"}, {"a", "", "  "});
  all("\\S\\W", {"a.", "é "}, {" .", "ab"});
  all("[\\d\\-x]+", {"1-x"}, {"a"});
  all("[a-]", {"a", "-"}, {"b"});
  all("[^\\n]", {"a", "é", "\U0001f600"}, {"\n", ""});
  all(".", {"a", "\U0001f600"}, {"\n", "\r"});
  all("\\x41\\u00e9\\u{1f600}", {"Aé\U0001f600"}, {"A"});
  all("\\.\\*\\(\\)\\/\\\\", {".*()/\\"}, {"a"});
  all("(?<year>[0-9]{4})", {"2024"}, {"202"});
  all("^a|b$", {"a", "b"}, {"ab", "ca"});
  all("(a|)b", {"ab", "b"}, {"a"});
  all("", {""}, {"a"});
  all("é{2}", {"éé"}, {"é"});
}

TEST(RegexGrammar, RefusesWhatIsNotRegularOrTooLarge) {
  const std::pair<const char*, const char*> refusals[] = {
      {"(?=a)", "look-around"},
      {"(?!a)", "look-around"},
      {"(?<=a)", "look-around"},
      {"(?i)a", "look-around"},
      {"(a)\\1", "\"\\1\""},
      {"\\bword", "\"\\b\""},
      {"\\p{L}", "\"\\p\""},
      {"a^", "an anchor"},
      {"a$b", "an anchor"},
      {"(^a)", "an anchor"},
      {"*a", "repeats nothing"},
      {"a**", "is repeated"},
      {"a{2", "does not end"},
      {"a{3,2}", "wrong order"},
      {"a{1001}", "above 1000"},
      {"a{,2}", "missing"},
      {"(a", "does not end"},
      {"a)", "closes nothing"},
      {"[a", "not closed"},
      {"[b-a]", "not in order"},
      {"[]", "no character"},
      {"a{", "missing"},
      {"a\\", "ends with"},
      {"\\ud800", "no character"},
      {"\xff", "not UTF-8"},
      {"}", "must be written"},
      {"\\xzz", "no character"},
      {"((a{0,1000}b){0,1000}c){0,1000}", "more than 4000 states"},
      {"(a|b)*a(a|b){20}", "more than 4000 states"},
  };
  for (const auto& [pattern, message] : refusals) {
    Grammar grammar;
    expect_error(add_regex(grammar, pattern), ErrorCode::kInvalidArgument, message);
  }
  Grammar grammar;
  expect_error(add_regex(grammar, std::string(5000, 'a')), ErrorCode::kInvalidArgument, "longer than 4096");
  expect_error(add_regex(grammar, std::string(100, '(') + std::string(100, ')')), ErrorCode::kInvalidArgument,
               "deeper than 64");
  expect_error(add_regex(grammar, std::string("a\0b", 3)), ErrorCode::kInvalidArgument, "U+0000");
}

/// Each letter could belong to the group that is open or to a new one: an automaton has no such choice.
TEST(RegexGrammar, AnAmbiguousExpressionCostsNoMore) {
  const auto constraint = compiled("^((\\w+\\s?)+)+$");
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word ";
  EXPECT_TRUE(allows(constraint, text));
  EXPECT_FALSE(allows(constraint, text + " x"));
}

TEST(RegexGrammar, WhatIsDrawnFromItMatches) {
  Rng rng(4);
  for (const char* pattern :
       {"[A-Z]{3}-\\d{4}", "(\\w+\\s?)+", "https?://[a-z.]+(/[^\\s]*)?", "[^,]*,[^,]*", "-?\\d+(\\.\\d+)?"}) {
    const auto constraint = compiled(pattern);
    const std::regex reference(pattern, std::regex::ECMAScript);
    for (int i = 0; i < 20; ++i) {
      const std::string text = testing::draw(constraint, rng);
      const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; });
      if (ascii) {
        EXPECT_TRUE(std::regex_match(text, reference)) << pattern << " with " << text;
      }
    }
  }
}

}  // namespace
}  // namespace tailor
