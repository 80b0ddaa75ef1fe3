#include "eval/span_scores.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/result.h"
#include "eval/eval_golden.h"

namespace tailor {
namespace {

Json golden() {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  return read_json(std::string(tree ? tree : ".") + "/tests/golden/data/span_scores.json").value();
}

/// Of tags B- and I- alone.
TagRows numbered(const Json& rows, const Json& types) {
  TagRows out;
  for (const Json& row : rows) {
    std::vector<std::int32_t>& tags = out.emplace_back();
    for (const std::string tag : row) {
      std::int32_t type = 0;
      while (tag != "O" && types[static_cast<std::size_t>(type)] != tag.substr(2)) ++type;
      tags.push_back(tag == "O" ? kOutside : tag[0] == 'B' ? first_tag(type) : inner_tag(type));
    }
  }
  return out;
}

TEST(SpanScores, AreThoseOfSeqeval) {
  const Json g = golden();
  const TagRows truth = numbered(g["truth"], g["types"]), predicted = numbered(g["predicted"], g["types"]);
  const TagScores scores = bootstrap_tags(truth, predicted, {.resamples = 200, .seed = 3});
  EXPECT_NEAR(scores.precision.value, g["precision"].get<double>(), 1e-9);
  EXPECT_NEAR(scores.recall.value, g["recall"].get<double>(), 1e-9);
  EXPECT_NEAR(scores.f1.value, g["f1"].get<double>(), 1e-9);
  EXPECT_NEAR(scores.accuracy.value, g["accuracy"].get<double>(), 1e-9);
  for (const Interval& i : {scores.precision, scores.recall, scores.f1, scores.accuracy}) {
    EXPECT_LT(i.low, i.value);
    EXPECT_GT(i.high, i.value);
  }
  const auto by_type = count_by_type(truth, predicted, g["types"].size());
  for (std::size_t t = 0; t < by_type.size(); ++t) {
    const Json& expected = g["by_type"][g["types"][t].get<std::string>()];
    EXPECT_NEAR(by_type[t].precision(), expected["precision"].get<double>(), 1e-9);
    EXPECT_NEAR(by_type[t].recall(), expected["recall"].get<double>(), 1e-9);
    EXPECT_NEAR(by_type[t].f1(), expected["f1-score"].get<double>(), 1e-9);
    EXPECT_EQ(by_type[t].truth, expected["support"].get<std::int64_t>());
  }
}

TEST(SpanScores, NothingIsNoError) {
  const TagScores none = bootstrap_tags({}, {});
  EXPECT_EQ(none.f1.value, 0);
  EXPECT_EQ(bootstrap_tags({{0, 0}}, {{0, 0}}).f1.value, 0);  // no span, none said
  EXPECT_EQ(bootstrap_tags({{0, 0}}, {{0, 0}}).accuracy.value, 1);
  EXPECT_THROW(bootstrap_tags({{0, 0}}, {{0}}), Exception);
  EXPECT_THROW(bootstrap_tags({{0, 0}}, {}), Exception);
}

}  // namespace
}  // namespace tailor
