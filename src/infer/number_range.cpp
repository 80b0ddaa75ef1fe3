#include "infer/number_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace tailor {
namespace {

constexpr std::size_t kIntegerDigits = 19;  // of an int64
constexpr std::size_t kNumberDigits = 15;   // any two decimals of so many digits are different doubles

GrammarExpr digits(std::size_t minimum, std::size_t maximum) {
  return repeat(one_of({{U'0', U'9'}}), static_cast<int>(minimum), static_cast<int>(maximum));
}

/// Magnitude: no leading zeros before the point ("" is 0), no trailing ones behind it.
struct Decimal {
  bool negative = false;
  std::string whole, fraction;
  bool zero() const { return whole.empty() && fraction.empty(); }
};

std::string plain_digits(const Json& number, int& exponent) {
  std::string text = number.is_number_float() ? fmt::format("{}", number.get<double>()) : number.dump();
  exponent = 0;
  if (const auto e = text.find('e'); e != std::string::npos) {
    exponent = std::atoi(text.c_str() + e + 1);
    text.erase(e);
  }
  if (const auto point = text.find('.'); point != std::string::npos) {
    exponent -= static_cast<int>(text.size() - point - 1);
    text.erase(point, 1);
  }
  return text;
}

Decimal decimal_of(const Json& number) {
  int exponent = 0;
  std::string text = plain_digits(number, exponent);  // times ten to the exponent
  Decimal out;
  if (text[0] == '-') {
    out.negative = true;
    text.erase(0, 1);
  }
  if (exponent >= 0) {
    text.append(static_cast<std::size_t>(exponent), '0');
  } else {
    const auto behind = static_cast<std::size_t>(-exponent);
    if (text.size() < behind) text.insert(0, behind - text.size(), '0');
    out.fraction = text.substr(text.size() - behind);
    text.resize(text.size() - behind);
  }
  out.whole = text.substr(std::min(text.find_first_not_of('0'), text.size()));
  while (!out.fraction.empty() && out.fraction.back() == '0') out.fraction.pop_back();
  if (out.zero()) out.negative = false;
  return out;
}

struct Bound {
  Decimal at;
  bool open = false;
};

/// Digits from the first on, while they may still equal those of a bound.
class Magnitudes {
 public:
  Magnitudes(Bound low, std::optional<Bound> high, bool integer)
      : low_(std::move(low)), high_(std::move(high)), integer_(integer) {
    longest_ = integer_ ? kIntegerDigits : kNumberDigits;
    if (high_) longest_ = std::max(high_->at.whole.size(), std::size_t{1});
    shortest_ = std::max(low_.at.whole.size(), std::size_t{1});
  }

  GrammarExpr all() {
    std::vector<GrammarExpr> lengths;
    for (std::size_t n = shortest_; n <= longest_; ++n) {
      length_ = n;
      low_digits_ = padded(low_.at.whole);
      if (high_) high_digits_ = padded(high_->at.whole);
      const bool at_low = n == shortest_ && (low_.open || !low_.at.zero());
      lengths.push_back(whole(0, at_low, high_ && n == longest_));
    }
    return choice(std::move(lengths));
  }

 private:
  std::string padded(const std::string& text) const {
    return text.size() >= length_ ? text : std::string(length_ - text.size(), '0') + text;
  }
  std::size_t places() const { return integer_ ? 0 : kNumberDigits - std::min(kNumberDigits, length_); }

  /// One digit in its range, `then` what may follow it.
  template <typename Then>
  GrammarExpr digit(char smallest, char low, char high, bool at_low, bool at_high, const Then& then) {
    std::vector<GrammarExpr> ways;
    const auto add = [&](char first, char last, bool still_low, bool still_high) {
      first = std::max(first, smallest);
      if (first > last) return;
      ways.push_back(sequence(
          {one_of({{static_cast<char32_t>(first), static_cast<char32_t>(last)}}), then(still_low, still_high)}));
    };
    const char from = at_low ? low : '0', to = at_high ? high : '9';
    if (at_low && at_high && from == to) {
      add(from, from, true, true);
    } else if (from <= to) {
      if (at_low) add(from, from, true, false);
      add(static_cast<char>(from + (at_low ? 1 : 0)), static_cast<char>(to - (at_high ? 1 : 0)), false, false);
      if (at_high) add(to, to, false, true);
    }
    return choice(std::move(ways));
  }

  GrammarExpr whole(std::size_t at, bool at_low, bool at_high) {
    if (at == length_) return fraction(0, at_low, at_high);
    if (at > 0 && !at_low && !at_high) return sequence({digits(length_ - at, length_ - at), fraction(0, false, false)});
    const bool may_be_zero = at > 0 || length_ == 1;
    return digit(may_be_zero ? '0' : '1', low_digits_[at], high_ ? high_digits_[at] : '9', at_low, at_high,
                 [&](bool still_low, bool still_high) { return whole(at + 1, still_low, still_high); });
  }

  /// After `done` digits behind the point.
  GrammarExpr fraction(std::size_t done, bool at_low, bool at_high) {
    const std::size_t room = places() - std::min(places(), done);
    if (!at_low && !at_high) {
      if (room == 0) return text_of("");
      return done > 0 ? digits(0, room) : optional(sequence({text_of("."), digits(1, room)}));
    }
    const bool low_met = !at_low || (done >= low_.at.fraction.size() && !low_.open);
    const bool high_met = !at_high || done < high_->at.fraction.size() || !high_->open;
    std::vector<GrammarExpr> ways;
    if (low_met && high_met) ways.push_back(text_of(""));
    if (room > 0) {
      const auto place = [done](const std::string& text) { return done < text.size() ? text[done] : '0'; };
      GrammarExpr more =
          digit('0', place(low_.at.fraction), high_ ? place(high_->at.fraction) : '9', at_low, at_high,
                [&](bool still_low, bool still_high) { return fraction(done + 1, still_low, still_high); });
      ways.push_back(done == 0 ? sequence({text_of("."), std::move(more)}) : std::move(more));
    }
    return choice(std::move(ways));
  }

  Bound low_;
  std::optional<Bound> high_;
  bool integer_;
  std::size_t shortest_ = 1, longest_ = 1, length_ = 1;
  std::string low_digits_, high_digits_;
};

GrammarExpr unbounded(bool integer) {
  const GrammarExpr minus = optional(text_of("-"));
  const auto whole = [](std::size_t longest) { return sequence({one_of({{U'1', U'9'}}), digits(0, longest - 1)}); };
  if (integer) return choice({text_of("0"), sequence({minus, whole(kIntegerDigits)})});
  const GrammarExpr behind = sequence({text_of("."), digits(1, kNumberDigits)});
  const GrammarExpr exponent =
      sequence({one_of({{U'e', U'e'}, {U'E', U'E'}}), optional(one_of({{U'+', U'+'}, {U'-', U'-'}})), digits(1, 2)});
  const GrammarExpr magnitude =
      choice({sequence({whole(kNumberDigits), optional(behind)}), sequence({text_of("0"), behind})});
  return choice({text_of("0"), sequence({minus, magnitude, optional(exponent)})});
}

Status check_digits(const Decimal& bound, const Json& number, bool integer) {
  const bool fits = integer ? bound.whole.size() <= kIntegerDigits + 1 && bound.fraction.size() <= kNumberDigits
                            : bound.whole.size() + bound.fraction.size() <= kNumberDigits;
  if (fits) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("the bound {} has more digits than can be enforced ({})", number.dump(),
                           integer ? kIntegerDigits + 1 : kNumberDigits),
               "round it"};
}

}  // namespace

Result<GrammarExpr> numbers_in(const NumberRange& range) {
  // Numbers that are written have fewer digits than such bounds: on the far side they forbid nothing.
  const double far = range.integer ? 1e20 : 1e15;
  const auto beyond = [far](const std::optional<Json>& bound, int side) {
    return bound && bound->get<double>() * side >= far;
  };
  std::optional<Bound> low, high;
  if (range.low && !beyond(range.low, -1)) low = {decimal_of(*range.low), range.low_open};
  if (range.high && !beyond(range.high, 1)) high = {decimal_of(*range.high), range.high_open};
  if (!range.low && !range.high) return unbounded(range.integer);
  std::vector<GrammarExpr> ways;
  if (!beyond(range.low, 1) && !beyond(range.high, -1)) {
    if (low) TAILOR_CHECK(check_digits(low->at, *range.low, range.integer));
    if (high) TAILOR_CHECK(check_digits(high->at, *range.high, range.integer));
    if (!high || !high->at.negative) {
      const Bound from = low && !low->at.negative ? *low : Bound{};
      ways.push_back(Magnitudes(from, high, range.integer).all());
    }
    if (!low || low->at.negative) {
      const Bound from = high && high->at.negative ? *high : Bound{{}, true};
      ways.push_back(sequence({text_of("-"), Magnitudes(from, low, range.integer).all()}));
    }
  }
  GrammarExpr all = choice(std::move(ways));
  Grammar alone;
  alone.define(0, all);
  if (!alone.print()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("no {} lies between the bounds", range.integer ? "integer" : "number of at most 15 digits"), ""};
  }
  return all;
}

}  // namespace tailor
