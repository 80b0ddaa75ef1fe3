#pragma once
/// Regular expressions as grammars: the part of ECMAScript's language that describes regular texts.
///
/// Literals, ".", classes ([a-z], [^"], \d \w \s \D \W \S), groups (capturing, (?:…), named), alternatives, * + ? {m}
/// {m,} {m,n} (lazy forms match the same texts), escapes \n \r \t \f \v \xHH \uHHHH \u{H…} and those of punctuation,
/// "^" at the beginning and "$" at the end of the expression or of one of its outermost alternatives. \w and \d are
/// ASCII, \s is ECMAScript's white space, "." is anything but a line break. Refused: look-around, back-references, \b,
/// \p{…}, flags, anchors elsewhere, U+0000, broken UTF-8, more than 4096 bytes, groups deeper than 64, counts above
/// 1000.

#include <string_view>

#include "core/result.h"
#include "infer/automaton.h"
#include "infer/grammar.h"

namespace tailor {

/// /// The automaton of the texts that match from their first to their last character.
Result<Automaton> regex_automaton(std::string_view pattern);

/// Texts that match from their first to their last character, as rules of `grammar`.
Result<GrammarExpr> add_regex(Grammar& grammar, std::string_view pattern);

/// JSON strings in whose contents `pattern` matches somewhere, as JSON Schema means it, from `minimum` to `maximum`
/// code points long (kNoMaximum: any length). `budget` is shared by all patterns of the grammar.
Result<GrammarExpr> add_regex_string(Grammar& grammar, std::string_view pattern, int minimum, int maximum,
                                     AutomatonBudget& budget);

}  // namespace tailor
