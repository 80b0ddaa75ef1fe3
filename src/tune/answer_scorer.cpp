#include "tune/answer_scorer.h"

#include <algorithm>
#include <limits>
#include <memory>

namespace tailor::tune::decoder {
namespace {

constexpr std::int64_t kPassTokens = 768;  // about so many pass the model at once

using Tokens = std::span<const std::int32_t>;

/// Answers merged where they begin alike. Node 0 is the prompt's end.
struct AnswerTree {
  struct Node {
    std::int32_t token = -1;
    std::vector<std::size_t> children;
    std::vector<std::size_t> ends;   // answers that end here
    std::vector<std::size_t> below;  // answers that go through here or end here
  };
  std::vector<Node> nodes{1};

  explicit AnswerTree(std::span<const Tokens> answers) {
    for (std::size_t a = 0; a < answers.size(); ++a) {
      std::size_t at = 0;
      for (const std::int32_t token : answers[a]) {
        at = child(at, token);
        nodes[at].below.push_back(a);
      }
      nodes[at].ends.push_back(a);
    }
  }
  /// Whether answer `a` goes through `node`.
  bool holds(std::size_t node, std::int32_t a) const {
    const auto& below = nodes[node].below;
    return a >= 0 && std::binary_search(below.begin(), below.end(), static_cast<std::size_t>(a));
  }

 private:
  std::size_t child(std::size_t at, std::int32_t token) {
    for (const std::size_t c : nodes[at].children) {
      if (nodes[c].token == token) return c;
    }
    nodes.emplace_back();
    nodes.back().token = token;
    nodes[at].children.push_back(nodes.size() - 1);
    return nodes.size() - 1;
  }
};

/// A beginning of answers after a prompt, whose probability is known and which is not gone on with yet.
struct Open {
  std::size_t row = 0;       // of the prompts at work
  std::size_t node = 0;      // of the tree of answers
  std::int32_t segment = 0;  // of what the decoder has seen, in which the path before the node ends
  std::int64_t position = 0;
  double log_p = 0;
};

class Scorer {
 public:
  Scorer(Decoder& decoder, std::span<const std::vector<std::int32_t>> prompts, std::span<const Tokens> answers,
         std::span<const std::int32_t> exact)
      : decoder_(decoder), prompts_(prompts), tree_(answers), answers_(answers.size()), exact_(exact) {}

  std::vector<float> run() {
    scores_.assign(prompts_.size() * answers_, 0.0f);
    read_common_beginning();
    for (std::size_t end = 0; end < prompts_.size();) {
      first_ = end;
      for (std::int64_t tokens = 0; end < prompts_.size() && (end == first_ || tokens < kPassTokens); ++end)
        tokens += static_cast<std::int64_t>(prompts_[end].size()) - common_;
      best_.assign(end - first_, -std::numeric_limits<double>::infinity());
      open_.clear();
      read_prompts(end);
      while (go_on()) {
      }
      for (const Open& left : open_) {
        for (const std::size_t a : tree_.nodes[left.node].below) score(left.row, a) = static_cast<float>(left.log_p);
      }
      seen_.cut(common_);
    }
    return std::move(scores_);
  }

 private:
  float& score(std::size_t row, std::size_t answer) { return scores_[(first_ + row) * answers_ + answer]; }
  std::int32_t exact(std::size_t row) const { return exact_.empty() ? -1 : exact_[first_ + row]; }

  /// Every prompt keeps a token of its own: the first answers' tokens are asked there.
  void read_common_beginning() {
    const std::vector<std::int32_t>& first = prompts_.front();
    std::size_t common = first.size() - 1;
    for (const auto& prompt : prompts_) {
      const auto end = std::mismatch(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(common), prompt.begin(),
                                     prompt.end() - 1);
      common = static_cast<std::size_t>(end.first - first.begin());
    }
    common_ = static_cast<std::int64_t>(common);
    if (common_ == 0) return;
    auto tree = std::make_shared<PackedTree>();
    tree->tokens.assign(first.begin(), first.begin() + common_);
    for (std::int64_t i = 0; i < common_; ++i) tree->positions.push_back(i);
    tree->segments.push_back({0, common_, 0, -1});
    tree->label_nodes.push_back(common_ - 1);
    tree->max_path = common_;
    decoder_.losses_after(seen_, tree);
  }

  /// Prompts [first_, end), and how likely the answers' first tokens are.
  void read_prompts(std::size_t end) {
    const std::int32_t root = common_ > 0 ? 0 : -1;
    std::vector<std::vector<std::int32_t>> own;
    std::vector<SequenceView> views;
    std::vector<std::vector<std::uint8_t>> masks;
    for (std::size_t p = first_; p < end; ++p) {
      own.emplace_back(prompts_[p].begin() + common_, prompts_[p].end());
      own.back().push_back(0);  // any token: its probability is not asked
      masks.emplace_back(own.back().size(), std::uint8_t{0});
      masks.back().back() = 1;
    }
    for (std::size_t i = 0; i < own.size(); ++i) views.push_back({own[i], masks[i]});
    auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
    for (TreeSegment& segment : tree->segments) {
      segment.offset += common_;
      segment.parent = segment.parent < 0 ? root : segment.parent + root + 1;
    }
    for (std::int64_t& position : tree->positions) position += common_;
    tree->max_path += common_;
    const std::vector<LabelTarget> ends = std::move(tree->targets);
    std::vector<Open> asked;
    tree->targets.clear();
    for (const LabelTarget& end_of_row : ends) {
      const auto row = static_cast<std::size_t>(end_of_row.row);
      const Open prompt{row, 0, tree->row_ends[row] + root + 1,
                        static_cast<std::int64_t>(prompts_[first_ + row].size()), 0};
      ask_children(prompt, end_of_row.node, *tree, asked);
    }
    follow(asked, decoder_.losses_after(seen_, tree));
  }

  /// `behind`: its node's path stands in the segment it names, whose last token is label node `at`.
  void ask_children(const Open& behind, std::int32_t at, PackedTree& tree, std::vector<Open>& asked) const {
    for (const std::size_t child : tree_.nodes[behind.node].children) {
      tree.targets.push_back({at, tree_.nodes[child].token, static_cast<std::int32_t>(behind.row)});
      asked.push_back({behind.row, child, behind.segment, behind.position, behind.log_p});
    }
  }

  /// A beginning whose probability is known now.
  void take(const Open& now) {
    const AnswerTree::Node& node = tree_.nodes[now.node];
    for (const std::size_t a : node.ends) {
      score(now.row, a) = static_cast<float>(now.log_p);
      best_[now.row] = std::max(best_[now.row], now.log_p);
    }
    if (!node.children.empty()) open_.push_back(now);
  }

  /// Goes on with the beginnings that may hold a prompt's best answers. False: there is none.
  bool go_on() {
    std::vector<double> bar = best_;
    for (const Open& o : open_) bar[o.row] = std::max(bar[o.row], o.log_p);
    std::vector<Open> left, chosen;
    std::int64_t tokens = 0;
    for (const Open& o : open_) {
      // Not "less than": a NaN is gone on with, and shows.
      const bool wanted = !(o.log_p < bar[o.row] - kUnlikely) || tree_.holds(o.node, exact(o.row));
      const bool now = wanted && tokens < kPassTokens;
      (now ? chosen : left).push_back(o);
      if (now) tokens += length_of_chain(o.node);
    }
    if (chosen.empty()) return false;
    open_ = std::move(left);
    auto tree = std::make_shared<PackedTree>();
    std::vector<Open> asked;
    for (const Open& o : chosen) add_chain(o, *tree, asked);
    follow(asked, decoder_.losses_after(seen_, tree));
    return true;
  }

  /// Nodes from `node` on as long as only one answer's token can follow and no answer ends before it.
  std::int64_t length_of_chain(std::size_t node) const {
    std::int64_t n = 1;
    for (; goes_straight_on(node); ++n) node = tree_.nodes[node].children.front();
    return n;
  }
  /// The one child of `node` has children itself.
  bool goes_straight_on(std::size_t node) const {
    const auto& children = tree_.nodes[node].children;
    return children.size() == 1 && !tree_.nodes[children.front()].children.empty() &&
           tree_.nodes[children.front()].ends.empty();
  }

  /// A segment of the chain that begins at the node; asks for every token that may follow one of its tokens.
  void add_chain(const Open& o, PackedTree& tree, std::vector<Open>& asked) const {
    const std::int64_t begin = tree.size(), n = length_of_chain(o.node);
    const auto segment = static_cast<std::int32_t>(seen_.segments.size() + tree.segments.size());
    tree.segments.push_back({begin, n, o.position, o.segment});
    Open at = o;
    at.segment = segment;
    for (std::int64_t i = 0; i < n; ++i) {
      tree.tokens.push_back(tree_.nodes[at.node].token);
      tree.positions.push_back(at.position);
      tree.label_nodes.push_back(begin + i);
      ++at.position;
      ask_children(at, static_cast<std::int32_t>(begin + i), tree, asked);
      if (i + 1 < n) at.node = tree_.nodes[at.node].children.front();
    }
    tree.max_path = std::max(tree.max_path, at.position);
  }

  /// The losses of the tokens that were asked, of which one may stand behind the one before it.
  void follow(std::vector<Open>& asked, const std::vector<float>& losses) {
    double chain = 0;  // of the tokens asked on the way
    for (std::size_t i = 0; i < asked.size(); ++i) {
      Open& now = asked[i];
      now.log_p += chain - losses[i];
      const bool next_is_behind =
          i + 1 < asked.size() && asked[i + 1].segment == now.segment && asked[i + 1].position == now.position + 1;
      if (next_is_behind) {
        chain -= losses[i];
        continue;
      }
      if (i + 1 < asked.size() && asked[i + 1].segment != now.segment) chain = 0;
      take(now);
    }
  }

  Decoder& decoder_;
  std::span<const std::vector<std::int32_t>> prompts_;
  const AnswerTree tree_;
  const std::size_t answers_;
  std::span<const std::int32_t> exact_;
  std::vector<float> scores_;
  std::int64_t common_ = 0;  // tokens with which all prompts begin
  Decoder::Seen seen_;
  std::size_t first_ = 0;     // prompt of row 0
  std::vector<double> best_;  // [rows] of whole answers
  std::vector<Open> open_;
};

}  // namespace

std::vector<float> score_answers(Decoder& decoder, std::span<const std::vector<std::int32_t>> prompts,
                                 std::span<const Tokens> answers, std::span<const std::int32_t> exact) {
  if (prompts.empty() || answers.empty()) return std::vector<float>();
  return Scorer(decoder, prompts, answers, exact).run();
}

}  // namespace tailor::tune::decoder
