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

/// Of an expression without rules. Errors: more than kMostAutomatonStates, as
/// "(a|b)*a(a|b){20}" has, or too much work on the way there.
Result<Automaton> automaton_of(const GrammarExpr& expr);

/// The texts of `automaton` that have so many characters (kNoMaximum: any number). Errors: too many states.
Result<Automaton> with_length(const Automaton& automaton, int minimum, int maximum);

/// One rule a state, the first is returned. `write` gives the ways in which the characters of a set are written, `end`
/// what stands where a text ends.
GrammarExpr add_automaton(Grammar& grammar, const Automaton& automaton,
                          const std::function<std::vector<GrammarExpr>(const CodeSet&)>& write, const GrammarExpr& end);

}  // namespace tailor
