#include "infer/regular_parts.h"

#include <algorithm>

#include "infer/automaton.h"

namespace tailor {
namespace {

using Kind = GrammarNode::Kind;
constexpr std::size_t kLargestPart = 5000;  // nodes, the rules within written out
constexpr std::size_t kFlatSteps = 16;      // what writing one out costs, in steps of the budget

class Rewriter {
 public:
  explicit Rewriter(const Grammar& grammar) : old_(grammar), sizes_(grammar.rules(), 0) { find_regular(); }

  Grammar rewrite() {
    for (std::size_t rule = 1; rule < old_.rules(); ++rule) out_.add_rule();
    std::vector<bool> reached(old_.rules(), false);
    std::vector<std::size_t> waiting = {0};
    while (!waiting.empty()) {
      const std::size_t rule = waiting.back();
      waiting.pop_back();
      if (rule >= reached.size() || reached[rule]) continue;  // those of automata refer to one another alone
      reached[rule] = true;
      out_.define(rule, rewritten(old_.body(rule)));
      collect(*out_.body(rule), waiting);
    }
    return std::move(out_);
  }

 private:
  static void collect(const GrammarNode& node, std::vector<std::size_t>& rules) {
    if (node.kind == Kind::kRule) rules.push_back(node.rule);
    for (const GrammarExpr& part : node.parts) collect(*part, rules);
  }

  /// From the rules that refer to none on: a rule is regular when all that it refers to are.
  void find_regular() {
    std::vector<std::vector<std::size_t>> used_by(old_.rules());
    std::vector<std::size_t> open(old_.rules()), ready;
    for (std::size_t rule = 0; rule < old_.rules(); ++rule) {
      std::vector<std::size_t> uses;
      collect(*old_.body(rule), uses);
      open[rule] = uses.size();
      for (const std::size_t used : uses) used_by[used].push_back(rule);
      if (uses.empty()) ready.push_back(rule);
    }
    while (!ready.empty()) {
      const std::size_t rule = ready.back();
      ready.pop_back();
      sizes_[rule] = size_of(*old_.body(rule));
      if (sizes_[rule] > kLargestPart) {
        sizes_[rule] = 0;
        continue;
      }
      for (const std::size_t user : used_by[rule]) {
        if (--open[user] == 0) ready.push_back(user);
      }
    }
  }

  std::size_t size_of(const GrammarNode& node) const {
    std::size_t size = 1 + node.text.size() + (node.kind == Kind::kRule ? sizes_[node.rule] : 0);
    for (const GrammarExpr& part : node.parts) size = std::min(size + size_of(*part), kLargestPart + 1);
    return size;
  }

  bool is_regular(const GrammarNode& node) const {
    if (node.kind == Kind::kRule) return sizes_[node.rule] > 0;
    return std::all_of(node.parts.begin(), node.parts.end(),
                       [this](const GrammarExpr& part) { return is_regular(*part); });
  }

  /// Rules written out.
  GrammarExpr flat(const GrammarExpr& expr) const {
    if (expr->kind == Kind::kRule) return flat(old_.body(expr->rule));
    if (expr->parts.empty()) return expr;
    std::vector<GrammarExpr> parts;
    for (const GrammarExpr& part : expr->parts) parts.push_back(flat(part));
    if (expr->kind == Kind::kSequence) return sequence(std::move(parts));
    if (expr->kind == Kind::kChoice) return choice(std::move(parts));
    return repeat(std::move(parts[0]), expr->minimum, expr->maximum);
  }

  GrammarExpr regular(const GrammarExpr& expr) {
    const bool simple = expr->kind == Kind::kText || expr->kind == Kind::kClass || expr->kind == Kind::kRule;
    const std::size_t size = size_of(*expr);
    if (simple || size > kLargestPart || !check_weight(out_.weight()) || !budget_.take(kFlatSteps * size)) return expr;
    const auto automaton = automaton_of(flat(expr), budget_);
    if (!automaton) return expr;
    auto rules = add_automaton(
        out_, *automaton, [](const CodeSet& set) { return std::vector{one_of(set)}; }, text_of(""));
    return rules ? *std::move(rules) : expr;
  }

  GrammarExpr rewritten(const GrammarExpr& expr) {
    if (is_regular(*expr)) return regular(expr);
    std::vector<GrammarExpr> parts;
    if (expr->kind != Kind::kSequence) {
      if (expr->kind == Kind::kRule) return expr;
      for (const GrammarExpr& part : expr->parts) parts.push_back(rewritten(part));
      return expr->kind == Kind::kChoice ? choice(std::move(parts))
                                         : repeat(std::move(parts[0]), expr->minimum, expr->maximum);
    }
    // Neighbours that are regular become one automaton.
    for (std::size_t i = 0; i < expr->parts.size();) {
      std::vector<GrammarExpr> run;
      for (; i < expr->parts.size() && is_regular(*expr->parts[i]); ++i) run.push_back(expr->parts[i]);
      if (!run.empty()) {
        parts.push_back(regular(sequence(std::move(run))));
      } else {
        parts.push_back(rewritten(expr->parts[i++]));
      }
    }
    return sequence(std::move(parts));
  }

  const Grammar& old_;
  std::vector<std::size_t> sizes_;  // of regular rules, written out; 0: not regular
  Grammar out_;
  AutomatonBudget budget_;
};

}  // namespace

Grammar with_regular_parts(const Grammar& grammar) {
  return Rewriter(grammar).rewrite();
}

}  // namespace tailor
