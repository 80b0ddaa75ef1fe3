#pragma once
/// Written grammars: GBNF, as llama.cpp and XGrammar read it.
///
///   root  ::= item ("," item){0,9}     # the rule named root is the whole text
///   item  ::= [a-z]+ | "\"" [^"\n]* "\""
///
/// Literals and classes take \n \r \t \" \' \\ \[ \] \- \^ \/ \xHH \uHHHH \UHHHHHHHH; "." is any character; * + ? {m}
/// {m,} {m,n} repeat. A rule ends where the next begins. Left recursion is allowed. Refused: token references (<…>),
/// look-ahead, U+0000, more than 256 KiB, groups deeper than 64, rules that are missing, named twice or from which no
/// text ends.

#include <string_view>

#include "core/result.h"
#include "infer/grammar.h"

namespace tailor {

/// Errors name line and column.
Result<Grammar> read_grammar(std::string_view text);

}  // namespace tailor
