#include "learn/tfidf.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/rng.h"
#include "learn/learn_golden.h"

namespace tailor {
namespace {

void expect_rows(const CsrMatrix& got, const Json& want) {
  ASSERT_EQ(got.starts, numbers<std::size_t>(want["starts"]));
  ASSERT_EQ(got.columns, numbers<std::uint32_t>(want["columns"]));
  for (std::size_t i = 0; i < got.values.size(); ++i) ASSERT_NEAR(got.values[i], want["values"][i].get<double>(), 2e-6);
}

void expect_equal(const Json& golden, const char* name, const TfidfOptions& options, bool only_unicode = false) {
  SCOPED_TRACE(name);
  auto train = numbers<std::string>(golden["tfidf"]["train"]);
  auto test = numbers<std::string>(golden["tfidf"]["test"]);
  if (only_unicode) {
    train.erase(train.begin(), train.end() - 14);
    test.erase(test.begin(), test.end() - 14);
  }
  const Json& want = golden["tfidf"][name];
  const auto tfidf = Tfidf::fit(train, options).value();
  ASSERT_EQ(tfidf.terms(), numbers<std::string>(want["terms"]));
  expect_rows(tfidf.transform(train), want["train"]);
  expect_rows(tfidf.transform(test), want["test"]);
}

constexpr auto kCharacters = TermOptions::Kind::kCharacters;

TEST(Tfidf, EqualsScikitLearnAlsoOnUnicode) {
  const Json golden = learn_golden();
  expect_equal(golden, "words_1_2", {.terms = {.max_n = 2}});
  expect_equal(golden, "words_and_marks", {.terms = {.kind = TermOptions::Kind::kWordsAndMarks, .max_n = 2}});
  expect_equal(golden, "words_2_3_min_df", {.terms = {.min_n = 2, .max_n = 3}, .min_df = 2, .sublinear_tf = true});
  const auto limit = golden["tfidf"]["words_limit"]["max_features"].get<std::size_t>();
  expect_equal(golden, "words_limit", {.max_df = 0.4, .max_features = limit, .smooth_idf = false});
  expect_equal(golden, "char_wb_3_5", {.terms = {.kind = kCharacters, .min_n = 3, .max_n = 5}}, true);
  expect_equal(golden, "char_wb_1_2",
               {.terms = {.kind = kCharacters, .min_n = 1, .max_n = 2, .lowercase = false}, .l2 = false}, true);
}

TEST(Tfidf, SavedVectorizerGivesTheSameRows) {
  const Json golden = learn_golden();
  const auto train = numbers<std::string>(golden["tfidf"]["train"]);
  const auto tfidf =
      Tfidf::fit(train, {.terms = {.kind = kCharacters, .min_n = 2, .max_n = 4}, .sublinear_tf = true}).value();
  TemporaryDirectory dir;
  tfidf.save(dir.path() / "tfidf.json").value();
  const auto loaded = Tfidf::load(dir.path() / "tfidf.json").value();
  EXPECT_EQ(loaded.terms(), tfidf.terms());
  const auto a = tfidf.transform(train);
  const auto b = loaded.transform(train);
  EXPECT_EQ(a.starts, b.starts);
  EXPECT_EQ(a.columns, b.columns);
  EXPECT_EQ(a.values, b.values);
}

TEST(Tfidf, LoadRefusesDamagedFiles) {
  TemporaryDirectory dir;
  const auto file = dir.path() / "tfidf.json";
  EXPECT_FALSE(Tfidf::load(file));
  Tfidf::fit(std::vector<std::string>{"one two", "two three"}, {})->save(file).value();
  const Json good = read_json(file).value();
  EXPECT_TRUE(Tfidf::load(file));
  const auto with = [&](const char* key, Json value) {
    Json j = good;
    j[key] = std::move(value);
    write_json_atomic(file, j).value();
    return Tfidf::load(file).has_value();
  };
  EXPECT_TRUE(with("min_df", 1));
  EXPECT_FALSE(with("format", "other"));
  EXPECT_FALSE(with("terms_of", "sounds"));
  EXPECT_FALSE(with("min_n", 0));
  EXPECT_FALSE(with("terms", Json::array({"b", "a", "c"})));
  EXPECT_FALSE(with("terms", Json::array({"a"})));
  EXPECT_FALSE(with("document_frequency", Json::array({1, 9, 1})));
  EXPECT_FALSE(with("documents", "many"));
}

TEST(Tfidf, RefusesWhatLeavesNoTerms) {
  EXPECT_FALSE(Tfidf::fit({}, {}));
  EXPECT_FALSE(Tfidf::fit(std::vector<std::string>{"", "?!", "a b c"}, {}));
  EXPECT_FALSE(Tfidf::fit(std::vector<std::string>{"one two", "three four"}, {.min_df = 2}));
  EXPECT_FALSE(Tfidf::fit(std::vector<std::string>{"one"}, {.min_df = 0}));
  EXPECT_FALSE(Tfidf::fit(std::vector<std::string>{"one"}, {.max_df = 0}));
  EXPECT_FALSE(Tfidf::fit(std::vector<std::string>{"one"}, {.terms = {.min_n = 2, .max_n = 1}}));
}

TEST(Tfidf, BytesThatAreNotUtf8AreReplaced) {
  const std::vector<std::string> texts = {"good \xFF\xC3 text", "cut \xE2\x82"};
  const auto words = Tfidf::fit(texts, {}).value();
  EXPECT_EQ(words.terms(), (std::vector<std::string>{"cut", "good", "text"}));
  const auto characters = Tfidf::fit(texts, {.terms = {.kind = kCharacters, .min_n = 1, .max_n = 1}}).value();
  EXPECT_EQ(characters.terms().back(), "\xEF\xBF\xBD");
}

TEST(Tfidf, ManyTermsAndOneLongText) {
  std::string text;
  for (int i = 0; i < 30000; ++i) text += "w" + std::to_string(i) + " ";
  const auto tfidf = Tfidf::fit(std::vector<std::string>{text}, {.terms = {.max_n = 2}}).value();
  EXPECT_EQ(tfidf.size(), 59999u);
  EXPECT_EQ(tfidf.transform(std::vector<std::string>{text}).columns.size(), 59999u);
}

TEST(Rng, EqualsThePythonMirror) {
  const Json golden = learn_golden();
  Rng bits(7, 3);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(bits.bits(), std::stoull(golden["rng"][i].get<std::string>(), nullptr, 16));
  Rng normal(7, 3);
  for (std::size_t i = 4; i < 7; ++i) EXPECT_NEAR(normal.normal(), golden["rng"][i].get<double>(), 1e-14);
}

TEST(Sparse, JoinGatherAndTranspose) {
  CsrMatrix a;
  a.rows = 2;
  a.cols = 2;
  a.starts = {0, 1, 3};
  a.columns = {1, 0, 1};
  a.values = {5, 6, 7};
  const CsrMatrix joined = join_columns(a, a);
  EXPECT_EQ(joined.cols, 4u);
  EXPECT_EQ(joined.columns, (std::vector<std::uint32_t>{1, 3, 0, 1, 2, 3}));
  const CsrMatrix t = transpose(a);
  EXPECT_EQ(t.starts, (std::vector<std::size_t>{0, 1, 3}));
  EXPECT_EQ(t.columns, (std::vector<std::uint32_t>{1, 0, 1}));
  EXPECT_EQ(t.values, (std::vector<float>{6, 5, 7}));
  const std::vector<std::size_t> rows = {1, 1};
  EXPECT_EQ(gather_rows(a, rows).values, (std::vector<float>{6, 7, 6, 7}));
  EXPECT_THROW(join_columns(a, gather_rows(a, std::vector<std::size_t>{0})), Exception);
}

}  // namespace
}  // namespace tailor
