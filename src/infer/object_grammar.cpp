#include "infer/object_grammar.h"

#include <algorithm>
#include <map>
#include <utility>

namespace tailor {
namespace {

/// Choices among neighbouring leaves. Halves of the whole are rules, so that no more than twice the logarithm of their
/// number are needed wherever a choice begins.
class Leaves {
 public:
  Leaves(Grammar& grammar, std::size_t count) : grammar_(grammar), leaves_(count) {}
  GrammarExpr& operator[](std::size_t i) { return leaves_[i]; }

  /// Rules that together are the leaves [begin, end), all of them written.
  std::vector<GrammarExpr> choices(std::size_t begin, std::size_t end) {
    std::vector<GrammarExpr> out;
    cover(begin, end, 0, leaves_.size(), out);
    return out;
  }

 private:
  /// What of [begin, end) lies in [low, high).
  void cover(std::size_t begin, std::size_t end, std::size_t low, std::size_t high, std::vector<GrammarExpr>& out) {
    begin = std::max(begin, low);
    end = std::min(end, high);
    if (begin >= end) return;
    const std::size_t middle = low + (high - low) / 2;
    if (high - low == 1) {
      out.push_back(leaves_[low]);
    } else if (begin == low && end == high) {
      out.push_back(half(low, middle, high));
    } else {
      cover(begin, end, low, middle, out);
      cover(begin, end, middle, high, out);
    }
  }

  GrammarExpr half(std::size_t low, std::size_t middle, std::size_t high) {
    GrammarExpr& rule = halves_[{low, high}];
    if (rule == nullptr) {
      std::vector<GrammarExpr> ways;
      cover(low, middle, low, middle, ways);
      cover(middle, high, middle, high, ways);
      rule = grammar_.rule_of(choice(std::move(ways)));
    }
    return rule;
  }

  Grammar& grammar_;
  std::vector<GrammarExpr> leaves_;
  std::map<std::pair<std::size_t, std::size_t>, GrammarExpr> halves_;
};

}  // namespace

// Written from the back: after each member stand a comma and one of the members that may be next, or the closing brace.
// One rule asks for the comma however many may follow: where each did, a token that begins with one would be tried for
// each.
GrammarExpr object_grammar(Grammar& grammar, JsonGrammar& json, const std::vector<ObjectMember>& members,
                           const GrammarExpr& further) {
  GrammarExpr after = json.close_brace();  // what follows the member before the one that is written
  GrammarExpr more = nothing();
  if (!is_nothing(further)) {
    const std::size_t rest = grammar.add_rule();
    more = sequence({further, Grammar::refer(rest)});
    grammar.define(rest, choice({after, sequence({json.comma(), more})}));
    after = Grammar::refer(rest);
  }
  Leaves leaves(grammar, members.size());
  std::size_t end = members.size();  // behind the last that may be next: the first that is required, or all
  bool may_close = true;
  GrammarExpr next;
  for (std::size_t i = members.size(); i-- > 0;) {
    const bool among_others = !members[i].required || (i > 0 && !members[i - 1].required);
    GrammarExpr leaf = sequence({members[i].expr, after});  // all that follows written out: not kept unless it is used
    if (among_others) leaf = leaves[i] = grammar.rule_of(std::move(leaf));
    if (members[i].required) {
      end = i + 1;
      may_close = false;
      next = std::move(leaf);
      after = sequence({json.comma(), next});
    } else {
      std::vector<GrammarExpr> ways = leaves.choices(i, end);
      if (may_close && !is_nothing(more)) ways.push_back(more);
      next = choice(std::move(ways));
      GrammarExpr with_comma = sequence({json.comma(), next});
      if (may_close) with_comma = choice({json.close_brace(), std::move(with_comma)});
      after = grammar.rule_of(std::move(with_comma));
    }
  }
  return sequence({json.open_brace(), std::move(next)});
}

}  // namespace tailor
