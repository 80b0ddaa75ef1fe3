#include "learn/logistic_regression.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "learn/learn_golden.h"
#include "learn/tfidf.h"

namespace tailor {
namespace {

const LogisticOptions kTight{.tolerance = 1e-9, .loss_tolerance = 0, .max_iterations = 5000};

LogisticOptions tight(double c, bool balanced = false) {
  LogisticOptions o = kTight;
  o.c = c;
  o.balanced = balanced;
  return o;
}

void expect_probabilities(const Matrix& got, const Json& want, double tolerance = 1e-4) {
  ASSERT_EQ(got.data.size(), want["probabilities"].size());
  for (std::size_t i = 0; i < got.data.size(); ++i) {
    ASSERT_NEAR(got.data[i], want["probabilities"][i].get<double>(), tolerance) << "entry " << i;
  }
}

struct Problem {
  Matrix train;
  Matrix test;
  std::vector<int> labels;
  int classes = 0;
};

Problem problem(const Json& g) {
  const auto rows = g["rows"].get<std::size_t>();
  const auto cols = g["cols"].get<std::size_t>();
  Problem p{matrix(g["x"], cols, 0, rows - 20), matrix(g["x"], cols, rows - 20, rows), numbers<int>(g["labels"]),
            g["classes"].get<int>()};
  p.labels.resize(rows - 20);
  return p;
}

TEST(LogisticRegression, DenseEqualsScikitLearn) {
  const Json golden = learn_golden();
  for (const Json& g : golden["logistic"]) {
    const Problem p = problem(g);
    for (const Json& want : g["plain"]) {
      const auto model = fit_logistic(p.train, p.labels, p.classes, tight(want["c"].get<double>())).value();
      EXPECT_TRUE(model.converged);
      expect_probabilities(model.probabilities(p.test), want);
    }
    const double c = g["balanced"]["c"].get<double>();
    expect_probabilities(fit_logistic(p.train, p.labels, p.classes, tight(c, true))->probabilities(p.test),
                         g["balanced"]);
    std::vector<float> weights;
    Rng rng(g["seed"].get<std::uint64_t>(), 1);
    for (std::size_t i = 0; i < p.labels.size(); ++i) weights.push_back(static_cast<float>(rng.uniform()));
    expect_probabilities(fit_logistic(p.train, p.labels, p.classes, tight(c), weights)->probabilities(p.test),
                         g["weighted"]);
    expect_probabilities(fit_logistic(p.train, p.labels, p.classes, tight(c, true), weights)->probabilities(p.test),
                         g["weighted_balanced"]);
  }
}

TEST(LogisticRegression, SparseEqualsScikitLearn) {
  const Json golden = learn_golden();
  const auto train = numbers<std::string>(golden["tfidf"]["train"]);
  const auto test = numbers<std::string>(golden["tfidf"]["test"]);
  const auto tfidf = Tfidf::fit(train, {.terms = {.max_n = 2}, .sublinear_tf = true}).value();
  const Json& g = golden["sparse_logistic"];
  const auto labels = numbers<int>(g["labels"]);
  const auto model = fit_logistic(tfidf.transform(train), labels, 3, tight(g["fit"]["c"].get<double>())).value();
  expect_probabilities(model.probabilities(tfidf.transform(test)), g["fit"]);
}

TEST(LogisticRegression, SparseAndDenseAgree) {
  const Json golden = learn_golden();
  const Problem p = problem(golden["logistic"][0]);
  CsrMatrix sparse;
  sparse.rows = p.train.rows;
  sparse.cols = p.train.cols;
  for (std::size_t i = 0; i < p.train.rows; ++i) {
    for (std::size_t j = 0; j < p.train.cols; ++j) {
      sparse.columns.push_back(static_cast<std::uint32_t>(j));
      sparse.values.push_back(p.train.row(i)[j]);
    }
    sparse.starts.push_back(sparse.columns.size());
  }
  const Matrix a = fit_logistic(p.train, p.labels, p.classes, tight(1))->probabilities(p.test);
  const Matrix b = fit_logistic(sparse, p.labels, p.classes, tight(1))->probabilities(p.test);
  for (std::size_t i = 0; i < a.data.size(); ++i) EXPECT_NEAR(a.data[i], b.data[i], 1e-5);
}

TEST(LogisticRegression, ASparseRowAloneHasTheSameProbabilities) {
  Rng rng(7);
  CsrMatrix x;
  x.rows = 200;
  x.cols = 30;
  std::vector<int> labels;
  std::vector<std::size_t> all(x.rows);
  std::iota(all.begin(), all.end(), std::size_t{0});
  for (std::size_t i = 0; i < x.rows; ++i) {
    labels.push_back(static_cast<int>(rng.below(3)));
    for (std::uint32_t j = 0; j < 30; j += 1 + static_cast<std::uint32_t>(rng.below(5))) {
      x.columns.push_back(j);
      x.values.push_back(static_cast<float>(rng.normal()));
    }
    x.starts.push_back(x.columns.size());
  }
  const auto model = fit_logistic(x, labels, 3).value();
  const Matrix together = model.probabilities(x);
  for (const std::size_t i : all) {
    const Matrix alone = model.probabilities(gather_rows(x, std::span(&all[i], 1)));
    for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(alone.row(0)[k], together.row(i)[k]) << i;
  }
}

TEST(LogisticRegression, GridWithWarmStartsEqualsSingleFitsInAnyOrder) {
  const Json golden = learn_golden();
  const Problem p = problem(golden["logistic"][0]);
  const std::vector<double> grid = {30, 0.1, 1};
  const auto models = fit_logistic_grid(p.train, p.labels, p.classes, grid, kTight).value();
  for (std::size_t i = 0; i < grid.size(); ++i) {
    EXPECT_EQ(models[i].c, grid[i]);
    const Matrix a = models[i].probabilities(p.test);
    const Matrix b = fit_logistic(p.train, p.labels, p.classes, tight(grid[i]))->probabilities(p.test);
    for (std::size_t j = 0; j < a.data.size(); ++j) EXPECT_NEAR(a.data[j], b.data[j], 5e-5);  // what f32 leaves open
  }
  const auto resumed = fit_logistic(p.train, p.labels, p.classes, {.c = 1}, {}, &models[2]).value();
  EXPECT_LE(resumed.iterations, 2);
}

TEST(LogisticRegression, ThreadsDoNotChangeABit) {
  Rng rng(5);
  Matrix x(3000, 12);
  std::vector<int> labels;
  for (std::size_t i = 0; i < x.rows; ++i) {
    labels.push_back(static_cast<int>(rng.below(4)));
    for (float& v : x.row(i)) v = static_cast<float>(rng.normal() + 0.3 * labels.back());
  }
  LogisticOptions options;
  const auto one = fit_logistic(x, labels, 4, options).value();
  options.threads = 3;
  const auto three = fit_logistic(x, labels, 4, options).value();
  EXPECT_EQ(one.weights.data, three.weights.data);
  EXPECT_EQ(one.probabilities(x, 1).data, three.probabilities(x, 3).data);
}

TEST(LogisticRegression, AClassWithoutRowsHasProbabilityZero) {
  const Json golden = learn_golden();
  Problem p = problem(golden["logistic"][1]);
  for (int& y : p.labels) y = y == 0 ? 1 : 3;
  const auto model = fit_logistic(p.train, p.labels, 5, tight(10)).value();
  EXPECT_EQ(model.output_class, (std::vector<int>{1, 3}));
  const Matrix q = model.probabilities(p.test);
  const Json& want = golden["logistic"][1]["plain"][1]["probabilities"];
  for (std::size_t i = 0; i < q.rows; ++i) {
    EXPECT_EQ(q.row(i)[0], 0);
    EXPECT_NEAR(q.row(i)[1], want[2 * i].get<double>(), 1e-4);
    EXPECT_NEAR(q.row(i)[3], want[2 * i + 1].get<double>(), 1e-4);
  }
}

TEST(LogisticRegression, SavedModelGivesTheSameProbabilities) {
  const Json golden = learn_golden();
  for (const Json& g : golden["logistic"]) {
    const Problem p = problem(g);
    const auto model = fit_logistic(p.train, p.labels, p.classes).value();
    TemporaryDirectory dir;
    const auto file = dir.path() / "head.safetensors";
    model.save(file).value();
    const auto loaded = LogisticModel::load(file).value();
    EXPECT_EQ(loaded.probabilities(p.test).data, model.probabilities(p.test).data);
    EXPECT_EQ(loaded.c, model.c);
    EXPECT_EQ(loaded.iterations, model.iterations);
  }
}

TEST(LogisticRegression, LoadRefusesWhatItDidNotWrite) {
  TemporaryDirectory dir;
  const auto file = dir.path() / "x.safetensors";
  EXPECT_FALSE(LogisticModel::load(file));
  const std::vector<float> w(6);
  const auto write = [&](std::map<std::string, std::string> meta) {
    const std::vector<SafeTensor> tensors = {safe_tensor<float>("weight", "F32", {3, 2}, w),
                                             safe_tensor<float>("bias", "F32", {3}, std::span(w).subspan(0, 3))};
    write_safetensors(file, tensors, meta).value();
    return LogisticModel::load(file).has_value();
  };
  const std::string format = "tailor-logistic-regression-1";
  EXPECT_TRUE(write({{"format", format}, {"classes", "3"}, {"output_class", "[0,1,2]"}}));
  EXPECT_FALSE(write({}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "3"}, {"output_class", "[0,1]"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "3"}, {"output_class", "[0,1,3]"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "3"}, {"output_class", "[0,2,1]"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "-1"}, {"output_class", "[0,1,2]"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "x"}, {"output_class", "[0,1,2]"}}));
}

TEST(LogisticRegression, BadInputIsOneSentence) {
  const Matrix x(4, 2);
  const std::vector<int> labels = {0, 1, 0, 1};
  EXPECT_FALSE(fit_logistic(Matrix(0, 2), {}, 2));
  EXPECT_FALSE(fit_logistic(x, std::vector<int>{0, 1}, 2));
  EXPECT_FALSE(fit_logistic(x, std::vector<int>{0, 0, 0, 0}, 2));
  EXPECT_FALSE(fit_logistic(x, std::vector<int>{0, 1, 2, 0}, 2));
  EXPECT_FALSE(fit_logistic(x, labels, 2, {.c = 0}));
  EXPECT_FALSE(fit_logistic(x, labels, 2, {.max_iterations = 0}));
  EXPECT_FALSE(fit_logistic(x, labels, 2, {}, std::vector<float>{1, 1, -1, 1}));
  Matrix bad(4, 2);
  bad.data[5] = std::nanf("");
  const auto refused = fit_logistic(bad, labels, 2);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("row 2"), std::string::npos);
  EXPECT_THROW((void)fit_logistic(x, labels, 2)->probabilities(Matrix(1, 3)), Exception);
}

TEST(LogisticRegression, CanBeCancelledAndTellsItsProgress) {
  const Json golden = learn_golden();
  const Problem p = problem(golden["logistic"][0]);
  CancelToken cancel;
  int calls = 0;
  const auto result =
      fit_logistic(p.train, p.labels, p.classes, kTight, {}, nullptr, &cancel, [&](const Progress& progress) {
        EXPECT_GT(progress.loss, 0);
        if (++calls == 3) cancel.cancel();
      });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(calls, 3);
}

// Words that always stand together: a direction that treats them one by one is a thousand times too long, and the loss
// of the mislabelled rows rises slowly over most of its length.
TEST(LogisticRegression, AWeakPenaltyFromNothingFindsItsWay) {
  constexpr std::size_t kTogether = 1500, kRows = 400;
  const auto value = static_cast<float>(1 / std::sqrt(static_cast<double>(kTogether)));
  CsrMatrix x;
  x.rows = kRows;
  x.cols = 2 * kTogether;
  x.starts = {0};
  std::vector<int> labels;
  for (std::size_t r = 0; r < kRows; ++r) {
    const std::size_t side = r % 2;
    for (std::size_t w = 0; w < kTogether; ++w) {
      x.columns.push_back(static_cast<std::uint32_t>(side * kTogether + w));
      x.values.push_back(value);
    }
    x.starts.push_back(x.columns.size());
    labels.push_back(static_cast<int>(r % 20 == 0 ? 1 - side : side));  // one in twenty is mislabelled
  }
  const LogisticModel model = fit_logistic(x, labels, 2, {.c = 3000}).value();
  const Matrix p = model.probabilities(x, 1);
  EXPECT_NEAR(p.row(0)[1], 0.1, 0.01);  // the share of label 1 among rows of that side
  EXPECT_NEAR(p.row(1)[1], 1.0, 0.01);
}

TEST(SelectC, FoldsArePooledAndTheBestIsOnTheCurve) {
  const Json golden = learn_golden();
  const Problem p = problem(golden["logistic"][0]);
  std::vector<RowSplit> folds(3);
  for (std::size_t i = 0; i < p.labels.size(); ++i) {
    for (std::size_t f = 0; f < 3; ++f) (i % 3 == f ? folds[f].validation : folds[f].train).push_back(i);
  }
  std::size_t scored = 0;
  const auto accuracy = [&](std::span<const int> truth, std::span<const int> predicted) {
    scored = truth.size();
    double right = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) right += truth[i] == predicted[i];
    return right / static_cast<double>(truth.size());
  };
  const std::vector<double> grid = {0.001, 1, 100};
  const auto selection = select_c(p.train, p.labels, p.classes, folds, grid, accuracy).value();
  EXPECT_EQ(scored, p.labels.size());
  ASSERT_EQ(selection.curve.size(), 3u);
  double best = 0;
  for (const CPoint& point : selection.curve) best = std::max(best, point.score);
  for (const CPoint& point : selection.curve) {
    if (point.c == selection.best_c) {
      EXPECT_EQ(point.score, best);
    }
  }
  EXPECT_GT(selection.curve[1].score, selection.curve[0].score);
  const auto flat = [](std::span<const int>, std::span<const int>) { return 1.0; };
  const auto by_loss = select_c(p.train, p.labels, p.classes, folds, grid, flat).value();
  for (const CPoint& point : by_loss.curve) {
    if (point.c == by_loss.best_c) continue;
    for (const CPoint& other : by_loss.curve) {
      if (other.c == by_loss.best_c) {
        EXPECT_LE(other.log_loss, point.log_loss);
      }
    }
  }
}

TEST(SelectC, RefusesEmptyGridsAndSplits) {
  const Matrix x(4, 2);
  const std::vector<int> labels = {0, 1, 0, 1};
  const auto score = [](std::span<const int>, std::span<const int>) { return 0.0; };
  const std::vector<double> grid = {1};
  const std::vector<RowSplit> no_validation = {{{0, 1, 2, 3}, {}}};
  const std::vector<RowSplit> beyond = {{{0, 1, 2}, {4}}};
  const std::vector<RowSplit> fine = {{{0, 1, 2}, {3}}};
  EXPECT_TRUE(select_c(x, labels, 2, fine, grid, score));
  EXPECT_FALSE(select_c(x, labels, 2, fine, {}, score));
  EXPECT_FALSE(select_c(x, labels, 2, {}, grid, score));
  EXPECT_FALSE(select_c(x, labels, 2, no_validation, grid, score));
  EXPECT_FALSE(select_c(x, labels, 2, beyond, grid, score));
}

}  // namespace
}  // namespace tailor
