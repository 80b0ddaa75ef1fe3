#include "fit/decision.h"

#include <gtest/gtest.h>

#include "core/rng.h"

namespace tailor {
namespace {

/// A candidate that is right on a given share of `n` rows; the rows it gets wrong are its own.
struct Made {
  TrialRecord record;
  Predictions validation;
};

Made candidate(const std::string& id, int n, int wrong_from, int wrong_to, double cost, double latency_ms = 5) {
  Made m;
  m.record.id = m.record.method = id;
  m.record.status = TrialStatus::kOk;
  m.record.cost_per_thousand = cost;
  m.record.latency_p50_ms = latency_ms;
  m.record.latency_p95_ms = 2 * latency_ms;
  m.record.package_bytes = 1000;
  m.record.serve_memory_bytes = 1000;
  std::vector<std::uint32_t> ids;
  std::vector<int> truth;
  Matrix p(static_cast<std::size_t>(n), 2);
  for (int i = 0; i < n; ++i) {
    ids.push_back(static_cast<std::uint32_t>(i));
    truth.push_back(i % 2);
    const bool wrong = i >= wrong_from && i < wrong_to;
    p.row(static_cast<std::size_t>(i))[static_cast<std::size_t>(wrong ? 1 - i % 2 : i % 2)] = 1;
  }
  m.validation = make_predictions(ids, truth, std::move(p));
  m.record.validation_score = Metric::accuracy().score(m.validation.truth, m.validation.predicted, 2);
  m.record.n_validation = static_cast<std::size_t>(n);
  return m;
}

Decision decide_among(const std::vector<Made>& made, const FitOptions& options = {}) {
  std::vector<TrialRecord> records;
  std::vector<Predictions> validation;
  for (const auto& m : made) {
    records.push_back(m.record);
    validation.push_back(m.validation);
  }
  return decide(records, validation, options, Metric::accuracy(), 2).value();
}

TEST(Decide, TheBestWinsWhenNobodyIsNear) {
  const Decision d = decide_among({candidate("cheap", 1000, 0, 200, 1), candidate("dear", 1000, 0, 100, 50)});
  EXPECT_EQ(d.recommended, "dear");
  EXPECT_FALSE(d.standings[0].tied);
  EXPECT_LT(d.standings[0].p_value, 1e-6);
  EXPECT_NEAR(d.standings[0].difference, -0.1, 1e-12);
}

TEST(Decide, TheCheapestOfTiesWins) {
  // 3 rows of 1,000 between them: not significant and within half a point.
  const Decision d = decide_among({candidate("cheap", 1000, 0, 103, 1), candidate("dear", 1000, 0, 100, 50)});
  EXPECT_EQ(d.best, "dear");
  EXPECT_EQ(d.recommended, "cheap");
  EXPECT_NE(d.reason.find("not really worse"), std::string::npos) << d.reason;
  ASSERT_FALSE(d.would_change.empty());
}

/// Right and wrong answers as they are, given with this probability.
Made as_sure_as(Made m, float probability) {
  for (std::size_t i = 0; i < m.validation.size(); ++i) {
    const auto row = m.validation.probabilities.row(i);
    for (float& p : row) p = p > 0.5f ? probability : 1 - probability;
  }
  return m;
}

TEST(Decide, AtTheSameCostTheSimplerWinsUnlessItsProbabilitiesAreWorse) {
  const Made simple = candidate("neighbours", 1000, 0, 103, 10), other = candidate("features", 1000, 0, 100, 10);
  EXPECT_EQ(decide_among({as_sure_as(simple, 0.9f), as_sure_as(other, 0.9f)}).recommended, "neighbours");
  EXPECT_EQ(decide_among({as_sure_as(simple, 0.6f), as_sure_as(other, 0.9f)}).recommended, "features");
  // A candidate that costs clearly less wins by the user's metric alone.
  Made cheap = as_sure_as(simple, 0.6f);
  cheap.record.cost_per_thousand = 1;
  EXPECT_EQ(decide_among({cheap, as_sure_as(other, 0.9f)}).recommended, "neighbours");
}

TEST(Decide, LackOfEvidenceIsNoTie) {
  // 100 rows: 4 points apart is not significant, but it is more than the margin.
  const Decision d = decide_among({candidate("cheap", 100, 0, 14, 1), candidate("dear", 100, 0, 10, 50)});
  EXPECT_GE(d.standings[0].p_value, 0.05);
  EXPECT_FALSE(d.standings[0].tied);
  EXPECT_EQ(d.recommended, "dear");
}

TEST(Decide, LimitsComeFirstAndAreNamed) {
  FitOptions options;
  options.max_latency_ms = 20;
  const Decision d =
      decide_among({candidate("fast", 1000, 0, 200, 1, 2), candidate("slow", 1000, 0, 100, 50, 100)}, options);
  EXPECT_EQ(d.recommended, "fast");
  EXPECT_FALSE(d.standings[1].within_limits);
  EXPECT_NE(d.standings[1].limit.find("latency"), std::string::npos);
  bool named = false;
  for (const auto& sentence : d.would_change)
    named = named || sentence.find("Without your limits") != std::string::npos;
  EXPECT_TRUE(named);
}

TEST(Decide, WhenNobodyKeepsTheLimitsItSaysSo) {
  FitOptions options;
  options.max_size_bytes = 10;
  const Decision d = decide_among({candidate("a", 100, 0, 10, 1)}, options);
  EXPECT_EQ(d.recommended, "a");
  EXPECT_NE(d.reason.find("No candidate keeps your limits"), std::string::npos);
}

TEST(Decide, ALuckySubsampleDoesNotWin) {
  // "few" answered 40 rows and happens to be right on all; on those rows the other is wrong twice.
  Made few = candidate("few", 40, 0, 0, 1);
  Made all = candidate("all", 1000, 0, 2, 1);
  all.validation = candidate("all", 1000, 0, 2, 1).validation;
  const Decision d = decide_among({few, all});
  EXPECT_EQ(d.best, "all");
}

TEST(Decide, FailedAndSkippedCandidatesAreNeverChosen) {
  Made failed = candidate("failed", 100, 0, 0, 1);
  failed.record.status = TrialStatus::kFailed;
  EXPECT_EQ(decide_among({failed, candidate("ok", 100, 0, 50, 1)}).recommended, "ok");
  const Decision none = decide_among({failed});
  EXPECT_TRUE(none.recommended.empty());
  EXPECT_FALSE(none.reason.empty());
}

TEST(CompareOnTest, NamesBestTiesAndWorse) {
  std::vector<Made> made{candidate("best", 1000, 0, 100, 1), candidate("near", 1000, 0, 103, 1),
                         candidate("far", 1000, 0, 300, 1)};
  std::vector<TrialRecord> records;
  std::vector<Predictions> test;
  for (auto& m : made) {
    m.record.n_scored = 1000;
    m.record.test_score = m.record.validation_score;
    records.push_back(m.record);
    test.push_back(m.validation);
  }
  compare_on_test(records, test, Metric::accuracy(), 2, 1).value();
  EXPECT_EQ(records[0].verdict, "best");
  EXPECT_EQ(records[1].verdict, "tie");
  EXPECT_EQ(records[2].verdict, "worse");
}

}  // namespace
}  // namespace tailor
