#include "fit/tune_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fit/line_chart.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Json metric(double value) {
  return Json{{"value", value}, {"low", value - 0.01}, {"high", value + 0.01}};
}

TuneReportInput of_labels() {
  TuneReportInput input;
  input.result =
      Json{{"method", "lora"},
           {"base_model", "a<b>"},
           {"seed", 1},
           {"threads", 2},
           {"settings", {{"learning_rate", 0.001}, {"lora", {{"r", 16}}}}},
           {"stopped", "early"},
           {"steps", 40},
           {"examples", 1280},
           {"tokens", 20000},
           {"trained_parameters", 345678},
           {"wall_seconds", 12.0},
           {"cpu_seconds", 20.0},
           {"peak_memory_bytes", 5e8},
           {"rollbacks", 1},
           {"metric", "accuracy"},
           {"best_step", 20},
           {"evaluations", Json::array({{{"step", 20}, {"loss", 0.5}, {"accuracy", 0.9}},
                                        {{"step", 40}, {"loss", 0.6}, {"accuracy", 0.8}}})},
           {"test", {{"n_scored", 100}, {"metrics", {{"accuracy", metric(0.9)}, {"macro_f1", metric(0.88)}}}}},
           {"served", {{"n_scored", 100}, {"same_labels", 99}, {"package_bytes", 9e7}}}};
  input.events.push_back({{"event", "start"}});
  for (int n = 1; n <= 40; ++n) {
    input.events.push_back({{"event", "step"},
                            {"step", n},
                            {"loss", 2.0 / n},
                            {"learning_rate", 1e-3 / n},
                            {"gradient_norm", 1.0},
                            {"tokens", 500 * n},
                            {"seconds", 0.3 * n}});
    if (n % 20 == 0)
      input.events.push_back({{"event", "evaluation"}, {"step", n}, {"loss", 0.5}, {"accuracy", n == 20 ? 0.9 : 0.8}});
  }
  input.data = "train & test.csv";
  return input;
}

TEST(TuneReport, SaysInSentencesWhatWasMeasured) {
  const std::string html = tune_report_html(of_labels());
  EXPECT_THAT(html, HasSubstr("90.0 % of 100 test rows right"));
  EXPECT_THAT(html, HasSubstr("The package gives 99 of 100 test rows the label that the trainer gave."));
  EXPECT_THAT(html, HasSubstr("It stopped early"));
  EXPECT_THAT(html, HasSubstr("The values of step 20 were kept, the best of 2 evaluations by accuracy"));
  EXPECT_THAT(html, HasSubstr("diverged 1 time"));
  EXPECT_THAT(html, HasSubstr("a&lt;b&gt;"));
  EXPECT_THAT(html, HasSubstr("train &amp; test.csv"));
  EXPECT_THAT(html, HasSubstr("kept: step 20"));
  EXPECT_THAT(html, HasSubstr("class=\"ring\""));
  EXPECT_THAT(html, Not(HasSubstr("://")));
  const std::string markdown = tune_report_markdown(of_labels());
  EXPECT_THAT(markdown, HasSubstr("| 20 | 0.5000 | 90.0 % | kept |"));
}

TEST(TuneReport, WithoutEventsOrEvaluationsItLeavesThemOut) {
  TuneReportInput input = of_labels();
  input.events.clear();
  input.result["best_step"] = nullptr;
  input.result["evaluations"] = Json::array();
  const std::string html = tune_report_html(input);
  EXPECT_THAT(html, Not(HasSubstr("How the training went")));
  EXPECT_THAT(html, HasSubstr("the last values were kept"));
  EXPECT_FALSE(tune_report_html({}).empty());
  EXPECT_FALSE(tune_report_markdown({}).empty());
}

TEST(LineChart, ManyPointsBecomeMeansAndNumbersThatAreNoneAreLeftOut) {
  LineChart chart{.title = "t", .y_title = "y", .curves = {{.name = "a"}}};
  EXPECT_EQ(line_chart(chart), "");
  for (int i = 0; i < 100000; ++i)
    chart.curves[0].points.push_back({static_cast<double>(i), i % 2 == 0 ? 1.0 : std::nan("")});
  const std::string svg = line_chart(chart);
  EXPECT_LT(svg.size(), 20000u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  chart.curves[0].points = {{5, 0.25}};
  chart.percent = true;
  EXPECT_THAT(line_chart(chart), HasSubstr("<circle"));
  const auto mean = running_mean({{0, 2}, {1, 4}, {2, 6}, {3, 8}}, 2);
  EXPECT_EQ(mean[0].y, 2);
  EXPECT_EQ(mean[1].y, 3);
  EXPECT_EQ(mean[3].y, 7);
}

}  // namespace
}  // namespace tailor
