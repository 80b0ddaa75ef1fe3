#pragma once
/// Decimal numbers between two bounds, as a grammar of their digits.

#include <optional>

#include "core/json.h"
#include "core/result.h"
#include "infer/grammar.h"

namespace tailor {

struct NumberRange {
  std::optional<Json> low, high;  // numbers; none: unbounded
  bool low_open = false, high_open = false;
  bool integer = false;
};

/// Without bounds: an integer of at most 19 digits; a number of at most 15 digits before the point and 15 after it,
/// with an exponent of at most two digits. With bounds: no exponent, and at most 15 digits in all for a number that is
/// no integer, so that reading it as a double keeps it on its side of the bound. An integer is never "-0".
/// Errors: no number lies between the bounds; a bound with more digits than that.
Result<GrammarExpr> numbers_in(const NumberRange& range);

}  // namespace tailor
