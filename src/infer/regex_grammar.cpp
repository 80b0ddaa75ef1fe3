#include "infer/regex_grammar.h"

#include <fmt/format.h>

#include <algorithm>

#include "infer/json_grammar.h"
#include "model/utf8.h"

namespace tailor {
namespace {

constexpr std::size_t kLongestPattern = 4096;
constexpr int kDeepestGroup = 64;
constexpr int kLargestCount = 1000;

const CodeSet& digit_set() {
  static const CodeSet set = normal_set({{U'0', U'9'}});
  return set;
}
const CodeSet& word_set() {
  static const CodeSet set = normal_set({{U'0', U'9'}, {U'A', U'Z'}, {U'_', U'_'}, {U'a', U'z'}});
  return set;
}
const CodeSet& space_set() {
  static const CodeSet set = normal_set({{9, 13},
                                         {U' ', U' '},
                                         {0xA0, 0xA0},
                                         {0x1680, 0x1680},
                                         {0x2000, 0x200A},
                                         {0x2028, 0x2029},
                                         {0x202F, 0x202F},
                                         {0x205F, 0x205F},
                                         {0x3000, 0x3000},
                                         {0xFEFF, 0xFEFF}});
  return set;
}
const CodeSet& dot_set() {
  static const CodeSet set = complement({{U'\n', U'\n'}, {U'\r', U'\r'}, {0x2028, 0x2029}});
  return set;
}

/// One outermost alternative.
struct Branch {
  bool from_start = false, to_end = false;  // "^", "$"
  GrammarExpr body;                         // of classes, sequences, choices and repetitions
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  Result<std::vector<Branch>> parse() {
    if (pattern_.size() > kLongestPattern) return error(fmt::format("it is longer than {} bytes", kLongestPattern));
    if (!is_valid_utf8(pattern_)) return error("it is not UTF-8");
    std::vector<Branch> branches;
    do {
      Branch branch;
      branch.from_start = eat('^');
      TAILOR_TRY(branch.body, terms(0, &branch.to_end));
      branches.push_back(std::move(branch));
    } while (eat('|'));
    if (at_ < pattern_.size()) return error("\")\" closes nothing");
    return branches;
  }

 private:
  bool more() const { return at_ < pattern_.size(); }
  bool next_is(char c) const { return more() && pattern_[at_] == c; }
  bool eat(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }
  Error error(std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("the regular expression cannot be used: {} (at byte {})", what, at_), ""};
  }

  Result<GrammarExpr> alternatives(int depth) {
    std::vector<GrammarExpr> ways;
    do {
      TAILOR_TRY(GrammarExpr way, terms(depth, nullptr));
      ways.push_back(std::move(way));
    } while (eat('|'));
    return choice(std::move(ways));
  }

  /// Up to "|", ")" or the end. `to_end` where "$" may stand last.
  Result<GrammarExpr> terms(int depth, bool* to_end) {
    std::vector<GrammarExpr> parts;
    while (more() && !next_is('|') && !next_is(')')) {
      if (next_is('$') && to_end != nullptr && (at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|')) {
        ++at_;
        *to_end = true;
        break;
      }
      TAILOR_TRY(GrammarExpr part, atom(depth));
      TAILOR_TRY(part, counted(std::move(part)));
      parts.push_back(std::move(part));
    }
    if (parts.empty()) return text_of("");
    return sequence(std::move(parts));
  }

  Result<GrammarExpr> atom(int depth) {
    const char c = pattern_[at_];
    if (c == '(') return group(depth);
    if (c == '[') return character_class();
    if (c == '.') {
      ++at_;
      return one_of(dot_set());
    }
    if (c == '^' || c == '$') return error("an anchor stands within it");
    if (c == '*' || c == '+' || c == '?') return error(fmt::format("\"{}\" repeats nothing", c));
    if (c == '{' || c == '}' || c == ']') return error(fmt::format("\"{0}\" must be written \"\\{0}\"", c));
    if (c == '\\') {
      TAILOR_TRY(CodeSet set, escape(false));
      return one_of(std::move(set));
    }
    const char32_t code = next_code_point(pattern_, at_);
    if (code == 0) return error("it holds U+0000");
    return one_of({{code, code}});
  }

  Result<GrammarExpr> group(int depth) {
    if (depth >= kDeepestGroup) return error(fmt::format("groups are nested deeper than {}", kDeepestGroup));
    ++at_;
    if (eat('?') && !eat(':')) {
      if (!eat('<') || next_is('=') || next_is('!')) return error("look-around and flags are not supported");
      while (more() && !next_is('>')) ++at_;
      if (!eat('>')) return error("the name of a group does not end");
    }
    TAILOR_TRY(GrammarExpr body, alternatives(depth + 1));
    if (!eat(')')) return error("a group does not end");
    return body;
  }

  Result<GrammarExpr> counted(GrammarExpr part) {
    if (!more()) return part;
    int minimum = 0, maximum = kNoMaximum;
    if (eat('?')) {
      maximum = 1;
    } else if (eat('+')) {
      minimum = 1;
    } else if (eat('{')) {
      TAILOR_TRY(minimum, count());
      maximum = minimum;
      if (eat(',')) {
        maximum = kNoMaximum;
        if (!next_is('}')) {
          TAILOR_TRY(maximum, count());
        }
      }
      if (!eat('}')) return error("a count of repetition does not end");
      if (maximum != kNoMaximum && maximum < minimum) return error("the counts of a repetition are in the wrong order");
    } else if (!eat('*')) {
      return part;
    }
    eat('?');
    if (next_is('*') || next_is('+') || next_is('?') || next_is('{')) return error("a repetition is repeated");
    return repeat(std::move(part), minimum, maximum);
  }

  Result<int> count() {
    const std::size_t begin = at_;
    int value = 0;
    for (; more() && pattern_[at_] >= '0' && pattern_[at_] <= '9'; ++at_) {
      value = value * 10 + (pattern_[at_] - '0');
      if (value > kLargestCount) return error(fmt::format("a count of repetition is above {}", kLargestCount));
    }
    if (at_ == begin) return error("a count of repetition is missing");
    return value;
  }

  Result<GrammarExpr> character_class() {
    ++at_;
    const bool negated = eat('^');
    CodeSet set;
    while (more() && !next_is(']')) {
      TAILOR_TRY(CodeSet first, class_member());
      if (next_is('-') && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']') {
        ++at_;
        TAILOR_TRY(const CodeSet last, class_member());
        const auto single = [](const CodeSet& s) { return s.size() == 1 && s[0].first == s[0].last; };
        if (!single(first) || !single(last) || first[0].first > last[0].first)
          return error("a range within [] is not in order");
        first[0].last = last[0].first;
      }
      set.insert(set.end(), first.begin(), first.end());
    }
    if (!eat(']')) return error("a \"[\" is not closed");
    set = normal_set(std::move(set));
    if (negated) set = complement(set);
    if (set.empty()) return error("a class matches no character");
    return one_of(std::move(set));
  }

  Result<CodeSet> class_member() {
    if (!more()) return error("a \"[\" is not closed");
    if (next_is('\\')) return escape(true);
    const char32_t code = next_code_point(pattern_, at_);
    if (code == 0) return error("it holds U+0000");
    return CodeSet{{code, code}};
  }

  Result<CodeSet> escape(bool within_class) {
    ++at_;
    if (!more()) return error("it ends with \"\\\"");
    const char c = pattern_[at_++];
    const auto just = [](char32_t code) { return CodeSet{{code, code}}; };
    switch (c) {
      case 'd':
        return digit_set();
      case 'D':
        return complement(digit_set());
      case 'w':
        return word_set();
      case 'W':
        return complement(word_set());
      case 's':
        return space_set();
      case 'S':
        return complement(space_set());
      case 'n':
        return just('\n');
      case 'r':
        return just('\r');
      case 't':
        return just('\t');
      case 'f':
        return just('\f');
      case 'v':
        return just('\v');
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      default:
        break;
    }
    if (c == 'b' && within_class) return just('\b');
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x21 || byte > 0x7E || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
        (byte >= 'a' && byte <= 'z')) {
      --at_;
      return error(byte >= 0x21 && byte <= 0x7E ? fmt::format("\"\\{}\" is not supported", c)
                                                : "an escape is not supported");
    }
    return just(byte);
  }

  Result<CodeSet> hex(int digits) {
    const bool braced = digits == 4 && eat('{');
    char32_t code = 0;
    int seen = 0;
    for (; more() && seen < (braced ? 6 : digits); ++at_, ++seen) {
      const char c = pattern_[at_];
      const int value = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (value < 0) break;
      code = code * 16 + static_cast<char32_t>(value);
    }
    const bool complete = braced ? seen > 0 && eat('}') : seen == digits;
    if (!complete || code == 0 || code > kLastCodePoint || (code >= 0xD800 && code <= 0xDFFF)) {
      return error("an escape names no character that text can hold");
    }
    return CodeSet{{code, code}};
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
};

}  // namespace

Result<Automaton> regex_automaton(std::string_view pattern) {
  TAILOR_TRY(std::vector<Branch> branches, Parser(pattern).parse());
  std::vector<GrammarExpr> ways;
  for (Branch& branch : branches) ways.push_back(std::move(branch.body));
  AutomatonBudget budget;
  return automaton_of(choice(std::move(ways)), budget);
}

Result<GrammarExpr> add_regex(Grammar& grammar, std::string_view pattern) {
  TAILOR_TRY(const Automaton automaton, regex_automaton(pattern));
  return add_automaton(
      grammar, automaton, [](const CodeSet& set) { return std::vector{one_of(set)}; }, text_of(""));
}

Result<GrammarExpr> add_regex_string(Grammar& grammar, std::string_view pattern, int minimum, int maximum,
                                     AutomatonBudget& budget) {
  TAILOR_TRY(std::vector<Branch> branches, Parser(pattern).parse());
  const GrammarExpr anything = repeat(one_of({{1, kLastCodePoint}}), 0, kNoMaximum);
  std::vector<GrammarExpr> ways;
  for (const Branch& branch : branches) {
    std::vector<GrammarExpr> parts;
    if (!branch.from_start) parts.push_back(anything);
    parts.push_back(branch.body);
    if (!branch.to_end) parts.push_back(anything);
    ways.push_back(sequence(std::move(parts)));
  }
  TAILOR_TRY(Automaton automaton, automaton_of(choice(std::move(ways)), budget));
  if (minimum > 0 || maximum != kNoMaximum) {
    TAILOR_TRY(automaton, with_length(automaton, minimum, maximum, budget));
  }
  const std::size_t first = grammar.rules();
  TAILOR_TRY(GrammarExpr rest, add_automaton(grammar, automaton, json_characters, text_of("\"")));
  for (std::size_t rule = first; rule < grammar.rules(); ++rule) ends_json_string(grammar, rule);
  return sequence({text_of("\""), std::move(rest)});
}

}  // namespace tailor
