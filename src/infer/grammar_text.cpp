#include "infer/grammar_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "model/utf8.h"

namespace tailor {
namespace {

constexpr std::size_t kLongestText = 256 << 10;
constexpr std::size_t kMostRules = 10'000;
constexpr int kDeepestGroup = 64;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Result<Grammar> read() {
    if (text_.size() > kLongestText) return error(fmt::format("it is larger than {} KiB", kLongestText >> 10));
    if (!is_valid_utf8(text_)) return error("it is not UTF-8");
    rules_["root"] = 0;
    for (skip(); more(); skip()) {
      const std::size_t begin = at_;
      const std::string name(read_name());
      skip();
      if (name.empty() || !eat("::=")) {
        at_ = begin;
        return error("expected a rule, \"name ::= …\"");
      }
      TAILOR_TRY(const std::size_t rule, rule_of(name));
      if (defined_[rule]) return error(fmt::format("the rule \"{}\" is defined twice", name));
      defined_[rule] = true;
      TAILOR_TRY(GrammarExpr body, alternatives(0));
      grammar_.define(rule, std::move(body));
    }
    for (const auto& [name, rule] : rules_) {
      if (!defined_[rule]) return error(fmt::format("the rule \"{}\" is not defined", name));
    }
    return std::move(grammar_);
  }

 private:
  bool more() const { return at_ < text_.size(); }
  bool next_is(char c) const { return more() && text_[at_] == c; }
  bool eat(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  Error error(std::string_view what) const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const std::size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    return {ErrorCode::kInvalidArgument,
            fmt::format("the grammar cannot be used: line {}, column {}: {}", line, column, what), ""};
  }

  void skip() {
    while (more()) {
      if (next_is('#')) {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string_view read_name() {
    const std::size_t begin = at_;
    while (more() && is_name(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  Result<std::size_t> rule_of(const std::string& name) {
    const auto [it, fresh] = rules_.try_emplace(name, grammar_.rules());
    if (fresh) {
      if (grammar_.rules() >= kMostRules) return error(fmt::format("it has more than {} rules", kMostRules));
      grammar_.add_rule();
      defined_.push_back(false);
    }
    return it->second;
  }

  /// Whether a rule's definition begins here.
  bool rule_begins() {
    const std::size_t begin = at_;
    const bool named = !read_name().empty();
    skip();
    const bool begins = named && text_.substr(at_).starts_with("::=");
    at_ = begin;
    return begins;
  }

  Result<GrammarExpr> alternatives(int depth) {
    std::vector<GrammarExpr> ways;
    do {
      std::vector<GrammarExpr> parts;
      for (skip(); more() && !next_is('|') && !next_is(')') && !rule_begins(); skip()) {
        TAILOR_TRY(GrammarExpr part, item(depth));
        TAILOR_TRY(part, counted(std::move(part)));
        parts.push_back(std::move(part));
      }
      ways.push_back(parts.empty() ? text_of("") : sequence(std::move(parts)));
    } while (eat("|"));
    if (depth == 0 && next_is(')')) return error("\")\" closes nothing");
    return choice(std::move(ways));
  }

  Result<GrammarExpr> item(int depth) {
    if (next_is('"')) return literal();
    if (next_is('[')) return character_class();
    if (eat(".")) return one_of({{1, kLastCodePoint}});
    if (eat("(")) {
      if (next_is('=')) return error("look-ahead is not supported");
      if (depth >= kDeepestGroup) return error(fmt::format("groups are nested deeper than {}", kDeepestGroup));
      TAILOR_TRY(GrammarExpr body, alternatives(depth + 1));
      if (!eat(")")) return error("a group does not end");
      return body;
    }
    const std::string name(read_name());
    if (name.empty()) return error("expected a literal, a class, a group or the name of a rule");
    TAILOR_TRY(const std::size_t rule, rule_of(name));
    return Grammar::refer(rule);
  }

  Result<GrammarExpr> counted(GrammarExpr part) {
    if (eat("*")) return repeat(std::move(part), 0, kNoMaximum);
    if (eat("+")) return repeat(std::move(part), 1, kNoMaximum);
    if (eat("?")) return optional(std::move(part));
    if (!eat("{")) return part;
    skip();
    TAILOR_TRY(const int minimum, count());
    int maximum = minimum;
    skip();
    if (eat(",")) {
      skip();
      maximum = kNoMaximum;
      if (!next_is('}')) {
        TAILOR_TRY(maximum, count());
      }
      skip();
    }
    if (!eat("}")) return error("a count of repetition does not end");
    if (maximum != kNoMaximum && maximum < minimum) return error("the counts of a repetition are in the wrong order");
    return repeat(std::move(part), minimum, maximum);
  }

  Result<int> count() {
    const std::size_t begin = at_;
    int value = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = value * 10 + (text_[at_] - '0');
      if (value > 1'000'000) return error("a count of repetition is too large");
    }
    if (at_ == begin) return error("a count of repetition is missing");
    return value;
  }

  Result<GrammarExpr> literal() {
    ++at_;
    std::string out;
    while (more() && !next_is('"')) {
      TAILOR_TRY(const char32_t code, character());
      append_utf8(code, out);
    }
    if (!eat("\"")) return error("a literal does not end");
    return text_of(std::move(out));
  }

  Result<GrammarExpr> character_class() {
    ++at_;
    const bool negated = eat("^");
    CodeSet set;
    while (more() && !next_is(']')) {
      CodeRange range;
      TAILOR_TRY(range.first, character());
      range.last = range.first;
      if (next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        TAILOR_TRY(range.last, character());
        if (range.last < range.first) return error("a range within [] is not in order");
      }
      set.push_back(range);
    }
    if (!eat("]")) return error("a \"[\" is not closed");
    set = negated ? complement(set) : normal_set(std::move(set));
    if (set.empty()) return error("a class matches no character");
    return one_of(std::move(set));
  }

  Result<char32_t> character() {
    if (next_is('\n')) return error("a line ends within a literal or a class");
    char32_t code = 0;
    if (!eat("\\")) {
      code = next_code_point(text_, at_);
    } else {
      if (!more()) return error("an escape does not end");
      const char c = text_[at_++];
      static constexpr std::string_view kNames = "nrtxuU", kPlain = "\"'\\[]-^/";
      if (kPlain.find(c) != std::string_view::npos) return static_cast<char32_t>(c);
      switch (kNames.find(c)) {
        case 0:
          return U'\n';
        case 1:
          return U'\r';
        case 2:
          return U'\t';
        case 3:
          return hex(2);
        case 4:
          return hex(4);
        case 5:
          return hex(8);
        default:
          return error("an escape is not supported");
      }
    }
    if (code == 0) return error("U+0000 is not supported");
    return code;
  }

  Result<char32_t> hex(int digits) {
    std::uint64_t code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = more() ? text_[at_] : ' ';
      const int value = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (value < 0) return error("an escape does not end");
      code = code * 16 + static_cast<std::uint64_t>(value);
    }
    if (code == 0 || code > kLastCodePoint || (code >= 0xD800 && code <= 0xDFFF))
      return error("an escape names no character that text can hold");
    return static_cast<char32_t>(code);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  Grammar grammar_;
  std::unordered_map<std::string, std::size_t> rules_;
  std::vector<bool> defined_ = {false};
};

}  // namespace

Result<Grammar> read_grammar(std::string_view text) {
  return Reader(text).read();
}

}  // namespace tailor
