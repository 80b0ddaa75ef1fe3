// The page of `tailor top`.

#include "serve/top_view.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "serve/metric_text.h"

namespace tailor {
namespace {

/// A server with one base model and one adapter that answered `answers` requests.
TopSnapshot snapshot(int answers, double at_s) {
  MetricText text(MetricText::Format::kPrometheus);
  const auto count = static_cast<std::uint64_t>(answers);
  const MetricLabels base{{"model", "base"}}, adapter{{"model", "support\x1b[2J"}};
  text.gauge("tailor_build_info", "h");
  text.sample({{"version", "9.9"}}, std::uint64_t{1});
  text.gauge("tailor_model_info", "h");
  text.sample({{"model", "base"}, {"parent", ""}, {"answers", "text"}}, std::uint64_t{1});
  text.sample({{"model", "support\x1b[2J"}, {"parent", "base"}, {"answers", "text"}}, std::uint64_t{1});
  text.counter("tailor_http_requests_total", "h");
  text.sample({{"method", "POST"}, {"route", "/v1/completions"}, {"status", "2xx"}}, count);
  text.sample({{"method", "POST"}, {"route", "/v1/completions"}, {"status", "5xx"}}, std::uint64_t{3});
  text.gauge("tailor_requests_running", "h");
  text.sample(base, std::uint64_t{7});
  text.gauge("tailor_kv_cache_usage_ratio", "h");
  text.sample(base, 0.5);
  text.counter("tailor_generation_tokens_total", "h");
  text.sample(base, 100 * count);
  text.counter("tailor_prefix_cache_queries_total", "h");
  text.sample(base, 10 * count);
  text.counter("tailor_prefix_cache_hits_total", "h");
  text.sample(base, 4 * count);
  Histogram first(kFirstTokenSeconds), none(kFirstTokenSeconds);
  for (int i = 0; i < answers; ++i) first.observe(i < 100 ? 0.03 : 3);
  text.family("tailor_time_to_first_token_seconds", MetricText::Kind::kHistogram, "h");
  text.histogram(base, first);
  text.histogram(adapter, none);
  return {SteadyTime() + std::chrono::milliseconds(static_cast<long>(at_s * 1000)),
          parse_metrics(std::move(text).finish()).value()};
}

std::vector<std::string> lines_of(const std::string& page) {
  std::vector<std::string> out;
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

TEST(TopView, RatesAndTimesAreOfTheSpanBetweenTwoLooks) {
  const TopSnapshot before = snapshot(100, 10), now = snapshot(150, 20);
  const std::string page = top_page(before, now, "http://h:1", {.columns = 120, .rows = 40});
  EXPECT_NE(page.find("tailor 9.9  http://h:1"), std::string::npos) << page;
  EXPECT_NE(page.find("last 10 s: 5.0 requests/s  failed 0"), std::string::npos) << page;
  EXPECT_NE(page.find("500.0"), std::string::npos) << page;  // tokens a second
  EXPECT_NE(page.find("####....   50 %   40 %"), std::string::npos) << page;
  EXPECT_NE(page.find("3.75 s"), std::string::npos) << page;  // p50 of the fifty in (2.5, 5] alone
  EXPECT_NE(page.find(" + support?[2J"), std::string::npos) << page;
  const std::string whole = top_page(now, now, "http://h:1", {.columns = 120, .rows = 40});
  EXPECT_NE(whole.find("since start"), std::string::npos);
  EXPECT_NE(whole.find("failed 3"), std::string::npos);
  EXPECT_NE(whole.find("35 ms"), std::string::npos) << whole;  // p50 of all: 75 of 100 into (20 ms, 40 ms]
}

TEST(TopView, FitsItsTerminalAndSendsNoForeignControls) {
  const TopSnapshot now = snapshot(3, 1);
  for (const TopSize size :
       {TopSize{80, 24, false}, TopSize{20, 5, false}, TopSize{1, 1, false}, TopSize{300, 100, false}}) {
    const std::string page = top_page(now, now, "http://127.0.0.1:8080", size);
    const auto lines = lines_of(page);
    EXPECT_LE(lines.size(), static_cast<std::size_t>(size.rows));
    for (const std::string& line : lines) {
      EXPECT_LE(line.size(), static_cast<std::size_t>(size.columns));
      EXPECT_EQ(line.find('\x1b'), std::string::npos);
    }
  }
  EXPECT_NE(top_page(now, now, "u", {80, 24, true}).find("\x1b[31m"), std::string::npos);  // failures in red
}

TEST(TopView, ACounterThatFellBeganAnew) {
  const std::string page = top_page(snapshot(100, 10), snapshot(20, 20), "u", {.columns = 120, .rows = 40});
  EXPECT_NE(page.find("2.3 requests/s"), std::string::npos) << page;
  EXPECT_NE(page.find(" 200.0 "), std::string::npos) << page;
}

TEST(TopView, QuantilesLieWithinTheirBucket) {
  const double none = std::numeric_limits<double>::infinity();
  EXPECT_LT(histogram_quantile({}, .5), 0);
  EXPECT_LT(histogram_quantile({{1, 0}, {none, 0}}, .5), 0);
  EXPECT_DOUBLE_EQ(histogram_quantile({{1, 0}, {2, 10}, {none, 10}}, .5), 1.5);
  EXPECT_DOUBLE_EQ(histogram_quantile({{1, 4}, {2, 4}, {none, 4}}, .25), 0.25);
  EXPECT_DOUBLE_EQ(histogram_quantile({{1, 1}, {2, 1}, {none, 4}}, .9), 2);  // above all bounds
}

}  // namespace
}  // namespace tailor
