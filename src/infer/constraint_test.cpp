#include "infer/constraint.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "infer/automaton.h"
#include "infer/grammar.h"
#include "infer/grammar_text.h"
#include "infer/regular_parts.h"
#include "infer/test_byte_vocabulary.h"
#include "infer/test_constraints.h"

namespace tailor {
namespace {

using testing::allows;
using testing::expect_error;
using testing::in_mask;
using testing::smollm_compiler;
using testing::smollm_tokenizer;
using testing::text_spec;
using Kind = ConstraintSpec::Kind;

std::shared_ptr<const Constraint> compiled(const ConstraintSpec& spec) {
  return smollm_compiler().compile(spec).value();
}

ConstraintSpec choices(std::vector<std::string> texts) {
  return {.kind = Kind::kChoices, .choices = std::move(texts)};
}

std::vector<std::uint32_t> mask_of(ConstraintState& state) {
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words());
  state.fill_mask(mask).value();
  return mask;
}

void take(ConstraintState& state, std::string_view text) {
  for (const std::int32_t token : smollm_tokenizer().encode(text, false)) state.accept(token).value();
}

TEST(Constraint, ChoicesAreExact) {
  const auto constraint = compiled(choices({"yes", "yesterday", "no", "né", "n", " spaced\n", "\"q\\"}));
  for (const char* text : {"yes", "yesterday", "no", "né", "n", " spaced\n", "\"q\\"})
    EXPECT_TRUE(allows(constraint, text)) << text;
  for (const char* text : {"", "ye", "yest", "yesterday ", "Yes", "ne", "spaced\n", " spaced", "\"q"})
    EXPECT_FALSE(allows(constraint, text)) << text;
}

TEST(Constraint, ChoicesDrawnFromTheMasksAreAmongThem) {
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) texts.push_back("item " + std::to_string(i * 37 % 301));
  const auto constraint = compiled(choices(texts));
  Rng rng(1);
  for (int i = 0; i < 50; ++i) {
    const std::string text = testing::draw(constraint, rng);
    EXPECT_NE(std::find(texts.begin(), texts.end(), text), texts.end()) << text;
  }
}

TEST(Constraint, RefusesChoicesThatCannotBeWritten) {
  const auto refused = [](std::vector<std::string> texts, const std::string& message) {
    expect_error(smollm_compiler().compile(choices(std::move(texts))), ErrorCode::kInvalidArgument, message);
  };
  refused({}, "choices: 0 choices are given, expected 1 to 10000");
  refused({"a", ""}, "choices: choice 1 is empty");
  refused({"a\xff"}, "choices: choice 0 is not UTF-8");
  refused({std::string("a\0", 2)}, "choices: choice 0 is not UTF-8, or holds U+0000");
  refused(std::vector<std::string>(10'001, "a"), "10001 choices");
  refused({std::string(300 << 10, 'a')}, "longer than 256 KiB");
}

TEST(Constraint, EndTokensAreAllowedExactlyWhereTheTextMayEnd) {
  ConstraintState state(compiled(choices({"no", "nobody"})));
  const Tokenizer& tokenizer = smollm_tokenizer();
  std::vector<std::int32_t> ends, controls;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(tokenizer.vocabulary_size()); ++i) {
    if (tokenizer.ends_generation(i)) ends.push_back(i);
    if (tokenizer.is_control(i) && !tokenizer.ends_generation(i)) controls.push_back(i);
  }
  ASSERT_FALSE(ends.empty());
  ASSERT_FALSE(controls.empty());
  const auto expect_ends = [&](bool allowed) {
    const auto mask = mask_of(state);
    EXPECT_EQ(state.may_end(), allowed);
    for (const std::int32_t id : ends) EXPECT_EQ(in_mask(mask, id), allowed) << id;
    for (const std::int32_t id : controls) EXPECT_FALSE(in_mask(mask, id)) << id;
  };
  expect_ends(false);
  expect_error(state.accept(ends[0]), ErrorCode::kInvalidArgument, "may not follow");
  take(state, "n");
  expect_ends(false);
  take(state, "o");
  expect_ends(true);
  take(state, "body");
  expect_ends(true);
  EXPECT_FALSE(state.finished());
  state.accept(ends.back()).value();
  EXPECT_TRUE(state.finished());
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words());
  expect_error(state.fill_mask(mask), ErrorCode::kInvalidArgument, "the text has ended");
  expect_error(state.accept(ends[0]), ErrorCode::kInvalidArgument, "may not follow");
}

/// Also where any text is allowed.
TEST(Constraint, ControlTokensAreNeverText) {
  ConstraintState state(compiled(text_spec(Kind::kRegex, "(.|\\s)*")));
  const auto mask = mask_of(state);
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(smollm_tokenizer().vocabulary_size()); ++i) {
    const bool silent = smollm_tokenizer().is_control(i) || smollm_tokenizer().token_bytes(i).empty();
    EXPECT_FALSE(silent && !smollm_tokenizer().ends_generation(i) && in_mask(mask, i)) << i;
  }
  EXPECT_TRUE(in_mask(mask, smollm_tokenizer().encode("a", false)[0]));
}

TEST(Constraint, ARefusedTokenLeavesTheStateAsItWas) {
  ConstraintState state(compiled(choices({"alpha", "beta"})));
  take(state, "al");
  const auto before = mask_of(state);
  for (const std::int32_t token : {-1, 0, 1 << 30, smollm_tokenizer().encode("z", false)[0]}) {
    expect_error(state.accept(token), ErrorCode::kInvalidArgument, "may not follow");
  }
  EXPECT_EQ(mask_of(state), before);
  take(state, "pha");
  EXPECT_TRUE(state.may_end());
}

TEST(Constraint, CopiesGoTheirOwnWay) {
  ConstraintState first(compiled(choices({"abc", "abd"})));
  take(first, "ab");
  ConstraintState second = first;
  take(first, "c");
  take(second, "d");
  EXPECT_TRUE(first.may_end());
  EXPECT_TRUE(second.may_end());
  second = first;
  second.accept(smollm_tokenizer().eos()).value();
  EXPECT_TRUE(second.finished());
  EXPECT_FALSE(first.finished());
}

TEST(Constraint, SaysWhatMustComeNext) {
  ConstraintState state(compiled(testing::schema_spec(Json::parse(
      R"({"type":"object","properties":{"first name":{"type":"boolean"}},"required":["first name"],"additionalProperties":false})"))));
  EXPECT_EQ(state.forced(), "{");
  take(state, "{\"f");
  EXPECT_EQ(state.forced(), "irst name\":");
  take(state, "irst name\":t");
  EXPECT_EQ(state.forced(), "rue");
  take(state, "rue}");
  EXPECT_EQ(state.forced(), "");
}

TEST(Constraint, AnyObjectIsJson) {
  const auto constraint = compiled({.kind = Kind::kJsonObject});
  EXPECT_TRUE(allows(constraint, R"({"a": [1, -2.5e3, null, {"b": "\u00e9\n"}], "": {}})"));
  for (const char* text : {"", "[]", "1", "{\"a\"}", "{\"a\":1,}", "{'a':1}", "{} {}", "{\"a\":01}", "{\"a\":.5}",
                           "{\"a\":1.}", "{\"a\":nul}"}) {
    EXPECT_FALSE(allows(constraint, text)) << text;
  }
  Rng rng(3);
  for (int i = 0; i < 30; ++i) {
    const std::string text = testing::draw(constraint, rng);
    EXPECT_TRUE(Json::parse(text, nullptr, false).is_object()) << text;
  }
}

TEST(Constraint, TheMaskHasAnExactSize) {
  ConstraintState state(compiled({}));
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words() + 1);
  expect_error(state.fill_mask(mask), ErrorCode::kInvalidArgument, "words is given, expected");
}

TEST(Constraint, GrammarsAreRead) {
  const auto constraint = compiled(text_spec(Kind::kGrammar,
                                             "# sums\nroot ::= sum (\" = \" sum)?\nsum ::= sum [-+] item |\n  item\n"
                                             "item ::= [0-9]{1,3} | \"(\" sum \")\" | \"\\u00e9\\x41\" .? # odd\n"));
  for (const char* text : {"1", "1+2-345", "(1+(2)) = 7", "éA", "éA!"}) EXPECT_TRUE(allows(constraint, text)) << text;
  for (const char* text : {"", "1234", "1+", "(1", "1 = 2 = 3", "A"}) EXPECT_FALSE(allows(constraint, text)) << text;
}

TEST(Constraint, GrammarsThatCannotBeReadAreRefusedWithTheirPlace) {
  const std::pair<std::string, const char*> refusals[] = {
      {"", "the rule \"root\" is not defined"},
      {"root ::= a", "the rule \"a\" is not defined"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 9: the rule \"root\" is defined twice"},
      {"root ::= \"a", "a literal does not end"},
      {"root ::= \"a\n\"", "line 1, column 12: a line ends within"},
      {"root ::= [a", "not closed"},
      {"root ::= []", "no character"},
      {"root ::= [z-a]", "not in order"},
      {"root ::= (\"a\"", "a group does not end"},
      {"root ::= \"a\")", "\")\" closes nothing"},
      {"root ::= \"a\"{2,1}", "wrong order"},
      {"root ::= \"a\"{}", "missing"},
      {"root ::= \"a\"{2", "does not end"},
      {"root ::= \"\\q\"", "an escape is not supported"},
      {"root ::= \"\\ud800\"", "no character that text can hold"},
      {"root ::= \"\\x0\"", "an escape does not end"},
      {"root ::= (=\"a\") \"a\"", "look-ahead is not supported"},
      {"root ::= <think>", "line 1, column 10: expected a literal"},
      {"root[max_tokens=3] ::= \"a\"", "line 1, column 1: expected a rule"},
      {"root ::= TagDispatch((\"a\", b))", "expected a literal"},
      {"root ::= \"\xff\"", "not UTF-8"},
      {"root ::= root \"a\"", "no finite text follows"},
      {"root ::= ((\"a\" \"b\"){1,100} \"c\"){1,100}", "a repetition is counted 100 times within one of 100"},
      {"root ::= " + std::string(100, '('), "deeper than 64"},
      {std::string(300 << 10, ' '), "larger than 256 KiB"},
  };
  for (const auto& [text, message] : refusals) {
    expect_error(smollm_compiler().compile(text_spec(Kind::kGrammar, text)), ErrorCode::kInvalidArgument, message);
  }
}

/// Each letter begins a word or goes on with one; written by hand, that choice would double at every step.
TEST(Constraint, RegularPartsOfAGrammarLeaveNoChoice) {
  const auto constraint = compiled(text_spec(
      Kind::kGrammar,
      "root ::= list | \"<\" root \">\" words\nlist ::= (word)+ \"!\"\nword ::= [a-z]+ \" \"?\nwords ::= word*"));
  std::string text = "<";
  for (int i = 0; i < 200; ++i) text += "word ";
  EXPECT_TRUE(allows(constraint, text + "!>ab c "));
  EXPECT_FALSE(allows(constraint, text + ">"));
  EXPECT_FALSE(allows(constraint, text + "!"));
}

std::size_t rewritten_rules(const std::string& text) {
  return with_regular_parts(read_grammar(text).value()).rules();
}

/// Each of these rules alone may become an automaton.
TEST(Constraint, ManyRegularRulesShareOneBudget) {
  constexpr std::size_t kRules = 100;
  std::string parts, root = "root ::= \"x\"", work = "root ::= \"x\"";
  for (std::size_t i = 0; i < kRules; ++i) {
    const std::string name = "r" + std::to_string(i);
    root += " | " + name;
    parts += "\n" + name + " ::= \"a\"{500} \"b\"{500} [0-9]{0," + std::to_string(i) + "}";
  }
  EXPECT_EQ(rewritten_rules("root ::= \"x\"" + parts), kRules + 1) << "no rule is reached";
  const std::size_t rules = rewritten_rules(root + parts);
  EXPECT_GT(rules, 20'000U) << "what is small enough is rewritten";
  EXPECT_LT(rules, 70'000U) << "and no more than can be printed";
  // A thousand states each, of many places.
  for (std::size_t i = 0; i < 10; ++i) work += " | r" + std::to_string(i);
  for (std::size_t i = 0; i < 10; ++i)
    work += "\nr" + std::to_string(i) + " ::= (\"a\"?){1000} [0-9]{" + std::to_string(i) + "}";
  EXPECT_GT(rewritten_rules(work), 1000U);
  EXPECT_LT(rewritten_rules(work), 8000U);
}

TEST(Constraint, EmptyTextsThatAreCountedCostNothing) {
  AutomatonBudget budget;
  const std::size_t whole = budget.left();
  const GrammarExpr million = repeat(text_of(""), 1'000'000, 1'000'000);
  EXPECT_TRUE(automaton_of(repeat(million, 19'000, 19'000), budget).has_value());
  EXPECT_GT(budget.left(), whole - 1'000'000);
  EXPECT_TRUE(allows(compiled(text_spec(Kind::kGrammar, "root ::= \"x\" (\"\"{1000000}){19000}")), "x"));
}

TEST(Constraint, AGrammarThatIsTooAmbiguousEndsInAnError) {
  ConstraintState state(compiled(text_spec(Kind::kGrammar, "root ::= root root | [a-z ]")));
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words());
  Status filled;
  for (int step = 0; step < 1000 && filled; ++step) {
    filled = state.fill_mask(mask);
    if (filled) filled = state.accept(smollm_tokenizer().encode(" the", false)[0]);
  }
  expect_error(filled, ErrorCode::kInvalidArgument, "s of processor time for");
}

/// A part that goes nowhere is not offered: a text that began with it could not end.
TEST(Constraint, PartsOfAGrammarFromWhichNoTextEndsAreLeftOut) {
  const auto constraint = compiled(text_spec(Kind::kGrammar, "root ::= \"a\" | \"b\" x | \"c\" x*\nx ::= \"d\" x"));
  EXPECT_TRUE(allows(constraint, "a"));
  EXPECT_TRUE(allows(constraint, "c"));
  ConstraintState state(constraint);
  EXPECT_FALSE(in_mask(mask_of(state), smollm_tokenizer().encode("b", false)[0]));
}

/// SentencePiece: a blank is written as U+2581, bytes have names, and unknown and unused tokens are no text.
TEST(ConstraintCompiler, KnowsTheBytesOfASentencePieceVocabulary) {
  const Tokenizer tokenizer = testing::byte_vocabulary();
  const std::int32_t end = testing::kByteVocabularyEnd;
  EXPECT_EQ(tokenizer.token_bytes(0xC3), "\xC3");
  EXPECT_EQ(tokenizer.token_bytes(end + 3), " ");
  EXPECT_EQ(tokenizer.token_bytes(end + 4), " a");
  for (const std::int32_t silent : {end, end + 1, end + 2, -1, 100'000})
    EXPECT_EQ(tokenizer.token_bytes(silent), "") << silent;
  auto compiler = ConstraintCompiler::make(tokenizer).value();
  ConstraintState state(compiler.compile(choices({"é a", " b"})).value());
  std::vector<std::uint32_t> mask(compiler.mask_words());
  state.fill_mask(mask).value();
  const auto allowed = [&] {
    std::vector<std::int32_t> out;
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(compiler.vocabulary_size()); ++i) {
      if (in_mask(mask, i)) out.push_back(i);
    }
    return out;
  };
  const std::int32_t accent = static_cast<std::int32_t>(compiler.vocabulary_size()) - 1;
  EXPECT_EQ(allowed(), (std::vector<std::int32_t>{' ', 0xC3, end + 3, accent}));
  state.accept(0xC3).value();  // half a character
  state.fill_mask(mask).value();
  EXPECT_EQ(allowed(), std::vector<std::int32_t>{0xA9});
  state.accept(0xA9).value();
  state.fill_mask(mask).value();
  EXPECT_EQ(allowed(), (std::vector<std::int32_t>{' ', end + 3, end + 4}));
  state.accept(end + 4).value();
  state.fill_mask(mask).value();
  EXPECT_EQ(allowed(), std::vector<std::int32_t>{end});
}

TEST(ConstraintCompiler, KeepsWhatItCompiled) {
  auto compiler = ConstraintCompiler::make(smollm_tokenizer()).value();
  const auto first = compiler.compile(choices({"a", "b"})).value();
  EXPECT_EQ(compiler.compile(choices({"a", "b"})).value(), first);
  EXPECT_NE(compiler.compile(choices({"a,", "b"})).value(), first);
  EXPECT_NE(compiler.compile(choices({"ab"})).value(), first);
  EXPECT_EQ(compiler.cached(), 3U);
  expect_error(compiler.compile(choices({""})), ErrorCode::kInvalidArgument, "is empty");
  EXPECT_EQ(compiler.cached(), 3U) << "an error is not kept";
}

TEST(ConstraintCompiler, DropsWhatWasNotUsedForLongest) {
  auto compiler = ConstraintCompiler::make(smollm_tokenizer(), {.cache_bytes = 400 << 10}).value();
  const auto number = [&](int i) {
    return compiler.compile(choices({"choice number " + std::to_string(i), "other"})).value();
  };
  const auto kept = number(0);
  for (int i = 1; i < 300; ++i) {
    number(i);
    EXPECT_EQ(number(0), kept);
  }
  EXPECT_LE(compiler.cached_bytes(), std::size_t{400} << 10);
  EXPECT_GT(compiler.cached(), 5U);
  EXPECT_LT(compiler.cached(), 299U);
  EXPECT_TRUE(allows(kept, "choice number 0")) << "what is in use stays";
}

TEST(ConstraintCompiler, ThreadsCompileTheSameOnce) {
  auto compiler = ConstraintCompiler::make(smollm_tokenizer()).value();
  const ConstraintSpec spec = testing::schema_spec(Json::parse(
      R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"array","items":{"type":"number"}}}})"));
  std::vector<std::shared_ptr<const Constraint>> out(4);
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < out.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        out[t] = compiler.compile(spec).value();
        (void)compiler.compile(choices({"thread", std::to_string(t), std::to_string(i)})).value();
        (void)compiler.compile(choices({""}));
        Rng rng(t);
        const std::string text = testing::draw(out[t], rng);
        if (Json::parse(text, nullptr, false).is_object()) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& one : out) EXPECT_EQ(one, out[0]);
  EXPECT_EQ(good, 20);
}

}  // namespace
}  // namespace tailor
