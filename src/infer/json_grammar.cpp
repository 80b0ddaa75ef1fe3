#include "infer/json_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "infer/number_range.h"
#include "model/utf8.h"

namespace tailor {
namespace {

constexpr int kIndent = 64;
constexpr int kCountedString = 128;  // longer maxima are left to the matcher, which is slow where it comes near them
/// What may stand in a string as it is.
const CodeSet& plain_characters() {
  static const CodeSet set = normal_set({{0x20, 0x21}, {0x23, 0x5B}, {0x5D, kLastCodePoint}});
  return set;
}

bool is_plain(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (!holds(plain_characters(), next_code_point(text, at))) return false;
  }
  return true;
}

GrammarExpr hex(CodeSet digits) {
  return one_of(std::move(digits));
}
GrammarExpr any_hex() {
  return hex({{U'0', U'9'}, {U'a', U'f'}, {U'A', U'F'}});
}

/// \uXXXX of a code point below U+10000, or of a pair of surrogates.
GrammarExpr unicode_escape() {
  const CodeSet d = {{U'd', U'd'}, {U'D', U'D'}}, high = {{U'8', U'9'}, {U'a', U'b'}, {U'A', U'B'}};
  const CodeSet low = {{U'c', U'f'}, {U'C', U'F'}};
  const GrammarExpr plain =
      choice({sequence({hex({{U'0', U'9'}, {U'a', U'c'}, {U'A', U'C'}, {U'e', U'f'}, {U'E', U'F'}}), any_hex()}),
              sequence({hex(d), hex({{U'0', U'7'}})})});
  const GrammarExpr pair = sequence({hex(d), hex(high), any_hex(), any_hex(), text_of("\\u"), hex(d), hex(low)});
  return sequence({text_of("u"), choice({plain, pair}), any_hex(), any_hex()});
}

/// What stands behind the backslash.
const GrammarExpr& escape() {
  static const GrammarExpr expr = choice({one_of({{U'"', U'"'},
                                                  {U'\\', U'\\'},
                                                  {U'/', U'/'},
                                                  {U'b', U'b'},
                                                  {U'f', U'f'},
                                                  {U'n', U'n'},
                                                  {U'r', U'r'},
                                                  {U't', U't'}}),
                                          unicode_escape()});
  return expr;
}

constexpr std::size_t kNameNodeWeight = 10;  // at least

struct NameNode {
  std::map<char32_t, NameNode> next;
  bool ends = false;
};

GrammarExpr other_than(const NameNode& node) {
  CodeSet followed;
  std::vector<GrammarExpr> ways;
  for (const auto& [code, child] : node.next) {
    followed.push_back({code, code});
    ways.push_back(sequence({one_of({{code, code}}), other_than(child)}));
  }
  ways.push_back(sequence({one_of(intersection(plain_characters(), complement(followed))),
                           repeat(one_of(plain_characters()), 0, kNoMaximum), text_of("\"")}));
  if (!node.ends) ways.push_back(text_of("\""));
  return choice(std::move(ways));
}

}  // namespace

std::vector<GrammarExpr> json_characters(const CodeSet& set) {
  static constexpr std::pair<char32_t, const char*> kEscapes[] = {
      {U'"', "\\\""}, {U'\\', "\\\\"}, {U'\b', "\\b"}, {U'\f', "\\f"}, {U'\n', "\\n"}, {U'\r', "\\r"}, {U'\t', "\\t"}};
  std::vector<GrammarExpr> ways;
  const CodeSet plain = intersection(set, plain_characters());
  if (!plain.empty()) ways.push_back(one_of(plain));
  for (const auto& [code, text] : kEscapes) {
    if (holds(set, code)) ways.push_back(text_of(text));
  }
  if (ways.empty() && set.size() == 1 && set[0].first == set[0].last) {
    ways.push_back(text_of(fmt::format("\\u{:04x}", static_cast<std::uint32_t>(set[0].first))));
  }
  return ways;
}

void ends_json_string(Grammar& grammar, std::size_t rule) {
  grammar.followed_by(rule, {{U' ', U' '}, {U'\n', U'\n'}}, {{U',', U','}, {U':', U':'}, {U'}', U'}'}, {U']', U']'}});
}

GrammarExpr JsonGrammar::piece(Piece which) {
  if (!rules_[which]) {
    rules_[which] = grammar_.add_rule();
    grammar_.define(*rules_[which], body(which));
    if (which == kStringRest) ends_json_string(grammar_, *rules_[which]);
  }
  return Grammar::refer(*rules_[which]);
}

GrammarExpr JsonGrammar::body(Piece which) {
  switch (which) {
    case kValue:
      return choice({string(), number(), text_of("true"), text_of("false"), text_of("null"), object(), array()});
    case kObject:
      return braces(list(sequence({string(), colon(), value()}), 1, kNoMaximum));
    case kArray:
      return brackets(list(value(), 1, kNoMaximum));
    case kString:
      return sequence({text_of("\""), piece(kStringRest)});
    case kStringRest:
      return choice({text_of("\""), character_then(piece(kStringRest))});
    case kCharacters:
      return choice({text_of(""), character_then(piece(kCharacters))});
    case kNumber:
      return numbers_in({}).value();
    case kInteger:
      return numbers_in({.integer = true}).value();
    case kGap:
      return choice({text_of(""), text_of(" "), sequence({text_of("\n"), repeat(one_of({{U' ', U' '}}), 0, kIndent)})});
    case kPieces:
      break;
  }
  return nothing();
}

GrammarExpr JsonGrammar::value() {
  return piece(kValue);
}
GrammarExpr JsonGrammar::object() {
  return choice({text_of("{}"), piece(kObject)});
}
GrammarExpr JsonGrammar::array() {
  return choice({text_of("[]"), piece(kArray)});
}
GrammarExpr JsonGrammar::string() {
  return piece(kString);
}
GrammarExpr JsonGrammar::number() {
  return piece(kNumber);
}
GrammarExpr JsonGrammar::integer() {
  return piece(kInteger);
}
/// One character of a string, then `rest`. A rule that goes on in itself: where characters were a rule of their own,
/// each token would leave it, and be tried anew at every step rather than once.
GrammarExpr JsonGrammar::character_then(const GrammarExpr& rest) {
  return choice({sequence({one_of(plain_characters()), rest}), sequence({text_of("\\"), escape(), rest})});
}

GrammarExpr JsonGrammar::string(int minimum, int maximum) {
  if (minimum == 0 && maximum == kNoMaximum) return string();
  if (maximum != kNoMaximum && maximum <= kCountedString)
    return sequence({text_of("\""), counted_rest(minimum, maximum)});
  if (maximum == kNoMaximum) return sequence({text_of("\""), after_minimum(minimum, kStringRest)});
  const std::size_t rule = grammar_.add_rule();
  grammar_.define(rule, after_minimum(minimum, kCharacters));
  grammar_.limit(rule, maximum);
  return sequence({text_of("\""), Grammar::refer(rule), text_of("\"")});
}

/// So many characters, then `rest`: each of them is a rule, shared by all strings.
GrammarExpr JsonGrammar::after_minimum(int minimum, Piece rest) {
  std::vector<std::size_t>& chain = chains_[rest];
  while (chain.size() < static_cast<std::size_t>(minimum)) {
    const std::size_t rule = grammar_.add_rule();
    grammar_.define(rule, character_then(chain.empty() ? piece(rest) : Grammar::refer(chain.back())));
    if (rest == kStringRest) ends_json_string(grammar_, rule);
    chain.push_back(rule);
  }
  return minimum == 0 ? piece(rest) : Grammar::refer(chain[static_cast<std::size_t>(minimum) - 1]);
}

/// What follows when so many characters must and may still come.
GrammarExpr JsonGrammar::counted_rest(int minimum, int maximum) {
  if (maximum == 0) return text_of("\"");
  std::optional<std::size_t>& rule = counted_[{minimum, maximum}];
  if (!rule) {
    rule = grammar_.add_rule();
    ends_json_string(grammar_, *rule);
    GrammarExpr more = character_then(counted_rest(std::max(minimum - 1, 0), maximum - 1));
    grammar_.define(*rule, minimum > 0 ? std::move(more) : choice({text_of("\""), std::move(more)}));
  }
  return Grammar::refer(*rule);
}

Result<GrammarExpr> JsonGrammar::string_other_than(const std::vector<std::string>& names) {
  NameNode root;
  std::size_t nodes = 0;
  for (const std::string& name : names) {
    if (!is_plain(name)) continue;  // it cannot be written without escapes
    NameNode* node = &root;
    for (std::size_t at = 0; at < name.size();) {
      const auto [next, fresh] = node->next.try_emplace(next_code_point(name, at));
      if (fresh) ++nodes;
      node = &next->second;
    }
    node->ends = true;
  }
  TAILOR_CHECK(check_weight(grammar_.weight() + kNameNodeWeight * nodes));
  return sequence({text_of("\""), other_than(root)});
}

GrammarExpr JsonGrammar::literal(const Json& value) {
  std::vector<GrammarExpr> parts;
  if (value.is_object() && !value.empty()) {
    for (const auto& [name, member] : value.items()) {
      if (!parts.empty()) parts.push_back(comma());
      parts.push_back(sequence({text_of(Json(name).dump()), colon(), literal(member)}));
    }
    return braces(sequence(std::move(parts)));
  }
  if (value.is_array() && !value.empty()) {
    for (const Json& item : value) {
      if (!parts.empty()) parts.push_back(comma());
      parts.push_back(literal(item));
    }
    return brackets(sequence(std::move(parts)));
  }
  return text_of(value.dump());
}

GrammarExpr JsonGrammar::colon() {
  return sequence({text_of(":"), optional(text_of(" "))});
}
GrammarExpr JsonGrammar::comma() {
  return sequence({text_of(","), piece(kGap)});
}
GrammarExpr JsonGrammar::open_brace() {
  return sequence({text_of("{"), piece(kGap)});
}
GrammarExpr JsonGrammar::close_brace() {
  return sequence({piece(kGap), text_of("}")});
}
GrammarExpr JsonGrammar::braces(GrammarExpr members) {
  return sequence({open_brace(), std::move(members), close_brace()});
}
GrammarExpr JsonGrammar::brackets(GrammarExpr items) {
  return sequence({text_of("["), piece(kGap), std::move(items), piece(kGap), text_of("]")});
}

GrammarExpr JsonGrammar::list(const GrammarExpr& item, int minimum, int maximum) {
  const int more = maximum == kNoMaximum ? kNoMaximum : maximum - 1;
  return sequence({item, repeat(sequence({comma(), item}), std::max(minimum - 1, 0), more)});
}

}  // namespace tailor
