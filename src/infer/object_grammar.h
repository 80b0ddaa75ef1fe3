#pragma once
/// JSON objects whose members stand in a fixed order.

#include <string>
#include <vector>

#include "infer/json_grammar.h"

namespace tailor {

struct ObjectMember {
  std::string name;
  GrammarExpr expr;  // with its name
  bool required = false;
};

/// An object with at least one member: of `members`, which is not empty, in their order, then any number of `further`
/// (nothing(): none).
GrammarExpr object_grammar(Grammar& grammar, JsonGrammar& json, const std::vector<ObjectMember>& members,
                           const GrammarExpr& further);

}  // namespace tailor
