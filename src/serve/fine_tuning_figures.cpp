#include "serve/fine_tuning_figures.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace tailor {
namespace {

std::string plain_number(const Json& metrics, const char* key) {
  const auto found = metrics.find(key);
  return found != metrics.end() && found->is_number() ? fmt::format("{:.6g}", found->get<double>()) : std::string();
}

}  // namespace

Json with_other_names(Json metrics) {
  constexpr std::pair<const char*, const char*> kSame[] = {
      {"train_accuracy", "train_mean_token_accuracy"},
      {"full_valid_loss", "valid_loss"},
      {"full_valid_mean_token_accuracy", "valid_mean_token_accuracy"}};
  for (const auto& [other, name] : kSame) {
    if (const auto found = metrics.find(name); found != metrics.end()) metrics[other] = Json(*found);
  }
  return metrics;
}

std::string csv_of(const JobFigures& steps) {
  constexpr std::array kColumns = {"train_loss",
                                   "train_accuracy",
                                   "valid_loss",
                                   "valid_mean_token_accuracy",
                                   "train_mean_token_accuracy",
                                   "full_valid_loss",
                                   "full_valid_mean_token_accuracy"};
  std::string csv = fmt::format("step,{}\n", fmt::join(kColumns, ","));
  for (const auto& [step, metrics] : steps) {
    csv += std::to_string(step);
    for (const char* column : kColumns) csv += "," + plain_number(metrics, column);
    csv += "\n";
  }
  return csv;
}

Result<JobFigures> figures_of(const JobStore& jobs, const Job& job, Logger& log) {
  JobFigures steps;
  PageQuery query{.after = {}, .limit = 1000, .newest_first = false, .owner = {}};
  for (bool more = true; more;) {
    const auto page = jobs.events(job.id, query);
    if (!page.has_value() && page.error().code == ErrorCode::kUnavailable) return page.error();
    if (!page.has_value()) {
      log.warning(fmt::format("{}: {}", job.id, to_string(page.error())));
      break;
    }
    for (const JobEvent& event : page->data) {
      if (event.type == "metrics" && event.data.is_object())
        steps[event.data.value("step", std::int64_t{0})].update(event.data);
    }
    more = page->has_more && !page->data.empty();
    if (more) query.after = page->data.back().id;
  }
  return steps;
}

}  // namespace tailor
