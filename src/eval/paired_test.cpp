#include "eval/paired.h"

#include <gtest/gtest.h>

#include <numeric>

#include "eval/eval_golden.h"

namespace tailor {
namespace {

// Rows of which `b` only a has right and `c` only b.
McNemar discordant(std::int64_t b, std::int64_t c, McNemarMethod method) {
  const std::vector<int> truth(static_cast<std::size_t>(b + c), 1);
  std::vector<int> x(truth);
  std::vector<int> y(truth);
  for (std::size_t i = 0; i < truth.size(); ++i) (i < static_cast<std::size_t>(b) ? y : x)[i] = 0;
  return mcnemar(truth, x, y, method);
}

TEST(McNemar, EqualsScipy) {
  const Json golden = eval_golden();
  for (const Json& g : golden["mcnemar"]) {
    const auto b = g["b"].get<std::int64_t>();
    const auto c = g["c"].get<std::int64_t>();
    const auto exact = discordant(b, c, McNemarMethod::kExact);
    EXPECT_EQ(exact.only_a_right, b);
    EXPECT_EQ(exact.only_b_right, c);
    EXPECT_NEAR(exact.p_value, g["exact"].get<double>(), 1e-9);
    EXPECT_NEAR(discordant(b, c, McNemarMethod::kChi2).p_value, g["chi2"].get<double>(), 1e-9);
    EXPECT_NEAR(discordant(b, c, McNemarMethod::kMidP).p_value, g["mid_p"].get<double>(), 1e-9);
    const char* automatic = b + c < 25 ? "exact" : "mid_p";
    EXPECT_NEAR(discordant(b, c, McNemarMethod::kAuto).p_value, g[automatic].get<double>(), 1e-9);
  }
  EXPECT_EQ(discordant(0, 0, McNemarMethod::kAuto).p_value, 1.0);
}

TEST(Paired, BootstrapAndPermutationEqualNumpyOnTheSameDraws) {
  const Json golden = eval_golden();
  const Json& g = golden["paired"];
  CommonRows rows;
  rows.truth = numbers<int>(g["truth"]);
  rows.a = numbers<int>(g["a"]);
  rows.b = numbers<int>(g["b"]);
  const PairedOptions options{.resamples = g["resamples"].get<int>(), .seed = g["seed"].get<std::uint64_t>()};
  const auto bootstrap = paired_bootstrap(Metric::macro_f1(), rows, 5, options);
  EXPECT_NEAR(bootstrap.difference, g["difference"].get<double>(), 1e-9);
  EXPECT_NEAR(bootstrap.low, g["low"].get<double>(), 1e-9);
  EXPECT_NEAR(bootstrap.high, g["high"].get<double>(), 1e-9);
  EXPECT_NEAR(bootstrap.p_value, g["bootstrap_p"].get<double>(), 1e-9);
  const auto permutation = paired_permutation(Metric::macro_f1(), rows, 5, options);
  EXPECT_NEAR(permutation.p_value, g["permutation_p"].get<double>(), 1e-9);
}

TEST(Paired, ComparesOnCommonRowsOnly) {
  const std::vector<std::int64_t> rows_a = {5, 1, 9, 3};
  const std::vector<int> truth_a = {0, 1, 1, 0};
  const std::vector<int> predicted_a = {0, 1, 0, 0};
  const std::vector<std::int64_t> rows_b = {3, 4, 5};
  const std::vector<int> truth_b = {0, 1, 0};
  const std::vector<int> predicted_b = {1, 1, 0};
  const Answers a{rows_a, truth_a, predicted_a};
  const Answers b{rows_b, truth_b, predicted_b};
  const auto common = common_rows(a, b).value();
  EXPECT_EQ(common.rows, (std::vector<std::int64_t>{3, 5}));
  EXPECT_EQ(common.a, (std::vector<int>{0, 0}));
  EXPECT_EQ(common.b, (std::vector<int>{1, 0}));
  const auto accuracy = compare_paired(Metric::accuracy(), a, b, 2).value();
  EXPECT_EQ(accuracy.n_common, 2);
  EXPECT_EQ(accuracy.test, "mcnemar");
  EXPECT_DOUBLE_EQ(accuracy.difference, 0.5);
  EXPECT_DOUBLE_EQ(accuracy.p_value, 1.0);
  EXPECT_EQ(compare_paired(Metric::macro_f1(), a, b, 2)->test, "permutation");
}

TEST(Paired, ACandidateAgainstItselfIsATie) {
  std::vector<std::int64_t> rows(40);
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<int> truth(40, 1);
  std::vector<int> predicted(40, 1);
  predicted[7] = 0;
  const Answers a{rows, truth, predicted};
  for (const Metric& metric : {Metric::accuracy(), Metric::macro_f1(), Metric::cost({0, 1, 4, 0}, 2)}) {
    const auto result = compare_paired(metric, a, a, 2).value();
    EXPECT_EQ(result.difference, 0);
    EXPECT_EQ(result.low, 0);
    EXPECT_EQ(result.p_value, 1.0);
  }
}

TEST(Paired, NoCommonRows) {
  const std::vector<std::int64_t> one = {1};
  const std::vector<std::int64_t> two = {2};
  const std::vector<int> x = {0};
  const auto result = compare_paired(Metric::accuracy(), {one, x, x}, {two, x, x}, 2).value();
  EXPECT_EQ(result.n_common, 0);
  EXPECT_EQ(result.p_value, 1);
}

TEST(Paired, RefusesWhatDoesNotBelongTogether) {
  const std::vector<std::int64_t> rows = {1, 2};
  const std::vector<std::int64_t> twice = {1, 1};
  const std::vector<int> zero = {0, 0};
  const std::vector<int> other = {0, 1};
  const std::vector<int> one = {0};
  EXPECT_FALSE(common_rows({rows, zero, zero}, {rows, other, zero}));
  EXPECT_FALSE(common_rows({twice, zero, zero}, {rows, zero, zero}));
  EXPECT_FALSE(common_rows({rows, one, zero}, {rows, zero, zero}));
  EXPECT_THROW(mcnemar(zero, one, zero), Exception);
}

TEST(Paired, HolmEqualsTheDefinition) {
  const Json golden = eval_golden();
  for (const Json& g : golden["holm"]) {
    const auto got = holm_adjust(numbers<double>(g["p"]));
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], g["adjusted"][i].get<double>(), 1e-12);
  }
}

TEST(PairedLosses, AgreeWithTheExactPermutationTest) {
  // Eight rows on which b is better by one: only two of 2^8 turnings are as extreme.
  const std::vector<double> a(8, 2.0), b(8, 1.0);
  const PairedResult r = paired_losses(a, b, {.resamples = 20000});
  EXPECT_DOUBLE_EQ(r.difference, 1.0);
  EXPECT_EQ(r.n_common, 8);
  EXPECT_NEAR(r.p_value, 2.0 / 256, 0.002);  // four standard errors of 20,000 draws
  EXPECT_DOUBLE_EQ(paired_losses(b, a, {.resamples = 20000}).difference, -1.0);
  EXPECT_DOUBLE_EQ(paired_losses(a, a).p_value, 1.0);
  EXPECT_DOUBLE_EQ(paired_losses({}, {}).p_value, 1.0);
}

}  // namespace
}  // namespace tailor
