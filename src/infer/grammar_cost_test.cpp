#include "infer/grammar_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "infer/grammar_text.h"
#include "infer/schema_grammar.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;

std::string refusal(const Result<Grammar>& grammar) {
  const auto text = grammar.value().print();
  return text ? "" : text.error().message;
}

std::string refusal_of_schema(const Json& schema) {
  return refusal(schema_grammar(schema, "schema"));
}

Json any_of(std::size_t count, const Json& branch) {
  Json list = Json::array();
  for (std::size_t i = 0; i < count; ++i) list.push_back(branch);
  return {{"anyOf", std::move(list)}};
}

TEST(GrammarCost, ManyBranchesAtOnePlaceAreRefusedBeforeTheyAreCompiled) {
  const Json all = {{"type", {"object", "array", "string", "number", "integer", "boolean", "null"}}};
  EXPECT_THAT(refusal_of_schema(any_of(2900, all)), HasSubstr("too many alternatives at one place"));
  EXPECT_THAT(refusal_of_schema(any_of(9000, {{"type", "object"}})), HasSubstr("too many alternatives at one place"));
  EXPECT_EQ(refusal_of_schema(any_of(200, all)), "");
}

TEST(GrammarCost, BranchesWithinBranchesCountWhereTheyBegin) {
  const Json inner = any_of(90, {{"type", "object"}});
  EXPECT_THAT(refusal_of_schema(any_of(90, inner)), HasSubstr("too many alternatives at one place"));
}

/// `rule` has `words` alternatives, and `root` begins with it in `uses` of its own. What ends in itself is no part that
/// an automaton is made of.
std::string written(int words, int uses) {
  std::string text = "root ::= ";
  for (int i = 0; i < uses; ++i) text += fmt::format("{}rule \"{}\" tail", i == 0 ? "" : " | ", i);
  text += "\ntail ::= \"(\" tail \")\" | \"\"\nrule ::= ";
  for (int i = 0; i < words; ++i) text += fmt::format("{}\"w{}\"", i == 0 ? "" : " | ", i);
  return text + "\n";
}

TEST(GrammarCost, ARuleThatIsWrittenOutWhereItStandsFirstCountsThere) {
  EXPECT_NE(refusal(read_grammar(written(2000, 2000))), "");
  EXPECT_EQ(refusal(read_grammar(written(30, 30))), "");
}

TEST(GrammarCost, PartsThatEachKeepWhatFollowsThemCount) {
  std::string text = "root ::= ";
  for (int i = 0; i < 20'000; ++i) text += "x? ";
  text += "\nx ::= \"a\" x | \"b\"\n";
  EXPECT_THAT(refusal(read_grammar(text)), HasSubstr("too many parts in one sequence"));
}

TEST(GrammarCost, LargeSchemasThatAreUsefulAreNotRefused) {
  Json properties = Json::object(), required = Json::array(), values = Json::array();
  for (int i = 0; i < 1000; ++i) {
    properties[fmt::format("property_{}", i)] = {{"type", {"string", "number", "null"}}};
    required.push_back(fmt::format("property_{}", i));
  }
  EXPECT_EQ(refusal_of_schema({{"type", "object"}, {"properties", properties}, {"required", required}}), "");
  for (int i = 0; i < 10'000; ++i) values.push_back(fmt::format("{:05} value", i * 7919 % 100'000));
  EXPECT_EQ(refusal_of_schema({{"enum", values}}), "");
}

TEST(GrammarCost, TheLimitsAreWhatIsAllowed) {
  Grammar grammar;
  grammar.define(0, choice({text_of("a"), text_of("b"), text_of("c")}));
  const Grammar::Rule rule{.body = grammar.body(0), .characters = kNoMaximum, .skipped = {}, .next = {}};
  EXPECT_TRUE(CompileCost({&rule, 1}, {.pairs = 9}).add(*rule.body));
  EXPECT_FALSE(CompileCost({&rule, 1}, {.pairs = 8}).add(*rule.body));
}

}  // namespace
}  // namespace tailor
