#pragma once
/// What compiling a grammar costs beyond the size of its text, known before it is compiled. XGrammar (0.2.9)
///
/// - compares the alternatives of a choice with one another where it joins equal ones (MergeEquivalentStates): pairs,
///   for each character that they share
/// - writes a rule of plain texts that stands first in an alternative out there (RuleInliner), with all that follows
/// - keeps for each part of a sequence that becomes a rule of its own what follows it (LookaheadAssertionAnalyzer)

#include <cstddef>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "infer/grammar.h"

namespace tailor {

struct CompileLimits {
  std::size_t pairs = 100'000'000;     // of alternatives, all choices together
  std::size_t copied = 2'000'000;      // weight of what is written out where it stands first
  std::size_t followers = 30'000'000;  // parts kept behind parts
};

/// Adds up over the rules that are printed. The grammar must outlive it.
class CompileCost {
 public:
  explicit CompileCost(std::span<const Grammar::Rule> rules, const CompileLimits& limits = {})
      : rules_(rules), limits_(limits), inlined_(rules.size(), kUnknown), seen_(rules.size(), false) {}

  /// Errors: with this rule's body the grammar is beyond a limit.
  Status add(const GrammarNode& body);

 private:
  static constexpr std::size_t kUnknown = static_cast<std::size_t>(-1);

  void visit(const GrammarNode& node, bool within_choice);
  void add_choice(const GrammarNode& node);
  void add_sequence(const GrammarNode& node);
  std::size_t alternatives(const GrammarNode& node);
  std::size_t alternatives_of_rule(std::size_t rule);

  std::span<const Grammar::Rule> rules_;
  CompileLimits limits_;
  std::vector<std::size_t> inlined_;  // alternatives of a rule where it stands first
  std::vector<bool> seen_;            // some sequence refers to the rule
  std::unordered_map<const GrammarNode*, std::size_t> known_;
  std::size_t pairs_ = 0, copied_ = 0, followers_ = 0;
};

}  // namespace tailor
