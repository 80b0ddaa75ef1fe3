#include "learn/neighbours.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "learn/learn_golden.h"

namespace tailor {
namespace {

Matrix random_rows(std::size_t n, std::size_t d, std::uint64_t seed) {
  Matrix m(n, d);
  Rng rng(seed);
  for (float& v : m.data) v = static_cast<float>(rng.normal());
  return m;
}

double accuracy(std::span<const int> truth, std::span<const int> predicted) {
  double right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) right += truth[i] == predicted[i];
  return right / static_cast<double>(truth.size());
}

struct Golden {
  NeighbourIndex index;
  Matrix queries;
  std::vector<int> labels;
  std::vector<int> truth;
};

Golden golden_case(const Json& g) {
  auto labels = numbers<int>(g["labels"]);
  Golden out{NeighbourIndex::make(matrix(g["x"], 12, 0, 120)).value(), matrix(g["x"], 12, 120, 140), labels, labels};
  out.labels.resize(120);
  out.truth.erase(out.truth.begin(), out.truth.begin() + 120);
  return out;
}

TEST(Neighbours, EqualScikitLearn) {
  const Json golden = learn_golden();
  const Json& g = golden["neighbours"];
  const Golden c = golden_case(g);
  const auto k = g["k"].get<std::size_t>();
  const TopK top = c.index.top_k(c.queries, k);
  EXPECT_EQ(top.rows, numbers<std::uint32_t>(g["index"]));
  for (std::size_t i = 0; i < top.similarities.size(); ++i) {
    EXPECT_NEAR(top.similarities[i], g["similarity"][i].get<double>(), 1e-6);
  }
  const Matrix uniform = neighbour_probabilities(top, c.labels, 4, {.k = k});
  const Matrix soft = neighbour_probabilities(top, c.labels, 4, {.k = k, .temperature = 0.05});
  for (std::size_t i = 0; i < uniform.data.size(); ++i) {
    EXPECT_NEAR(uniform.data[i], g["uniform"][i].get<double>(), 2e-6);
    EXPECT_NEAR(soft.data[i], g["softmax_0_05"][i].get<double>(), 1e-5);
  }
}

TEST(Neighbours, BlocksAndThreadsFindWhatOneAtATimeFinds) {
  const Matrix base = random_rows(4500, 16, 1);  // more than two blocks of rows and of queries
  const Matrix queries = random_rows(300, 16, 2);
  const auto index = NeighbourIndex::make(base).value();
  const TopK all = index.top_k(queries, 5, 2);
  for (std::size_t q = 0; q < queries.rows; q += 37) {
    Matrix one(1, 16);
    std::ranges::copy(queries.row(q), one.row(0).begin());
    const TopK single = index.top_k(one, 5);
    double best = -2;
    for (std::size_t i = 0; i < base.rows; ++i) {
      double sum = 0;
      double squares = 0;
      for (std::size_t j = 0; j < 16; ++j) {
        sum += static_cast<double>(base.row(i)[j]) * static_cast<double>(one.data[j]);
        squares += static_cast<double>(base.row(i)[j]) * static_cast<double>(base.row(i)[j]);
      }
      best = std::max(best, sum / std::sqrt(squares));
    }
    double length = 0;
    for (const float v : one.data) length += static_cast<double>(v) * static_cast<double>(v);
    EXPECT_NEAR(single.similarities[0], best / std::sqrt(length), 1e-6);
    for (std::size_t j = 0; j < 5; ++j) {
      EXPECT_EQ(single.rows[j], all.rows[q * 5 + j]);
      EXPECT_EQ(single.similarities[j], all.similarities[q * 5 + j]);  // to the bit
    }
  }
}

TEST(Neighbours, OwnRowsLeaveThemselvesOut) {
  const auto index = NeighbourIndex::make(random_rows(50, 4, 3)).value();
  const TopK top = index.top_k_of_own_rows(60);
  EXPECT_EQ(top.k, 49u);
  for (std::size_t q = 0; q < 50; ++q) {
    for (std::size_t j = 0; j < top.k; ++j) EXPECT_NE(top.rows[q * top.k + j], q);
  }
}

TEST(Neighbours, EvenVotesGoToTheNearerAndEqualRowsToTheFirst) {
  Matrix base(4, 2);
  base.data = {1, 0, 1, 0, 0.9f, 0.1f, 0, 1};
  Matrix query(1, 2);
  query.data = {2, 0};
  const auto index = NeighbourIndex::make(base).value();
  const TopK top = index.top_k(query, 4);
  EXPECT_EQ(top.rows, (std::vector<std::uint32_t>{0, 1, 2, 3}));
  const std::vector<int> labels = {1, 1, 0, 0};
  const Matrix p = neighbour_probabilities(top, labels, 3, {.k = 4});
  EXPECT_GT(p.data[1], p.data[0]);
  EXPECT_NEAR(p.data[0], 0.5, 1e-5);
  const Matrix smooth = neighbour_probabilities(top, labels, 3, {.k = 1, .smoothing = 0.3});
  EXPECT_NEAR(smooth.data[2], 0.1, 1e-6);
  EXPECT_NEAR(smooth.data[1], 0.8, 1e-6);
}

TEST(Neighbours, AZeroQueryStillAnswers) {
  const auto index = NeighbourIndex::make(random_rows(5, 3, 4)).value();
  const TopK top = index.top_k(Matrix(1, 3), 2);
  EXPECT_EQ(top.similarities, (std::vector<float>{0, 0}));
  EXPECT_EQ(top.rows, (std::vector<std::uint32_t>{0, 1}));
}

TEST(Neighbours, SelectionKeepsTheBest) {
  const Json golden = learn_golden();
  const Golden c = golden_case(golden["neighbours"]);
  const std::vector<std::size_t> ks = {1, 5, 1000, 15};
  const std::vector<double> temperatures = {0.02, 0.2};
  const TopK on_validation = c.index.top_k(c.queries, 15);
  const auto a = select_neighbours(on_validation, c.labels, c.truth, 4, ks, temperatures, accuracy).value();
  EXPECT_EQ(a.curve.size(), 1u + 3u + 3u);  // 1000 becomes 15, which is tried once
  const auto b =
      select_neighbours(c.index.top_k_of_own_rows(15), c.labels, c.labels, 4, ks, temperatures, accuracy).value();
  for (const auto& selection : {a, b}) {
    double best = 0;
    double chosen = -1;
    for (const auto& point : selection.curve) {
      best = std::max(best, point.score);
      if (point.options.k == selection.best.k && point.options.temperature == selection.best.temperature)
        chosen = point.score;
    }
    EXPECT_EQ(chosen, best);
  }
  EXPECT_FALSE(select_neighbours(on_validation, c.labels, c.labels, 4, ks, temperatures, accuracy));
  EXPECT_FALSE(select_neighbours(on_validation, c.labels, c.truth, 4, {}, temperatures, accuracy));
}

TEST(Neighbours, SavedModelGivesTheSameAnswers) {
  const Json golden = learn_golden();
  Golden c = golden_case(golden["neighbours"]);
  const NeighbourModel model{c.index, c.labels, 4, {.k = 7, .temperature = 0.07}};
  TemporaryDirectory dir;
  const auto file = dir.path() / "neighbours.safetensors";
  model.save(file).value();
  const auto loaded = NeighbourModel::load(file).value();
  EXPECT_EQ(loaded.probabilities(c.queries).data, model.probabilities(c.queries).data);
  EXPECT_EQ(loaded.options.temperature, 0.07);
}

TEST(Neighbours, RefusesWhatCannotBeSearched) {
  EXPECT_FALSE(NeighbourIndex::make(Matrix(0, 3)));
  Matrix bad(2, 2);
  bad.data[3] = std::nanf("");
  const auto refused = NeighbourIndex::make(bad);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("row 1"), std::string::npos);
  const auto index = NeighbourIndex::make(random_rows(5, 3, 4)).value();
  EXPECT_THROW(index.top_k(Matrix(1, 2), 1), Exception);
  EXPECT_THROW(index.top_k(Matrix(1, 3), 0), Exception);

  TemporaryDirectory dir;
  const auto file = dir.path() / "x.safetensors";
  EXPECT_FALSE(NeighbourModel::load(file));
  const std::vector<float> rows = {1, 0, 0, 1};
  const std::vector<int> labels = {0, 3};
  const auto write = [&](std::map<std::string, std::string> meta) {
    const std::vector<SafeTensor> tensors = {safe_tensor<float>("embeddings", "F32", {2, 2}, rows),
                                             safe_tensor<int>("labels", "I32", {2}, labels)};
    write_safetensors(file, tensors, meta).value();
    return NeighbourModel::load(file).has_value();
  };
  const std::string format = "tailor-neighbours-1";
  EXPECT_TRUE(write({{"format", format}, {"classes", "4"}, {"k", "1"}, {"temperature", "0"}, {"smoothing", "0"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "3"}, {"k", "1"}, {"temperature", "0"}, {"smoothing", "0"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "4"}, {"k", "0"}, {"temperature", "0"}, {"smoothing", "0"}}));
  EXPECT_FALSE(write({{"format", format}, {"classes", "4"}, {"k", "1"}, {"smoothing", "0"}}));
  EXPECT_FALSE(write({{"classes", "4"}, {"k", "1"}, {"temperature", "0"}, {"smoothing", "0"}}));
}

}  // namespace
}  // namespace tailor
