#pragma once
/// Numbers and names as the table and the report show them. Pure; no locale.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"
#include "eval/intervals.h"

namespace tailor {

std::string format_percent(double share);                  // 0.9291 -> "92.9 %"
std::string format_percent_bare(double share);             // "92.9"
std::string format_interval(const Interval& interval);     // "92.0–93.8"
std::string format_plus_minus(const Interval& interval);   // "92.9 ±0.9": the larger half of the interval
std::string format_count(std::uint64_t n);                 // "3,080"
std::string format_ms(double milliseconds);                // "0.05", "1.2", "85", "1,250"
std::string format_significant(double value, int digits);  // never in powers of ten: "0.0021", "12", "0.000031"
std::string format_cost(double value);                     // two digits that matter; "<0.00001" below that
std::string format_p(double p_value);                      // "p = 0.35", "p < 0.001"
std::string format_short_seconds(double seconds);          // "12s", "3m05s", "1h20m": for narrow columns
std::string format_scalar(const Json& value);              // a string as it is, numbers short, arrays joined by ", "
std::string format_settings(const Json& object);           // "rate = 0.001, epochs = 3"
std::string words_of_key(std::string_view key);            // "exact_duplicates" -> "exact duplicates"
std::string plural(std::uint64_t n, std::string_view one, std::string_view many);  // "1 row", "3,080 rows"

/// A member of an object that should be a number; 0 where it is not (a score that is not finite is null in JSON).
double json_number(const Json& object, std::string_view key);

/// How the user's metric is called and shown.
struct MetricName {
  enum class Kind { kAccuracy, kMacroF1, kClassF1, kCost };
  Kind kind = Kind::kAccuracy;
  std::string title;                       // "accuracy", "F1 of spam", "cost a row"
  std::string format(double score) const;  // larger is better on the way in; a cost is shown without its minus sign
};
MetricName metric_name(std::string_view option);  // as in FitOptions::metric

}  // namespace tailor
