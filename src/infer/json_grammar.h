#pragma once
/// The pieces of JSON (RFC 8259) as rules of a grammar.
///
/// Between tokens stands nothing, one blank, or a line break with at most 64 blanks, and only where a printer puts
/// them: after a bracket, comma or colon, before a closing bracket. A model can therefore not fill an answer with white
/// space. Numbers are bounded as infer/number_range.h says.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "infer/grammar.h"

namespace tailor {

/// Adds rules to a grammar, which must outlive it; each rule is made when first asked for.
class JsonGrammar {
 public:
  explicit JsonGrammar(Grammar& grammar) : grammar_(grammar) {}

  GrammarExpr value();   // any
  GrammarExpr object();  // with any members
  GrammarExpr array();
  GrammarExpr string();
  GrammarExpr number();
  GrammarExpr integer();
  /// A string of so many code points. Under a maximum above 128 an escape counts as the characters that it is written
  /// with, unless the minimum asks for more.
  GrammarExpr string(int minimum, int maximum);
  /// A string that is none of these, written without escapes: the name of a further member. Errors: the names make the
  /// grammar heavier than any that is printed.
  Result<GrammarExpr> string_other_than(const std::vector<std::string>& names);

  GrammarExpr literal(const Json& value);  // exactly this value, as it is printed
  GrammarExpr colon();
  GrammarExpr comma();
  GrammarExpr open_brace();
  GrammarExpr close_brace();
  GrammarExpr braces(GrammarExpr members);  // "{" members "}"; at least one member
  GrammarExpr brackets(GrammarExpr items);  // at least one item
  /// minimum to maximum (kNoMaximum: any number) of `item` with commas between; never empty. minimum >= 1.
  GrammarExpr list(const GrammarExpr& item, int minimum, int maximum);

 private:
  enum Piece { kValue, kObject, kArray, kString, kStringRest, kCharacters, kNumber, kInteger, kGap, kPieces };
  GrammarExpr piece(Piece which);
  GrammarExpr body(Piece which);
  GrammarExpr character_then(const GrammarExpr& rest);
  GrammarExpr counted_rest(int minimum, int maximum);
  GrammarExpr after_minimum(int minimum, Piece rest);
  Grammar& grammar_;
  std::optional<std::size_t> rules_[kPieces];
  std::map<std::pair<int, int>, std::optional<std::size_t>> counted_;
  std::map<Piece, std::vector<std::size_t>> chains_;  // [i]: i + 1 characters, then the piece
};

/// Tells the grammar what stands behind a string of JSON, for rules that end with its closing quote.
void ends_json_string(Grammar& grammar, std::size_t rule);

/// The ways in which code points of a set stand within the quotes of a JSON string: those that may not stand there
/// themselves as
/// \" or \\ and the short escapes; other control characters only where the set is that one character.
std::vector<GrammarExpr> json_characters(const CodeSet& set);

}  // namespace tailor
