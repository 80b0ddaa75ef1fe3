#include "fit/tuned_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "fit/candidates.h"
#include "fit/tune_methods.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> names_of(const std::vector<std::string>& methods, ModelKinds kinds) {
  std::vector<std::string> names;
  const auto chosen = choose_candidates(methods, kinds);
  if (!chosen) return {to_string(chosen.error())};
  for (const Candidate* c : *chosen) names.emplace_back(c->method);
  return names;
}

TEST(TunedSearches, EveryMethodOnEveryKindThatItTunesIsACandidate) {
  for (const TuneMethod& method : tune_methods()) {
    if (method.name == "features" || method.name == "distill") {  // fitted without tailor-tune; needs a teacher
      EXPECT_NE(find_candidate_method(method.name), nullptr);
      continue;
    }
    for (const ModelKind kind : {ModelKind::kEncoder, ModelKind::kDecoder}) {
      const bool tunes = kind == ModelKind::kEncoder ? method.encoders : method.decoders;
      const auto& rows = tuned_searches();
      const auto rows_of_it = std::count_if(
          rows.begin(), rows.end(), [&](const TunedSearch& r) { return r.method == method.name && r.kind == kind; });
      EXPECT_EQ(rows_of_it, tunes ? 1 : 0) << method.name << " " << name_of(kind);
    }
  }
}

TEST(TunedSearches, RowsMakeSense) {
  std::set<std::string_view> names;
  std::set<int> priorities;
  for (const Candidate& c : candidate_table()) {
    EXPECT_TRUE(names.insert(c.method).second) << c.method;
    EXPECT_TRUE(priorities.insert(c.priority).second) << c.method;
  }
  for (const TunedSearch& row : tuned_searches()) {
    ASSERT_GE(row.rates.size(), 2U) << row.candidate;
    EXPECT_TRUE(std::is_sorted(row.rates.begin(), row.rates.end())) << row.candidate;
    EXPECT_NE(std::find(row.rates.begin(), row.rates.end(), row.usual_rate), row.rates.end()) << row.candidate;
    EXPECT_GE(row.flops, 2) << row.candidate;
    EXPECT_EQ(find_candidate_method(row.candidate)->usual, row.usual);
  }
}

TEST(TunedSearches, TheUsualOnesComeFirstAndGoLast) {
  bool others = false;
  int highest_usual = 0, lowest_other = 1000;
  for (const Candidate& c : candidate_table()) {
    EXPECT_FALSE(others && c.usual) << c.method;
    others = others || !c.usual;
    (c.usual ? highest_usual : lowest_other) =
        c.usual ? std::max(highest_usual, c.priority) : std::min(lowest_other, c.priority);
  }
  EXPECT_LT(highest_usual, lowest_other);
}

TEST(TunedSearches, NamesChooseCandidates) {
  const ModelKinds both{true, true}, decoder{false, true}, encoder{true, false};
  EXPECT_EQ(names_of({}, both).size(), candidate_table().size());
  EXPECT_EQ(names_of({"all"}, both), names_of({}, both));
  EXPECT_EQ(names_of({"usual"}, both).size(), 12U);
  EXPECT_EQ(names_of({"usual", "dora"}, both).size(), 13U);
  EXPECT_EQ(names_of({"dora", "tfidf"}, both), (std::vector<std::string>{"tfidf", "dora"}));
  EXPECT_EQ(names_of({"dora"}, decoder), (std::vector<std::string>{"dora-decoder"}));
  EXPECT_EQ(names_of({"lora", "lora-decoder"}, both), (std::vector<std::string>{"lora", "lora-decoder"}));
  EXPECT_TRUE(names_of({"prefix-tuning"}, encoder).empty());
  EXPECT_THAT(names_of({"bitfitt"}, both).at(0), HasSubstr("did you mean bitfit?"));
}

TEST(TunedSearches, ModelsThatAMethodCannotTuneAreNamed) {
  ModelInfo model;
  model.id = "some-model";
  model.architecture = "llama";
  model.file_type = "q4_1";
  EXPECT_THAT(unsuited(*find_tuned_search("bitfit-decoder"), model), HasSubstr("some-model has no biases"));
  EXPECT_EQ(unsuited(*find_tuned_search("qlora"), model), "");
  model.file_type = "f16";
  EXPECT_THAT(unsuited(*find_tuned_search("qlora"), model), HasSubstr("no quantised blocks"));
  model.architecture = "qwen2";
  EXPECT_EQ(unsuited(*find_tuned_search("bitfit-decoder"), model), "");
  model.architecture = "bert";
  EXPECT_EQ(unsuited(*find_tuned_search("bitfit"), model), "");
  model.architecture = "modern-bert";
  EXPECT_THAT(unsuited(*find_tuned_search("bitfit"), model), HasSubstr("some-model has no biases"));
}

}  // namespace
}  // namespace tailor
