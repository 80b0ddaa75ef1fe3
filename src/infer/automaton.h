#pragma once
/// Deterministic automata of regular expressions. As a grammar such an automaton leaves the matcher no choice: one
/// state at a time, whatever the expression, where "(\w+\s?)+" itself would give it a choice at every letter.

#include <cstddef>
#include <functional>
#include <vector>

#include "core/result.h"
#include "infer/grammar.h"

namespace tailor {

struct Automaton {
  struct Edge {
    CodeSet on;  // edges of a state are disjoint
    std::size_t to = 0;
  };
  struct State {
    bool ends = false;
    std::vector<Edge> edges;
  };
  std::vector<State> states;  // the first is where it begins
};

inline constexpr std::size_t kMostAutomatonStates = 4000;

/// The work that automata may take, in steps of some ten nanoseconds: one for all expressions of a grammar, so that
/// many small ones cost no more than a large one.
class AutomatonBudget {
 public:
  /// False where more is asked for than is left, and from then on.
  bool take(std::size_t steps) {
    const bool enough = steps <= left_;
    left_ = enough ? left_ - steps : 0;
    return enough;
  }
  std::size_t left() const { return left_; }

 private:
  std::size_t left_ = 20'000'000;  // about a quarter of a second
};

/// Of an expression without rules. Errors: more than kMostAutomatonStates, as
/// "(a|b)*a(a|b){20}" has, or more work than `budget` allows.
Result<Automaton> automaton_of(const GrammarExpr& expr, AutomatonBudget& budget);

/// The texts of `automaton` that have so many characters (kNoMaximum: any number). Errors: as above.
Result<Automaton> with_length(const Automaton& automaton, int minimum, int maximum, AutomatonBudget& budget);

/// One rule a state, the first is returned. `write` gives the ways in which the characters of a set are written, `end`
/// what stands where a text ends. Errors: the grammar grows heavier than any that is printed; it then holds rules that
/// nothing refers to.
Result<GrammarExpr> add_automaton(Grammar& grammar, const Automaton& automaton,
                                  const std::function<std::vector<GrammarExpr>(const CodeSet&)>& write,
                                  const GrammarExpr& end);

}  // namespace tailor
