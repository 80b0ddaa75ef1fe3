#include "infer/automaton.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "model/utf8.h"

namespace tailor {
namespace {

using Kind = GrammarNode::Kind;
constexpr std::size_t kMostPlaces = 20'000;
constexpr std::size_t kMostEdges = 200'000;     // no grammar of more is printed
constexpr std::size_t kMostRanges = 1'000'000;  // of the classes that one state waits for
constexpr std::size_t kMapSteps = 4;            // what an entry of a map costs

Error too_complex() {
  return {ErrorCode::kInvalidArgument,
          fmt::format("the regular expression cannot be used: its automaton has more than {} states or {} edges",
                      kMostAutomatonStates, kMostEdges),
          "use smaller counts of repetition"};
}

Error too_costly() {
  return {ErrorCode::kInvalidArgument,
          "the regular expression cannot be used: its automaton, with those before it, takes too much work",
          "use smaller counts of repetition, or fewer expressions"};
}

/// Thompson's construction: each place has either a class that leads on, or empty steps.
struct Place {
  const CodeSet* on = nullptr;
  std::vector<std::size_t> to;
};

class Builder {
 public:
  explicit Builder(AutomatonBudget& budget) : budget_(budget) {}

  Result<Automaton> build(const GrammarNode& node) {
    const std::size_t begin = add();
    TAILOR_TRY(const std::size_t end, append(node, begin));
    end_ = end;
    TAILOR_TRY(const std::size_t first, state_of({begin}));
    (void)first;
    for (std::size_t state = 0; state < sets_.size(); ++state) TAILOR_CHECK(expand(state));
    return std::move(out_);
  }

 private:
  std::size_t add() {
    places_.emplace_back();
    return places_.size() - 1;
  }

  /// A place of its own, since `from` may have empty steps too. `set` must stay where it is.
  std::size_t step(std::size_t from, const CodeSet& set) {
    const std::size_t before = add(), behind = add();
    places_[from].to.push_back(before);
    places_[before].on = &set;
    places_[before].to = {behind};
    return behind;
  }

  /// Places for `node` after `from`; the place behind it.
  Result<std::size_t> append(const GrammarNode& node, std::size_t from) {
    if (places_.size() > kMostPlaces) return too_complex();
    if (!budget_.take(1)) return too_costly();
    switch (node.kind) {
      case Kind::kClass:
        return step(from, node.set);
      case Kind::kSequence:
        for (const GrammarExpr& part : node.parts) {
          TAILOR_TRY(from, append(*part, from));
        }
        return from;
      case Kind::kChoice: {
        const std::size_t behind = add();
        for (const GrammarExpr& part : node.parts) {
          TAILOR_TRY(const std::size_t end, append(*part, from));
          const std::size_t own = end == from ? add() : end;
          if (end == from) places_[from].to.push_back(own);
          places_[own].to.push_back(behind);
        }
        return behind;
      }
      case Kind::kRepeat: {
        for (int i = 0; i < node.minimum; ++i) {
          TAILOR_TRY(const std::size_t next, append(*node.parts[0], from));
          if (next == from) break;  // the empty text: once more changes nothing
          from = next;
        }
        if (node.maximum == kNoMaximum) {
          const std::size_t loop = add(), behind = add();
          places_[from].to.push_back(loop);
          TAILOR_TRY(const std::size_t end, append(*node.parts[0], loop));
          if (end != loop) places_[end].to.push_back(loop);
          places_[loop].to.push_back(behind);
          return behind;
        }
        const std::size_t behind = add();
        for (int i = node.minimum; i < node.maximum; ++i) {
          places_[from].to.push_back(behind);
          const std::size_t next = add();
          places_[from].to.push_back(next);
          TAILOR_TRY(from, append(*node.parts[0], next));
        }
        places_[from].to.push_back(behind);
        return behind;
      }
      case Kind::kText:
        for (std::size_t at = 0; at < node.text.size();) {
          const char32_t code = next_code_point(node.text, at);
          letters_.push_back({{code, code}});
          from = step(from, letters_.back());
        }
        return from;
      case Kind::kRule:
        break;
    }
    return from;
  }

  Result<std::size_t> state_of(std::vector<std::size_t> places) {
    std::vector<bool> seen(places_.size(), false);
    std::vector<std::size_t> kept;  // those with a class, and the end
    while (!places.empty()) {
      const std::size_t at = places.back();
      places.pop_back();
      if (seen[at]) continue;
      seen[at] = true;
      if (!budget_.take(1)) return too_costly();
      if (places_[at].on != nullptr || at == end_) kept.push_back(at);
      if (places_[at].on == nullptr) places.insert(places.end(), places_[at].to.begin(), places_[at].to.end());
    }
    if (!budget_.take(places_.size() / 64)) return too_costly();
    std::sort(kept.begin(), kept.end());
    const auto [it, fresh] = states_.try_emplace(std::move(kept), sets_.size());
    if (fresh) {
      if (sets_.size() >= kMostAutomatonStates) return too_complex();
      sets_.push_back(&it->first);
      out_.states.push_back({std::binary_search(it->first.begin(), it->first.end(), end_), {}});
    }
    return it->second;
  }

  /// The edges of a state: code points from one border to the next lead to the same places.
  Status expand(std::size_t state) {
    const std::vector<std::size_t>& set = *sets_[state];
    std::map<char32_t, std::pair<std::vector<std::size_t>, std::vector<std::size_t>>> borders;  // begin and end there
    std::size_t ranges = 0;
    for (const std::size_t at : set) {
      if (places_[at].on == nullptr) continue;
      if ((ranges += places_[at].on->size()) > kMostRanges) return too_complex();
      if (!budget_.take(kMapSteps * places_[at].on->size())) return too_costly();
      for (const CodeRange& range : *places_[at].on) {
        borders[range.first].first.push_back(at);
        borders[range.last + 1].second.push_back(at);
      }
    }
    std::map<std::size_t, CodeSet> edges;
    std::map<std::size_t, int> active;
    for (auto it = borders.begin(); it != borders.end(); ++it) {
      for (const std::size_t at : it->second.second) {
        if (--active[at] == 0) active.erase(at);
      }
      for (const std::size_t at : it->second.first) ++active[at];
      const auto next = std::next(it);
      if (active.empty() || next == borders.end()) continue;
      std::vector<std::size_t> places;
      for (const auto& [at, count] : active) places.push_back(places_[at].to[0]);
      if (!budget_.take(places.size())) return too_costly();
      TAILOR_TRY(const std::size_t to, state_of(std::move(places)));
      edges[to].push_back({it->first, next->first - 1});
    }
    if ((edges_ += edges.size()) > kMostEdges) return too_complex();
    for (auto& [to, on] : edges) out_.states[state].edges.push_back({normal_set(std::move(on)), to});
    return {};
  }

  AutomatonBudget& budget_;
  std::vector<Place> places_;
  std::deque<CodeSet> letters_;  // of texts
  std::size_t end_ = 0, edges_ = 0;
  std::map<std::vector<std::size_t>, std::size_t> states_;
  std::vector<const std::vector<std::size_t>*> sets_;
  Automaton out_;
};

}  // namespace

Result<Automaton> automaton_of(const GrammarExpr& expr, AutomatonBudget& budget) {
  return Builder(budget).build(*expr);
}

Result<Automaton> with_length(const Automaton& automaton, int minimum, int maximum, AutomatonBudget& budget) {
  Automaton out;
  std::map<std::pair<std::size_t, int>, std::size_t> states;  // of a state and the characters so far
  std::vector<std::pair<std::size_t, int>> found;
  const auto state_of = [&](std::size_t state, int length) {
    const auto [it, fresh] = states.try_emplace({state, length}, found.size());
    if (fresh) found.push_back(it->first);
    return it->second;
  };
  state_of(0, 0);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto [state, length] = found[i];
    Automaton::State made{automaton.states[state].ends && length >= minimum, {}};
    if (!budget.take(kMapSteps * automaton.states[state].edges.size())) return too_costly();
    for (const Automaton::Edge& edge : automaton.states[state].edges) {
      if (maximum != kNoMaximum && length == maximum) break;
      // Beyond the minimum nothing is counted where there is no maximum.
      const int next = maximum == kNoMaximum ? std::min(length + 1, minimum) : length + 1;
      made.edges.push_back({edge.on, state_of(edge.to, next)});
    }
    if (found.size() > kMostAutomatonStates) return too_complex();
    out.states.push_back(std::move(made));
  }
  return out;
}

Result<GrammarExpr> add_automaton(Grammar& grammar, const Automaton& automaton,
                                  const std::function<std::vector<GrammarExpr>(const CodeSet&)>& write,
                                  const GrammarExpr& end) {
  TAILOR_CHECK(check_weight(grammar.weight() + automaton.states.size()));
  const std::size_t first = grammar.rules();
  for (std::size_t i = 0; i < automaton.states.size(); ++i) grammar.add_rule();
  for (std::size_t i = 0; i < automaton.states.size(); ++i) {
    std::vector<GrammarExpr> ways;
    for (const Automaton::Edge& edge : automaton.states[i].edges) {
      for (GrammarExpr& way : write(edge.on))
        ways.push_back(sequence({std::move(way), Grammar::refer(first + edge.to)}));
    }
    if (automaton.states[i].ends) ways.push_back(end);
    grammar.define(first + i, choice(std::move(ways)));
    TAILOR_CHECK(check_weight(grammar.weight()));
  }
  return Grammar::refer(first);
}

}  // namespace tailor
