#pragma once
/// A grammar of allowed texts, built from a JSON schema, a regular expression, choices or a written grammar, before it
/// is compiled for a vocabulary (infer/constraint.h). What reaches the compiling library is printed here alone.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

/// Code points, both ends included.
struct CodeRange {
  char32_t first = 0, last = 0;
  bool operator==(const CodeRange&) const = default;
};
using CodeSet = std::vector<CodeRange>;

inline constexpr char32_t kLastCodePoint = 0x10FFFF;

/// In order, disjoint, without surrogates (which UTF-8 cannot hold) and U+0000 (which no answer holds).
CodeSet normal_set(CodeSet set);
CodeSet complement(const CodeSet& set);
CodeSet intersection(const CodeSet& a, const CodeSet& b);
bool holds(const CodeSet& normal, char32_t code);

struct GrammarNode;
using GrammarExpr = std::shared_ptr<const GrammarNode>;

inline constexpr int kNoMaximum = -1;

/// Immutable; parts may be shared by several expressions.
struct GrammarNode {
  enum class Kind : std::uint8_t { kText, kClass, kSequence, kChoice, kRepeat, kRule };
  Kind kind = Kind::kText;
  std::string text;                // kText: UTF-8 without U+0000; may be empty
  CodeSet set;                     // kClass: normal; one of these code points
  std::vector<GrammarExpr> parts;  // kSequence, kChoice; kRepeat has one
  int minimum = 0, maximum = 0;    // kRepeat; kNoMaximum: any number
  std::size_t rule = 0;            // kRule
};

GrammarExpr text_of(std::string text);
GrammarExpr one_of(CodeSet set);  // in any order; an empty set matches nothing
GrammarExpr sequence(std::vector<GrammarExpr> parts);
GrammarExpr choice(std::vector<GrammarExpr> parts);  // of none: matches nothing
GrammarExpr repeat(GrammarExpr part, int minimum, int maximum);
GrammarExpr optional(GrammarExpr part);
GrammarExpr nothing();                     // matches no text at all, not even the empty one
bool is_nothing(const GrammarExpr& expr);  // made so; others may turn out to match nothing when printed
/// One of these texts, common prefixes written once. Repeated texts count once.
GrammarExpr any_text_of(std::vector<std::string> texts);

/// What a compiled grammar may cost at most; larger ones are refused before they are compiled.
struct GrammarLimits {
  std::size_t weight = 200'000;      // weight_of() all rules that are reached
  int repetitions = 1000;            // counted, those within them multiplied
  int simple_repetitions = 100'000;  // of one character or one rule, which are not written out
};

/// Bytes of texts plus ranges of classes, repeated parts counted up to 128 times.
std::size_t weight_of(const GrammarExpr& expr);
/// An error where a grammar of that weight is not printed: for builders, before they make more.
Status check_weight(std::size_t weight, const GrammarLimits& limits = {});

/// Rules that may refer to one another. Rule 0 is the whole text.
class Grammar {
 public:
  Grammar();
  std::size_t add_rule();  // to be defined before it is printed
  void define(std::size_t rule, GrammarExpr body);
  /// What the rule matches has at most so many code points. Where it cannot end there, it ends as soon as it can: for
  /// an exact bound the rule must be able to end anywhere, or count for more than is to be bounded.
  void limit(std::size_t rule, int characters);
  /// A promise: what stands behind the rule, wherever it is used, begins with any of `skipped` and then one of `next`.
  /// It spares the matcher tokens that go over the rule's end.
  void followed_by(std::size_t rule, CodeSet skipped, CodeSet next);
  static GrammarExpr refer(std::size_t rule);
  GrammarExpr rule_of(GrammarExpr body);  // a new rule, unless it is one
  std::size_t rules() const { return rules_.size(); }
  std::size_t weight() const { return weight_; }  // of all rules, reached or not
  const GrammarExpr& body(std::size_t rule) const { return rules_[rule].body; }

  /// In XGrammar's notation, the first rule named "root". Branches from which no text ends (a schema that demands
  /// itself) are left out. Errors: no text follows the grammar at all; beyond the limits.
  Result<std::string> print(const GrammarLimits& limits = {}) const;

  struct Rule {
    GrammarExpr body;
    int characters = kNoMaximum;
    CodeSet skipped, next;  // empty: anything may follow
    std::size_t weight = 0;
  };

 private:
  std::vector<Rule> rules_;
  std::size_t weight_ = 0;
};

}  // namespace tailor
