#include "infer/grammar_cost.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {
namespace {

using Kind = GrammarNode::Kind;
constexpr std::size_t kMost = std::size_t{1} << 31;  // its square is still a number

bool refers(const GrammarNode& node) {
  return node.kind == Kind::kRule ||
         std::any_of(node.parts.begin(), node.parts.end(), [](const GrammarExpr& part) { return refers(*part); });
}

}  // namespace

Status CompileCost::add(const GrammarNode& body) {
  visit(body, false);
  const auto too_much = [](const char* what, std::size_t most) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the grammar has too many {}: compiling it would take more than {} steps", what, most),
                 "use fewer branches, optional parts or alternatives that may begin at the same place"};
  };
  if (pairs_ > limits_.pairs) return too_much("alternatives at one place", limits_.pairs);
  if (copied_ > limits_.copied) return too_much("alternatives that begin with the same long rule", limits_.copied);
  if (followers_ > limits_.followers) return too_much("parts in one sequence", limits_.followers);
  return {};
}

void CompileCost::visit(const GrammarNode& node, bool within_choice) {
  if (node.kind == Kind::kChoice && !within_choice) add_choice(node);
  if (node.kind == Kind::kSequence) add_sequence(node);
  for (const GrammarExpr& part : node.parts) visit(*part, node.kind == Kind::kChoice);
}

void CompileCost::add_choice(const GrammarNode& node) {
  const std::size_t ways = alternatives(node);
  pairs_ = std::min(pairs_ + ways * ways, kMost * kMost);
}

void CompileCost::add_sequence(const GrammarNode& node) {
  if (node.parts.empty()) return;
  if (const std::size_t ways = alternatives(*node.parts[0]); ways > 1) {
    std::size_t weight = 0;
    for (const GrammarExpr& part : node.parts) weight = std::min(weight + weight_of(part), kMost);
    copied_ = std::min(copied_ + ways * weight, kMost * kMost);
  }
  std::size_t own = 0;
  for (const GrammarExpr& part : node.parts) {
    if (part->kind == Kind::kChoice || part->kind == Kind::kRepeat) ++own;
    if (part->kind == Kind::kRule && !seen_[part->rule]) {
      seen_[part->rule] = true;
      ++own;
    }
  }
  followers_ = std::min(followers_ + own * node.parts.size(), kMost * kMost);
}

std::size_t CompileCost::alternatives(const GrammarNode& node) {
  if (node.kind == Kind::kRule) return alternatives_of_rule(node.rule);
  if (node.kind == Kind::kSequence) return node.parts.empty() ? 1 : alternatives(*node.parts[0]);
  if (node.kind != Kind::kChoice) return 1;
  if (const auto it = known_.find(&node); it != known_.end()) return it->second;
  std::size_t ways = 0;
  for (const GrammarExpr& part : node.parts) ways = std::min(ways + alternatives(*part), kMost);
  return known_[&node] = ways;
}

std::size_t CompileCost::alternatives_of_rule(std::size_t rule) {
  std::size_t& ways = inlined_[rule];
  if (ways == kUnknown) {
    const GrammarNode& body = *rules_[rule].body;
    ways = rules_[rule].characters != kNoMaximum || refers(body) ? 1 : alternatives(body);
  }
  return ways;
}

}  // namespace tailor
