#include "infer/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "infer/grammar_cost.h"
#include "model/utf8.h"

namespace tailor {
namespace {

using Kind = GrammarNode::Kind;
constexpr std::size_t kRepeatWeight = 128;  // XGrammar writes out so many repetitions and counts the others
constexpr std::size_t kHeaviest = std::size_t{1} << 40;  // nested repetitions would overflow

GrammarExpr make(GrammarNode node) {
  return std::make_shared<const GrammarNode>(std::move(node));
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::uint32_t code = next_code_point(text, at);
    if (code >= 0x20 && code < 0x7F && code != '"' && code != '\\') {
      out += static_cast<char>(code);
    } else {
      out += fmt::format("\\U{:08X}", code);
    }
  }
  return out + '"';
}

std::string bracketed(const CodeSet& set) {
  std::string out = "[";
  for (const CodeRange& range : set) {
    out += fmt::format("\\U{:08X}", static_cast<std::uint32_t>(range.first));
    if (range.last != range.first) out += fmt::format("-\\U{:08X}", static_cast<std::uint32_t>(range.last));
  }
  return out + ']';
}

/// Which rules some text follows, and the grammar without the parts that none does.
class Printer {
 public:
  Printer(const std::vector<Grammar::Rule>& rules, const GrammarLimits& limits)
      : rules_(rules), limits_(limits), cost_(rules), ends_(rules.size(), false), reached_(rules.size(), false) {}

  Result<std::string> print() {
    find_ends();
    settled_ = true;
    if (!ends_[0]) return Error{ErrorCode::kInvalidArgument, "no finite text follows the grammar", ""};
    std::string out;
    reached_[0] = true;
    std::vector<std::size_t> waiting = {0};
    while (!waiting.empty()) {
      const std::size_t rule = waiting.back();
      waiting.pop_back();
      const auto& [body, most, skipped, next, weight] = rules_[rule];
      TAILOR_CHECK(check_repetitions(*body));
      TAILOR_CHECK(check_weight(weight_ += weight, limits_));
      TAILOR_CHECK(cost_.add(*body));
      out += fmt::format("{}{} ::= ", name(rule), most == kNoMaximum ? "" : fmt::format("[max_chars={}]", most));
      write(*body, out, waiting);
      if (!next.empty()) out += fmt::format(" (= {}* {})", bracketed(skipped), bracketed(next));
      out += '\n';
    }
    return out;
  }

 private:
  static std::string name(std::size_t rule) { return rule == 0 ? "root" : fmt::format("r{}", rule); }

  /// The smallest solution: a rule ends if some branch of it uses only rules that do. Later rules are mostly parts of
  /// earlier ones, so the way back settles most in one pass.
  void find_ends() {
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t rule = rules_.size(); rule-- > 0;) {
        if (ends_[rule] || !ends(*rules_[rule].body)) continue;
        ends_[rule] = true;
        changed = true;
      }
    }
  }

  bool ends(const GrammarNode& node) {
    if (!settled_ || node.parts.empty()) return ends_now(node);
    if (const auto known = known_.find(&node); known != known_.end()) return known->second;
    const bool answer = ends_now(node);
    known_[&node] = answer;
    return answer;
  }

  bool ends_now(const GrammarNode& node) {
    const auto part_ends = [this](const GrammarExpr& part) { return ends(*part); };
    switch (node.kind) {
      case Kind::kText:
        return true;
      case Kind::kClass:
        return !node.set.empty();
      case Kind::kSequence:
        return std::all_of(node.parts.begin(), node.parts.end(), part_ends);
      case Kind::kChoice:
        return std::any_of(node.parts.begin(), node.parts.end(), part_ends);
      case Kind::kRepeat:
        return node.minimum == 0 || ends(*node.parts[0]);
      case Kind::kRule:
        return ends_[node.rule];
    }
    return false;
  }

  Status check_repetitions(const GrammarNode& node, int repetitions = 1) const {
    if (node.kind == Kind::kRepeat) {
      const int count = std::max(node.minimum, node.maximum);
      const bool simple = node.parts[0]->kind == Kind::kClass || node.parts[0]->kind == Kind::kRule;
      const int limit = simple && repetitions == 1 ? limits_.simple_repetitions : limits_.repetitions;
      if (count > limit || (count > 1 && repetitions > limits_.repetitions / count)) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("a repetition is counted {} times{}, at most {} are allowed", count,
                                 repetitions > 1 ? fmt::format(" within one of {}", repetitions) : "", limit),
                     ""};
      }
      repetitions *= std::max(count, 1);
    }
    for (const GrammarExpr& part : node.parts) TAILOR_CHECK(check_repetitions(*part, repetitions));
    return {};
  }

  /// A part of which ends() is true.
  void write(const GrammarNode& node, std::string& out, std::vector<std::size_t>& waiting) {
    switch (node.kind) {
      case Kind::kText:
        out += quoted(node.text);
        return;
      case Kind::kClass:
        out += bracketed(node.set);
        return;
      case Kind::kRule:
        if (!reached_[node.rule]) waiting.push_back(node.rule);
        reached_[node.rule] = true;
        out += name(node.rule);
        return;
      case Kind::kSequence:
      case Kind::kChoice: {
        if (node.parts.empty()) {
          out += "\"\"";
          return;
        }
        bool first = true;
        out += '(';
        for (const GrammarExpr& part : node.parts) {
          if (!ends(*part)) continue;
          if (!first) out += node.kind == Kind::kChoice ? " | " : " ";
          first = false;
          write(*part, out, waiting);
        }
        out += ')';
        return;
      }
      case Kind::kRepeat: {
        if (!ends(*node.parts[0]) || node.maximum == 0) {
          out += "\"\"";
          return;
        }
        out += '(';
        write(*node.parts[0], out, waiting);
        out += ')';
        if (node.maximum == kNoMaximum) {
          out += node.minimum == 0 ? "*" : node.minimum == 1 ? "+" : fmt::format("{{{},}}", node.minimum);
        } else {
          out += fmt::format("{{{},{}}}", node.minimum, node.maximum);
        }
        return;
      }
    }
  }

  const std::vector<Grammar::Rule>& rules_;
  const GrammarLimits& limits_;
  CompileCost cost_;
  std::vector<bool> ends_, reached_;
  bool settled_ = false;                                // ends_ is final
  std::unordered_map<const GrammarNode*, bool> known_;  // then: ends() of what has parts
  std::size_t weight_ = 0;
};

GrammarExpr trie(const std::vector<std::string>& sorted, std::size_t begin, std::size_t end, std::size_t depth) {
  if (end - begin == 1) return text_of(sorted[begin].substr(depth));
  std::vector<GrammarExpr> branches;
  if (sorted[begin].size() == depth) {
    branches.push_back(text_of(""));
    ++begin;
  }
  while (begin < end) {
    const auto character = [&](const std::string& text) {
      std::size_t at = depth;
      next_code_point(text, at);
      return std::string_view(text).substr(depth, at - depth);
    };
    std::size_t last = begin + 1;
    while (last < end && character(sorted[last]) == character(sorted[begin])) ++last;
    // As far as the first and the last agree, all between them do.
    std::size_t common = depth;
    while (last - begin > 1 && common < sorted[begin].size() && common < sorted[last - 1].size()) {
      std::size_t a = common, b = common;
      if (next_code_point(sorted[begin], a) != next_code_point(sorted[last - 1], b)) break;
      common = a;
    }
    if (last - begin == 1) {
      branches.push_back(text_of(sorted[begin].substr(depth)));
    } else {
      branches.push_back(
          sequence({text_of(sorted[begin].substr(depth, common - depth)), trie(sorted, begin, last, common)}));
    }
    begin = last;
  }
  return choice(std::move(branches));
}

}  // namespace

CodeSet normal_set(CodeSet set) {
  std::sort(set.begin(), set.end(), [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  CodeSet merged;
  for (const CodeRange& range : set) {
    if (range.first > range.last) continue;
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return intersection(merged, {{1, 0xD7FF}, {0xE000, kLastCodePoint}});
}

CodeSet complement(const CodeSet& set) {
  CodeSet out;
  char32_t next = 1;
  for (const CodeRange& range : normal_set(set)) {
    if (range.first > next) out.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) out.push_back({next, kLastCodePoint});
  return normal_set(std::move(out));
}

CodeSet intersection(const CodeSet& a, const CodeSet& b) {
  CodeSet out;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const char32_t first = std::max(a[i].first, b[j].first), last = std::min(a[i].last, b[j].last);
    if (first <= last) out.push_back({first, last});
    a[i].last < b[j].last ? ++i : ++j;
  }
  return out;
}

bool holds(const CodeSet& normal, char32_t code) {
  return std::any_of(normal.begin(), normal.end(),
                     [code](const CodeRange& range) { return range.first <= code && code <= range.last; });
}

GrammarExpr text_of(std::string text) {
  return make({.kind = Kind::kText, .text = std::move(text)});
}
GrammarExpr one_of(CodeSet set) {
  return make({.kind = Kind::kClass, .set = normal_set(std::move(set))});
}
GrammarExpr sequence(std::vector<GrammarExpr> parts) {
  if (parts.size() == 1) return parts[0];
  std::vector<GrammarExpr> flat;  // a long chain must not be as deep
  for (GrammarExpr& part : parts) {
    if (part->kind == Kind::kSequence) {
      flat.insert(flat.end(), part->parts.begin(), part->parts.end());
    } else {
      flat.push_back(std::move(part));
    }
  }
  return make({.kind = Kind::kSequence, .parts = std::move(flat)});
}
GrammarExpr choice(std::vector<GrammarExpr> parts) {
  if (parts.size() == 1) return parts[0];
  return make({.kind = Kind::kChoice, .parts = std::move(parts)});
}
GrammarExpr repeat(GrammarExpr part, int minimum, int maximum) {
  if (minimum == 1 && maximum == 1) return part;
  return make({.kind = Kind::kRepeat, .parts = {std::move(part)}, .minimum = minimum, .maximum = maximum});
}
GrammarExpr optional(GrammarExpr part) {
  return repeat(std::move(part), 0, 1);
}
GrammarExpr nothing() {
  return make({.kind = Kind::kChoice});
}
bool is_nothing(const GrammarExpr& expr) {
  return expr->kind == Kind::kChoice && expr->parts.empty();
}

GrammarExpr any_text_of(std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return texts.empty() ? nothing() : trie(texts, 0, texts.size(), 0);
}

std::size_t weight_of(const GrammarExpr& expr) {
  if (expr->kind == Kind::kText) return std::max<std::size_t>(expr->text.size(), 1);
  if (expr->kind == Kind::kClass) return expr->set.size();
  std::size_t parts = 0;
  for (const GrammarExpr& part : expr->parts) parts = std::min(parts + weight_of(part), kHeaviest);
  if (expr->kind == Kind::kRepeat) {
    const int count = std::max({expr->minimum, expr->maximum, 1});
    parts *= std::min(static_cast<std::size_t>(count), kRepeatWeight);
  }
  return std::min(1 + parts, kHeaviest);
}

Status check_weight(std::size_t weight, const GrammarLimits& limits) {
  if (weight <= limits.weight) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("the grammar is larger than {} characters", limits.weight),
               "use smaller counts of repetition, fewer values or fewer properties"};
}

Grammar::Grammar() {
  add_rule();
}

std::size_t Grammar::add_rule() {
  rules_.push_back({.body = nothing(), .characters = kNoMaximum, .skipped = {}, .next = {}, .weight = 0});
  return rules_.size() - 1;
}

void Grammar::define(std::size_t rule, GrammarExpr body) {
  weight_ -= rules_[rule].weight;
  rules_[rule].weight = weight_of(body);
  weight_ += rules_[rule].weight;
  rules_[rule].body = std::move(body);
}

void Grammar::limit(std::size_t rule, int characters) {
  rules_[rule].characters = characters;
}

void Grammar::followed_by(std::size_t rule, CodeSet skipped, CodeSet next) {
  rules_[rule].skipped = normal_set(std::move(skipped));
  rules_[rule].next = normal_set(std::move(next));
}

GrammarExpr Grammar::refer(std::size_t rule) {
  return make({.kind = Kind::kRule, .rule = rule});
}

GrammarExpr Grammar::rule_of(GrammarExpr body) {
  if (body->kind == Kind::kRule) return body;
  const std::size_t rule = add_rule();
  define(rule, std::move(body));
  return refer(rule);
}

Result<std::string> Grammar::print(const GrammarLimits& limits) const {
  return Printer(rules_, limits).print();
}

}  // namespace tailor
