#include "fit/report_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "fit/budget.h"

namespace tailor {

std::string format_percent_bare(double share) {
  return fmt::format("{:.1f}", 100 * share);
}

std::string format_percent(double share) {
  return format_percent_bare(share) + " %";
}

std::string format_interval(const Interval& i) {
  return fmt::format("{:.1f}–{:.1f}", 100 * i.low, 100 * i.high);
}

std::string format_plus_minus(const Interval& i) {
  return fmt::format("{:.1f} ±{:.1f}", 100 * i.value, 100 * std::max(i.high - i.value, i.value - i.low));
}

std::string format_count(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string format_ms(double ms) {
  if (!(ms > 0)) return "0";
  if (ms < 0.995) return fmt::format("{:.2f}", std::max(ms, 0.01));
  if (ms < 9.95) return fmt::format("{:.1f}", ms);
  return format_count(static_cast<std::uint64_t>(std::llround(ms)));
}

std::string format_significant(double value, int digits) {
  if (value == 0 || !std::isfinite(value)) return value == 0 ? "0" : "–";
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(value))));
  const int decimals = std::clamp(digits - 1 - exponent, 0, 12);
  if (decimals == 0 && value > 0) return format_count(static_cast<std::uint64_t>(std::llround(value)));
  return fmt::format("{:.{}f}", value, decimals);
}

std::string format_cost(double value) {
  return value > 0 && value < 1e-5 ? "<0.00001" : format_significant(value, 2);
}

std::string format_p(double p) {
  return p < 0.001 ? "p < 0.001" : fmt::format("p = {:.{}f}", p, p < 0.0995 ? 3 : 2);
}

std::string format_short_seconds(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f}s", seconds);
  const long whole = std::lround(seconds);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
}

std::string format_scalar(const Json& value) {
  switch (value.type()) {
    case Json::value_t::string:
      return value.get<std::string>();
    case Json::value_t::boolean:
      return value.get<bool>() ? "yes" : "no";
    case Json::value_t::null:
      return "–";
    case Json::value_t::number_float: {
      const double number = value.get<double>();
      const double size = std::abs(number);
      return size != 0 && (size < 1e-4 || size >= 1e7) ? fmt::format("{:.3g}", number) : fmt::format("{:.6g}", number);
    }
    case Json::value_t::array: {
      std::string out;
      for (const Json& item : value) out += (out.empty() ? "" : ", ") + format_scalar(item);
      return out.empty() ? "none" : out;
    }
    case Json::value_t::object:
      return format_settings(value);
    default:
      return dump_json(value);
  }
}

std::string format_settings(const Json& object) {
  if (!object.is_object()) return format_scalar(object);
  std::string out;
  for (const auto& [key, value] : object.items()) {
    const std::string text = value.is_object() ? "{" + format_settings(value) + "}" : format_scalar(value);
    out += (out.empty() ? "" : ", ") + words_of_key(key) + " = " + text;
  }
  return out;
}

std::string words_of_key(std::string_view key) {
  std::string out(key);
  std::replace(out.begin(), out.end(), '_', ' ');
  return out;
}

std::string plural(std::uint64_t n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", format_count(n), n == 1 ? one : many);
}

double json_number(const Json& object, std::string_view key) {
  if (!object.is_object()) return 0;
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : 0;
}

std::string MetricName::format(double score) const {
  return kind == Kind::kCost ? format_significant(-score, 3) : format_percent(score);
}

MetricName metric_name(std::string_view option) {
  if (option == "macro_f1") return {MetricName::Kind::kMacroF1, "macro-F1"};
  if (option.starts_with("f1:")) return {MetricName::Kind::kClassF1, "F1 of " + std::string(option.substr(3))};
  if (option.starts_with("cost")) return {MetricName::Kind::kCost, "cost a row"};
  return {MetricName::Kind::kAccuracy, "accuracy"};
}

}  // namespace tailor
