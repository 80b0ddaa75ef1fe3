#pragma once
/// The regular parts of a grammar as automata (infer/automaton.h), so that the matcher's cost does not depend on how a
/// person wrote them: rules that lead back to themselves keep their form, everything between them loses its choices.

#include "infer/grammar.h"

namespace tailor {

/// A grammar of the same texts. Parts whose automata would be large stay as they are.
Grammar with_regular_parts(const Grammar& grammar);

}  // namespace tailor
