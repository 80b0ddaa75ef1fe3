// LabelScorer::best(): best-first search for the best label, many messages in lockstep in one context.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <queue>

#include "infer/label_scorer_impl.h"
#include "infer/parallel.h"

namespace tailor {
namespace {

constexpr int kLockstep = 8;      // messages at once: more would have fewer sequences each, and compute nodes again
constexpr int kNodesAtOnce = 64;  // of all messages: products of this height are near full speed, and more nodes would
                                  // be computed that the search would not have come to
constexpr int kMaxCells = 8192;   // of a lockstep's key-value cache

/// A node that may be computed next.
struct Candidate {
  double bound;
  std::int32_t node;
  bool operator<(const Candidate& other) const { return bound < other.bound; }
};

/// A sequence that holds the prompt and the trie's nodes from the root to `tip`.
struct Path {
  int sequence = 0;
  std::int32_t tip = 0;   // with the tokens of the batch that is being made
  std::int32_t held = 0;  // what the cache holds already
  bool used = false;
  bool pending() const { return tip != held; }
};

/// One message on its way. paths[0] is its base: prompt alone, kept to the end.
struct Search {
  const ScoreTask* task = nullptr;  // null: the place is free
  int length = 0;                   // tokens of the whole prompt
  std::vector<Path> paths;
  std::vector<double> log_p;
  std::priority_queue<Candidate> frontier;
  BestLabel best;

  const LabelTrie& trie() const { return *task->trie; }
  const LabelTrie::Node& node(std::int32_t id) const { return task->trie->nodes[static_cast<std::size_t>(id)]; }
  bool done() const { return frontier.empty() || (best.label >= 0 && frontier.top().bound < best.score); }

  bool is_on_path(std::int32_t ancestor, std::int32_t tip) const {
    while (tip > ancestor) tip = node(tip).parent;  // preorder: ancestors have smaller numbers
    return tip == ancestor;
  }
};

/// Runs searches in one worker's context.
class Lockstep {
 public:
  Lockstep(LabelScorer::Impl& scorer, ScoreWorker& worker, const ScoreCalibration& calibration, int places)
      : scorer_(scorer), worker_(worker), calibration_(calibration), searches_(static_cast<std::size_t>(places)) {
    const int paths = (kMaxSequences - 1) / places;
    int sequence = 1;
    for (Search& search : searches_) {
      search.paths.resize(static_cast<std::size_t>(std::min(paths, kMaxPaths)));
      for (Path& path : search.paths) path.sequence = sequence++;
    }
  }

  /// `next` gives the next task, or null when there are none; `finished` takes results.
  Status run(const std::function<const ScoreTask*()>& next,
             const std::function<void(const ScoreTask&, const BestLabel&)>& finished, const CancelToken& cancel) {
    worker_.prefix_ready = false;  // until all sequences are clean again
    bool more = true;
    while (true) {
      if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "scoring was interrupted", ""};
      worker_.batch.clear();
      outputs_.clear();
      int active = 0;
      for (Search& search : searches_) {
        if (search.task != nullptr) {
          ++active;
          continue;
        }
        const ScoreTask* task = more ? next() : nullptr;
        more = task != nullptr;
        if (more) TAILOR_CHECK(start(search, *task));
      }
      const int width = kNodesAtOnce / std::max(active, 1);
      for (Search& search : searches_) {
        if (search.task == nullptr || search.frontier.empty()) continue;
        for (int i = 0; i < width && !search.done(); ++i) {
          const std::int32_t node = search.frontier.top().node;
          if (!expand(search, node)) break;
          search.frontier.pop();
        }
      }
      if (worker_.batch.empty()) break;
      TAILOR_CHECK(worker_.batch.decode(worker_.context.get(), scorer_.model->name()));
      for (const Output& output : outputs_) TAILOR_CHECK(read(output));
      for (Search& search : searches_) {
        for (Path& path : search.paths) path.held = path.tip;
      }
      for (Search& search : searches_) {
        if (search.task == nullptr || !search.done()) continue;
        finished(*search.task, search.best);
        for (Path& path : search.paths) drop(path);
        search.task = nullptr;
      }
    }
    worker_.prefix_ready = true;
    return {};
  }

  static constexpr int kMaxPaths = 63;  // a message's sequences; more are seldom of use

 private:
  struct Output {
    Search* search;
    std::int32_t node;
    int index;
  };

  double calibrated(std::int32_t label, double log_p) const {
    const auto i = static_cast<std::size_t>(label);
    return calibration_.bias.empty() ? log_p : (log_p - calibration_.bias[i]) / calibration_.norm[i];
  }

  /// No label below the node can score more: its log p is at most the node's.
  double bound(const Search& search, std::int32_t id) const {
    const LabelTrie::Node& node = search.node(id);
    const double log_p = search.log_p[static_cast<std::size_t>(id)];
    if (calibration_.bias.empty()) return log_p;
    double best = -std::numeric_limits<double>::infinity();
    for (std::int32_t i = node.label_first; i < node.label_last; ++i)
      best = std::max(best, calibrated(search.trie().order[static_cast<std::size_t>(i)], log_p));
    return best;
  }

  Status start(Search& search, const ScoreTask& task) {
    search.task = &task;
    search.length = scorer_.prefix_length() + static_cast<int>(task.tokens.size());
    search.log_p.assign(task.trie->nodes.size(), 0.0);
    search.frontier = {};
    search.best = {};
    search.paths[0].used = true;
    search.paths[0].tip = search.paths[0].held = 0;
    const int sequence = search.paths[0].sequence;
    std::span<const std::int32_t> tokens = task.tokens;
    int position = scorer_.prefix_length();
    if (tokens.size() > kLongPrompt) {
      const std::span<const std::int32_t> head = tokens.first(tokens.size() - 1);
      TAILOR_CHECK(scorer_.decode_quietly(worker_, head, position, sequence));
      position += static_cast<int>(head.size());
      tokens = tokens.last(1);
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool last = i + 1 == tokens.size();
      const int index = worker_.batch.add(tokens[i], position + static_cast<int>(i), {sequence, sequence + 1}, last);
      if (last) outputs_.push_back({&search, 0, index});
    }
    return {};
  }

  void drop(Path& path) {
    if (path.used) llama_memory_seq_rm(worker_.memory(), path.sequence, scorer_.prefix_length(), -1);
    path.used = false;
  }

  /// What a path is worth keeping for: the best node that could go on from its tip.
  double worth(const Search& search, const Path& path) const {
    if (path.pending()) return std::numeric_limits<double>::infinity();
    double best = -std::numeric_limits<double>::infinity();
    for (std::int32_t c = search.node(path.tip).first_child; c >= 0; c = search.node(c).next_sibling) {
      if (search.node(c).internal()) best = std::max(best, bound(search, c));
    }
    return best;
  }

  /// Puts a node, and those of its ancestors that no sequence holds any more, into the batch. False: all of the
  /// message's sequences are busy in this batch.
  bool expand(Search& search, std::int32_t id) {
    const std::span<Path> paths = std::span(search.paths).subspan(1);
    const std::int32_t parent = search.node(id).parent;
    std::int32_t from = parent;  // the deepest ancestor that is still held
    auto target = std::find_if(paths.begin(), paths.end(),
                               [&](const Path& p) { return p.used && !p.pending() && p.tip == parent; });
    if (target == paths.end()) {
      target = std::find_if(paths.begin(), paths.end(), [](const Path& p) { return !p.used; });
      if (target == paths.end()) {
        target = std::min_element(paths.begin(), paths.end(),
                                  [&](const Path& a, const Path& b) { return worth(search, a) < worth(search, b); });
        if (target->pending()) return false;
        drop(*target);
      }
      const Path* source = nullptr;
      while (true) {
        for (const Path& path : search.paths) {
          if (path.used && search.is_on_path(from, path.held)) source = &path;
        }
        if (source != nullptr) break;
        from = search.node(from).parent;  // ends at the root, which paths[0] holds
      }
      llama_memory_seq_cp(worker_.memory(), source->sequence, target->sequence, scorer_.prefix_length(),
                          search.length + search.node(from).depth);
      target->used = true;
      target->held = from;
    }
    std::vector<std::int32_t> chain;  // from `id` up
    for (std::int32_t n = id; n != from; n = search.node(n).parent) chain.push_back(n);
    for (std::size_t i = chain.size(); i-- > 0;) {
      const int index = worker_.batch.add(search.node(chain[i]).token, search.length + search.node(chain[i]).depth - 1,
                                          {target->sequence, target->sequence + 1}, i == 0);
      if (i == 0) outputs_.push_back({&search, id, index});
    }
    search.best.nodes += static_cast<std::int32_t>(chain.size());
    target->tip = id;
    return true;
  }

  Status read(const Output& output) {
    const float* logits = llama_get_logits_ith(worker_.context.get(), output.index);
    if (logits == nullptr)
      return Error{ErrorCode::kInternal, fmt::format("{}: no scores came back", scorer_.model->name()), ""};
    Search& search = *output.search;
    TAILOR_CHECK(read_children(search.trie(), output.node, {logits, static_cast<std::size_t>(scorer_.vocabulary())},
                               search.log_p));
    for (std::int32_t c = search.node(output.node).first_child; c >= 0; c = search.node(c).next_sibling) {
      if (search.node(c).internal()) {
        search.frontier.push({bound(search, c), c});
        continue;
      }
      const std::int32_t label = search.node(c).label;
      const double score = calibrated(label, search.log_p[static_cast<std::size_t>(c)]);
      if (search.best.label < 0 || score > search.best.score ||
          (score == search.best.score && label < search.best.label)) {
        search.best.label = label;
        search.best.score = score;
      }
    }
    return {};
  }

  LabelScorer::Impl& scorer_;
  ScoreWorker& worker_;
  const ScoreCalibration& calibration_;
  std::vector<Search> searches_;
  std::vector<Output> outputs_;
};

}  // namespace

Result<std::vector<BestLabel>> LabelScorer::best(std::span<const TokenList> prompts,
                                                 const ScoreCalibration& calibration, const ProgressFn& progress,
                                                 const CancelToken& cancel,
                                                 std::span<const std::vector<std::int32_t>> subsets) {
  Impl& self = *impl_;
  const std::size_t n_labels = self.labels.size();
  if (!calibration.bias.empty() || !calibration.norm.empty()) {
    const auto is_bad = [](double v) { return !std::isfinite(v); };
    if (calibration.bias.size() != n_labels || calibration.norm.size() != n_labels ||
        std::any_of(calibration.bias.begin(), calibration.bias.end(), is_bad) ||
        std::any_of(calibration.norm.begin(), calibration.norm.end(), [&](double v) { return is_bad(v) || v <= 0; })) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format(
              "the calibration has {} biases and {} norms for {} labels; expected one each, finite, norms above 0",
              calibration.bias.size(), calibration.norm.size(), n_labels),
          "calibrate again for these labels"};
    }
  }
  std::vector<std::unique_ptr<LabelTrie>> owned;
  TAILOR_TRY(const std::vector<ScoreTask> tasks, self.tasks(prompts, subsets, owned));
  std::vector<BestLabel> out(prompts.size());
  if (tasks.empty()) return out;
  if (self.torch) {
    TAILOR_TRY(const std::vector<LabelScores> all, self.score_by_torch(prompts, subsets, progress, cancel));
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::size_t l = 0; l < n_labels; ++l) {
        double score = all[i][l];
        if (!calibration.norm.empty()) score = (score - calibration.bias[l]) / calibration.norm[l];
        if (out[i].label < 0 || score > out[i].score)
          out[i] = {static_cast<std::int32_t>(l), score, self.trie.internal_nodes};
      }
    }
    return out;
  }

  std::size_t longest = 0, deepest = 0;
  for (const ScoreTask& task : tasks) {
    longest = std::max(longest, task.tokens.size());
    deepest = std::max(deepest, static_cast<std::size_t>(task.trie->max_depth));
  }
  const bool together = tasks.size() < 2 * static_cast<std::size_t>(self.threads);
  const int workers = together ? 1 : self.threads;
  // What sequences have in common is there once, so no node twice.
  const std::size_t cells_each =
      longest + std::min(Lockstep::kMaxPaths * deepest, static_cast<std::size_t>(self.trie.internal_nodes));
  const std::size_t fitting = std::max<std::size_t>(1, self.cells_beside_prefix(kMaxCells) / cells_each);
  const auto places = static_cast<int>(
      std::min({fitting, static_cast<std::size_t>(kLockstep),
                (tasks.size() + static_cast<std::size_t>(workers) - 1) / static_cast<std::size_t>(workers)}));
  const ContextNeed need{.cells = self.prefix_length() + places * static_cast<int>(cells_each),
                         .ubatch = std::max(static_cast<int>(longest), 256),
                         .threads = together ? self.threads : 1};

  std::atomic<std::size_t> next_task{0};
  std::mutex reporting;
  std::size_t done = 0;
  const auto search_some = [&](int w) -> Status {
    ScoreWorker& worker = self.workers[static_cast<std::size_t>(w)];
    TAILOR_CHECK(self.prepare(worker, need));
    const OwnAttention own(self.prefix_length());
    const auto next = [&]() -> const ScoreTask* {
      const std::size_t i = next_task.fetch_add(1);
      return i < tasks.size() ? &tasks[i] : nullptr;
    };
    const auto finished = [&](const ScoreTask& task, const BestLabel& best) {
      out[task.prompt] = best;
      if (!progress) return;
      const std::lock_guard lock(reporting);
      progress(
          {.stage = "scoring labels", .done = static_cast<double>(++done), .total = static_cast<double>(tasks.size())});
    };
    return Lockstep(self, worker, calibration, places).run(next, finished, cancel);
  };
  TAILOR_CHECK(run_workers(workers, search_some));
  return out;
}

}  // namespace tailor
