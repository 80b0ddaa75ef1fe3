#pragma once
/// The regular parts of a grammar as automata (infer/automaton.h), so that the matcher's cost does not depend on how a
/// person wrote them: rules that lead back to themselves keep their form, everything between them loses its choices.

#include "infer/grammar.h"

namespace tailor {

/// A grammar of the same texts; rules that its root does not reach are left undefined. Parts whose automata would be
/// large stay as they are, and so do those left when the automata together take too much work or room.
Grammar with_regular_parts(const Grammar& grammar);

}  // namespace tailor
