#include "infer/label_scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/system.h"
#include "infer/label_scorer_impl.h"
#include "infer/log_softmax.h"
#include "infer/parallel.h"

namespace tailor {
namespace {

constexpr std::size_t kTorchPrompts = 16;  // a request: progress is told, and an interruption seen, between two

constexpr std::size_t kPackTokens = 256;         // more tokens a call: no faster products, more masked attention
constexpr std::size_t kLogitBytes = 256u << 20;  // of one call's outputs
constexpr int kPathsAtOnce = kMaxSequences - 1;  // sequence 0 keeps the prefix
constexpr int kMaxUbatch = 512;
constexpr int kLeastContext = 2;  // a prompt and a label of one token each

/// Paths [first, last) of a trie that are decoded in one call.
struct PathGroup {
  std::int32_t first = 0;
  std::int32_t last = 0;
};

bool in_group(const LabelTrie::Node& node, const PathGroup& group) {
  return node.internal() && node.parent >= 0 && node.path_first < group.last && node.path_last > group.first;
}

/// At most kPathsAtOnce paths and `max_nodes` nodes a group (one path is always taken).
std::vector<PathGroup> split_paths(const LabelTrie& trie, int max_nodes) {
  // Nodes that a path adds to the paths left of it in its group are at most its depth; count exactly, path by path.
  std::vector<PathGroup> groups;
  PathGroup group;
  while (group.last < trie.paths) {
    const PathGroup wider{group.first, group.last + 1};
    int nodes = 0;
    for (const LabelTrie::Node& node : trie.nodes) nodes += in_group(node, wider) ? 1 : 0;
    const bool fits = wider.last - wider.first <= kPathsAtOnce && nodes <= max_nodes;
    if (!fits && group.last > group.first) {
      groups.push_back(group);
      group = {group.last, group.last};
      continue;
    }
    group = wider;
  }
  groups.push_back(group);
  return groups;
}

int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

Status read_children(const LabelTrie& trie, std::int32_t node, std::span<const float> logits,
                     std::vector<double>& log_p) {
  const double normaliser = log_sum_exp(logits);
  if (!std::isfinite(normaliser)) {
    return Error{ErrorCode::kCorruptData, "the model gave a score that is not a number",
                 "its weights, or the adapter's, are damaged"};
  }
  const double base = log_p[static_cast<std::size_t>(node)];
  for (std::int32_t c = trie.nodes[static_cast<std::size_t>(node)].first_child; c >= 0;
       c = trie.nodes[static_cast<std::size_t>(c)].next_sibling) {
    const auto child = static_cast<std::size_t>(c);
    log_p[child] = base + static_cast<double>(logits[static_cast<std::size_t>(trie.nodes[child].token)]) - normaliser;
  }
  return {};
}

LabelScorer::LabelScorer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LabelScorer::LabelScorer(LabelScorer&&) noexcept = default;
LabelScorer& LabelScorer::operator=(LabelScorer&&) noexcept = default;
LabelScorer::~LabelScorer() = default;
int LabelScorer::max_context() const {
  return impl_->max_context - impl_->soft.length();
}
int LabelScorer::vocabulary() const {
  return impl_->vocabulary();
}
const Tokenizer& LabelScorer::tokenizer() const {
  return impl_->model->tokenizer();
}
std::string LabelScorer::chat_template() const {
  return impl_->model->chat_template();
}
std::int32_t LabelScorer::trie_nodes() const {
  return impl_->trie.internal_nodes - 1;
}

Result<LabelScorer> LabelScorer::load(const std::filesystem::path& gguf, const LabelScorerOptions& options) {
  if (options.threads < 0 || options.max_context < 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("scoring options are out of range: threads {}, max_context {}", options.threads,
                             options.max_context),
                 "both are 0 or more"};
  }
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->threads = options.threads > 0 ? options.threads : system_info().cores;
  TAILOR_TRY(impl->model, LoadedModel::load(gguf, options.adapter));
  if (!options.soft_prompt.empty()) {
    TAILOR_TRY(impl->soft, SoftPrompt::load(options.soft_prompt));
  }
  TAILOR_CHECK(impl->model->require_decoder("labels can be scored"));
  const int trained = llama_model_n_ctx_train(impl->model->get());
  impl->max_context = options.max_context > 0 ? std::min(options.max_context, trained) : trained;
  if (const int limit = impl->model->short_context(); limit > 0) impl->max_context = std::min(impl->max_context, limit);
  if (const int soft = impl->soft.length(); impl->max_context - soft < kLeastContext) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: a prompt and a label do not fit: expected a context of at least {} tokens{}, got {}",
                             impl->model->name(), soft + kLeastContext,
                             soft > 0 ? fmt::format(", {} of them for the soft prompt", soft) : "", impl->max_context),
                 soft > 0 ? "allow a longer context, or train a shorter soft prompt" : "allow a longer context"};
  }
  impl->workers.resize(static_cast<std::size_t>(impl->threads));
  if (!options.worker.empty()) {
    TAILOR_TRY(impl->torch, TorchWorker::start(gguf, options.worker, impl->threads));
  }
  return LabelScorer(std::move(impl));
}

Status LabelScorer::set_prefix(TokenList prefix) {
  Impl& self = *impl_;
  if (self.soft.length() + static_cast<int>(prefix.size()) >= self.max_context) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the prompt's common beginning has {} tokens; the model reads {}", prefix.size(), self.max_context),
        "shorten the instruction or use fewer demonstrations"};
  }
  if (prefix == self.prefix) return {};
  self.prefix = std::move(prefix);
  for (ScoreWorker& worker : self.workers) worker.prefix_ready = false;
  return {};
}

Status LabelScorer::set_labels(std::vector<TokenList> labels, std::vector<std::string> names) {
  for (const TokenList& label : labels) {
    for (const std::int32_t token : label) {
      if (token < 0 || token >= vocabulary()) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("a label has token {}; the model knows {}", token, vocabulary()), ""};
      }
    }
  }
  TAILOR_TRY(LabelTrie trie, LabelTrie::build(labels, names));
  impl_->trie = std::move(trie);
  impl_->labels = std::move(labels);
  impl_->names = std::move(names);
  return {};
}

Result<std::vector<ScoreTask>> LabelScorer::Impl::tasks(std::span<const TokenList> prompts,
                                                        std::span<const std::vector<std::int32_t>> subsets,
                                                        std::vector<std::unique_ptr<LabelTrie>>& owned) const {
  if (labels.empty()) return Error{ErrorCode::kInvalidArgument, "labels were not set before scoring", ""};
  if (!subsets.empty() && subsets.size() != prompts.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("there are {} label subsets for {} prompts", subsets.size(), prompts.size()), ""};
  }
  std::vector<ScoreTask> result;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const TokenList& prompt = prompts[i];
    if (prompt.size() <= prefix.size() || !std::equal(prefix.begin(), prefix.end(), prompt.begin())) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("prompt {} does not go on from the common beginning of {} tokens", i, prefix.size()),
                   ""};
    }
    const LabelTrie* its_trie = &trie;
    if (!subsets.empty() && !subsets[i].empty()) {
      TAILOR_TRY(LabelTrie built, LabelTrie::build_subset(labels, subsets[i], names));
      owned.push_back(std::make_unique<LabelTrie>(std::move(built)));
      its_trie = owned.back().get();
    }
    const std::size_t length = prompt.size() + static_cast<std::size_t>(soft.length());
    if (length + static_cast<std::size_t>(its_trie->max_depth) > static_cast<std::size_t>(max_context)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("prompt {} has {} tokens and the longest label {}; the model reads {}", i, length,
                               its_trie->max_depth, max_context),
                   "shorten the message or use fewer demonstrations"};
    }
    result.push_back({.prompt = i, .tokens = std::span(prompt).subspan(prefix.size()), .trie = its_trie});
  }
  return result;
}

Status LabelScorer::Impl::prepare(ScoreWorker& worker, const ContextNeed& need) {
  const int cells = std::max(need.cells, prefix_length() + 1);
  const int ubatch = std::clamp(round_up(need.ubatch, 64), 64, kMaxUbatch);
  if (worker.context == nullptr || worker.cells < cells || worker.ubatch < ubatch) {
    worker.context.reset();  // before the new one is made: memory
    worker.cells = round_up(std::max(cells, ubatch), 256);
    if (const int limit = model->short_context(); limit > 0 && worker.cells > limit) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("{}: prompt and labels need {} places at once; up to {} the model turns positions by the "
                      "factors that it answers short texts with",
                      model->name(), worker.cells, limit),
          "shorten the message or use fewer demonstrations"};
    }
    worker.ubatch = ubatch;
    worker.threads = need.threads;
    worker.prefix_ready = false;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = static_cast<std::uint32_t>(worker.cells);
    params.n_ubatch = static_cast<std::uint32_t>(worker.ubatch);
    params.n_seq_max = kMaxSequences;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = need.threads;
    params.type_k = params.type_v = options.f32_cache ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.no_perf = true;
    TAILOR_TRY(worker.context, model->make_context(params));
  }
  if (worker.threads != need.threads) {
    llama_set_n_threads(worker.context.get(), need.threads, need.threads);
    worker.threads = need.threads;
  }
  if (worker.prefix_ready) return {};
  const OwnAttention own(0);  // the same prefix, however many of its tokens are computed at once
  llama_memory_clear(worker.memory(), false);
  TAILOR_CHECK(decode_soft_prompt(worker.context.get(), soft, worker.ubatch));
  TAILOR_CHECK(decode_quietly(worker, prefix, soft.length(), 0));
  if (prefix_length() > 0) {
    for (int s = 1; s < kMaxSequences; ++s) llama_memory_seq_cp(worker.memory(), 0, s, -1, -1);
  }
  worker.prefix_ready = true;
  return {};
}

Status LabelScorer::Impl::decode_quietly(ScoreWorker& worker, std::span<const std::int32_t> tokens, int first_position,
                                         int sequence) {
  DecodeBatch batch;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.add(tokens[i], first_position + static_cast<int>(i), {sequence, sequence + 1}, false);
    if (batch.size() < worker.ubatch && i + 1 < tokens.size()) continue;
    TAILOR_CHECK(batch.decode(worker.context.get(), model->name()));
    batch.clear();
  }
  return {};
}

Status LabelScorer::Impl::score_pack(ScoreWorker& worker, std::span<const ScoreTask> pack,
                                     std::vector<LabelScores>& out) {
  struct Slot {
    const ScoreTask* task;
    int first_sequence;
    int sequences;
    int length;  // of the whole prompt
    std::vector<double> log_p;
  };
  struct Output {
    Slot* slot;
    std::int32_t node;
    int index;  // in the batch
  };
  const int max_nodes =
      std::clamp(static_cast<int>(kLogitBytes / sizeof(float) / static_cast<std::size_t>(vocabulary())), 64, 1024);
  worker.prefix_ready = false;  // until the sequences are clean again

  std::vector<Slot> slots;
  int next_sequence = 1;
  for (const ScoreTask& task : pack) {
    Slot slot{.task = &task,
              .first_sequence = next_sequence,
              .sequences = std::min(task.trie->paths, kPathsAtOnce),
              .length = prefix_length() + static_cast<int>(task.tokens.size()),
              .log_p = std::vector<double>(task.trie->nodes.size(), 0.0)};
    next_sequence += slot.sequences;
    slots.push_back(std::move(slot));
  }
  assert(next_sequence <= kMaxSequences);  // the caller packs

  const auto nodes_of = [&](Slot& slot, const PathGroup& group, std::vector<Output>& outputs) {
    for (std::size_t i = 1; i < slot.task->trie->nodes.size(); ++i) {
      const LabelTrie::Node& node = slot.task->trie->nodes[i];
      if (!in_group(node, group)) continue;
      const SequenceRange range{slot.first_sequence + std::max(node.path_first, group.first) - group.first,
                                slot.first_sequence + std::min(node.path_last, group.last) - group.first};
      outputs.push_back({&slot, static_cast<std::int32_t>(i),
                         worker.batch.add(node.token, slot.length + node.depth - 1, range, true)});
    }
  };
  const auto run = [&](std::vector<Output>& outputs) -> Status {
    TAILOR_CHECK(worker.batch.decode(worker.context.get(), model->name()));
    // A parent's sum must be there before its children's, so one after the other; the sums over the vocabulary could go
    // to several threads, but take a hundredth of the time.
    for (const Output& output : outputs) {
      const float* logits = llama_get_logits_ith(worker.context.get(), output.index);
      if (logits == nullptr)
        return Error{ErrorCode::kInternal, fmt::format("{}: no scores came back", model->name()), ""};
      TAILOR_CHECK(read_children(*output.slot->task->trie, output.node,
                                 {logits, static_cast<std::size_t>(vocabulary())}, output.slot->log_p));
    }
    worker.batch.clear();
    outputs.clear();
    return {};
  };

  worker.batch.clear();
  std::vector<Output> outputs;
  std::vector<std::vector<PathGroup>> groups;
  for (Slot& slot : slots) {
    std::span<const std::int32_t> tokens = slot.task->tokens;
    int position = prefix_length();
    const SequenceRange all{slot.first_sequence, slot.first_sequence + slot.sequences};
    if (tokens.size() > kLongPrompt) {
      const std::span<const std::int32_t> head = tokens.first(tokens.size() - 1);
      TAILOR_CHECK(decode_quietly(worker, head, position, all.first));
      for (int s = all.first + 1; s < all.last; ++s) llama_memory_seq_cp(worker.memory(), all.first, s, position, -1);
      position += static_cast<int>(head.size());
      tokens = tokens.last(1);
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool last = i + 1 == tokens.size();
      const int index = worker.batch.add(tokens[i], position + static_cast<int>(i), all, last);
      if (last) outputs.push_back({&slot, 0, index});
    }
    groups.push_back(split_paths(*slot.task->trie, max_nodes));
    nodes_of(slot, groups.back().front(), outputs);
  }
  TAILOR_CHECK(run(outputs));

  // Only a task of its own pack has more than one group.
  for (std::size_t k = 0; k < slots.size(); ++k) {
    for (std::size_t g = 1; g < groups[k].size(); ++g) {
      for (int s = 0; s < slots[k].sequences; ++s)
        llama_memory_seq_rm(worker.memory(), slots[k].first_sequence + s, slots[k].length, -1);
      nodes_of(slots[k], groups[k][g], outputs);
      TAILOR_CHECK(run(outputs));
    }
  }

  for (int s = 1; s < next_sequence; ++s) llama_memory_seq_rm(worker.memory(), s, prefix_length(), -1);
  worker.prefix_ready = true;
  for (std::size_t k = 0; k < slots.size(); ++k) {
    LabelScores scores(labels.size(), -std::numeric_limits<double>::infinity());
    const LabelTrie& its_trie = *slots[k].task->trie;
    for (std::size_t i = 0; i < its_trie.nodes.size(); ++i) {
      if (its_trie.nodes[i].label >= 0) scores[static_cast<std::size_t>(its_trie.nodes[i].label)] = slots[k].log_p[i];
    }
    out[pack[k].prompt] = std::move(scores);
  }
  return {};
}

Result<std::vector<LabelScores>> LabelScorer::score_all(std::span<const TokenList> prompts, const ProgressFn& progress,
                                                        const CancelToken& cancel,
                                                        std::span<const std::vector<std::int32_t>> subsets) {
  Impl& self = *impl_;
  std::vector<std::unique_ptr<LabelTrie>> owned;
  TAILOR_TRY(const std::vector<ScoreTask> tasks, self.tasks(prompts, subsets, owned));
  if (self.torch) return self.score_by_torch(prompts, subsets, progress, cancel);
  std::vector<LabelScores> out(prompts.size());
  if (tasks.empty()) return out;

  const auto size_of = [](const ScoreTask& task) {
    return task.tokens.size() + static_cast<std::size_t>(task.trie->internal_nodes);
  };
  const std::size_t pack_tokens = self.cells_beside_prefix(kPackTokens);
  std::vector<std::size_t> starts;
  std::size_t tokens = 0, paths = 0, largest = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const std::size_t task_tokens = size_of(tasks[i]);
    const std::size_t task_paths = std::min<std::size_t>(static_cast<std::size_t>(tasks[i].trie->paths), kPathsAtOnce);
    if (starts.empty() || tokens + task_tokens > pack_tokens || paths + task_paths > kPathsAtOnce) {
      starts.push_back(i);
      tokens = paths = 0;
    }
    tokens += task_tokens;
    paths += task_paths;
    largest = std::max(largest, tokens);
  }
  const std::size_t packs = starts.size();
  starts.push_back(tasks.size());

  // A single prompt gets all threads in one context; many get a context each.
  const bool together = packs < static_cast<std::size_t>(self.threads);
  const int workers = together ? 1 : self.threads;
  const ContextNeed need{.cells = self.prefix_length() + static_cast<int>(largest),
                         .ubatch = static_cast<int>(largest),
                         .threads = together ? self.threads : 1};
  std::atomic<std::size_t> next_pack{0};
  std::mutex reporting;
  std::size_t done = 0;
  const auto score_some = [&](int w) -> Status {
    ScoreWorker& worker = self.workers[static_cast<std::size_t>(w)];
    for (std::size_t p; (p = next_pack.fetch_add(1)) < packs;) {
      if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "scoring was interrupted", ""};
      TAILOR_CHECK(self.prepare(worker, need));
      const OwnAttention own(self.prefix_length());
      const std::span<const ScoreTask> pack(tasks.data() + starts[p], starts[p + 1] - starts[p]);
      TAILOR_CHECK(self.score_pack(worker, pack, out));
      if (!progress) continue;
      const std::lock_guard lock(reporting);
      done += pack.size();
      progress(
          {.stage = "scoring labels", .done = static_cast<double>(done), .total = static_cast<double>(tasks.size())});
    }
    return {};
  };
  TAILOR_CHECK(run_workers(workers, score_some));
  return out;
}

Result<std::vector<LabelScores>> LabelScorer::Impl::score_by_torch(std::span<const TokenList> prompts,
                                                                   std::span<const std::vector<std::int32_t>> subsets,
                                                                   const ProgressFn& progress,
                                                                   const CancelToken& cancel) {
  std::vector<LabelScores> out;
  for (std::size_t begin = 0; begin < prompts.size(); begin += kTorchPrompts) {
    const std::size_t n = std::min(kTorchPrompts, prompts.size() - begin);
    TAILOR_TRY(std::vector<LabelScores> part, torch->scores(prompts.subspan(begin, n), labels, cancel));
    for (LabelScores& scores : part) {
      if (const std::size_t i = out.size(); i < subsets.size() && !subsets[i].empty()) {
        LabelScores asked(scores.size(), -std::numeric_limits<double>::infinity());
        for (const std::int32_t label : subsets[i])
          asked[static_cast<std::size_t>(label)] = scores[static_cast<std::size_t>(label)];
        scores = std::move(asked);
      }
      out.push_back(std::move(scores));
    }
    if (progress) {
      progress({.stage = "scoring labels",
                .done = static_cast<double>(out.size()),
                .total = static_cast<double>(prompts.size())});
    }
  }
  return out;
}

Result<LabelScores> LabelScorer::score_one_at_a_time(const TokenList& prompt) {
  Impl& self = *impl_;
  if (prompt.empty() || self.labels.empty())
    return Error{ErrorCode::kInvalidArgument, "there is no prompt or no label to score", ""};
  if (self.torch) {
    LabelScores scores;
    for (const TokenList& label : self.labels) {
      TAILOR_TRY(const auto one, self.torch->scores({&prompt, 1}, {&label, 1}, CancelToken()));
      scores.push_back(one[0][0]);
    }
    return scores;
  }
  ScoreWorker& worker = self.workers[0];
  const int soft = self.soft.length(), longest = static_cast<int>(prompt.size()) + self.trie.max_depth;
  TAILOR_CHECK(self.prepare(worker, {.cells = soft + longest, .ubatch = longest, .threads = self.threads}));
  worker.prefix_ready = false;
  LabelScores scores;
  for (const TokenList& label : self.labels) {
    llama_memory_clear(worker.memory(), false);
    TAILOR_CHECK(decode_soft_prompt(worker.context.get(), self.soft, worker.ubatch));
    worker.batch.clear();
    TokenList tokens = prompt;
    tokens.insert(tokens.end(), label.begin(), label.end() - 1);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      worker.batch.add(tokens[i], soft + static_cast<int>(i), {0, 1}, i + 1 >= prompt.size());
    TAILOR_CHECK(worker.batch.decode(worker.context.get(), self.model->name()));
    double sum = 0;
    for (std::size_t t = 0; t < label.size(); ++t) {
      const float* logits = llama_get_logits_ith(worker.context.get(), static_cast<int>(prompt.size() - 1 + t));
      sum += logits[label[t]] - log_sum_exp({logits, static_cast<std::size_t>(self.vocabulary())});
    }
    scores.push_back(sum);
  }
  return scores;
}

Result<std::vector<float>> LabelScorer::next_token_logits(const TokenList& prompt) {
  Impl& self = *impl_;
  if (prompt.empty()) return Error{ErrorCode::kInvalidArgument, "there is no prompt", ""};
  if (self.torch) return self.torch->logits(prompt, CancelToken());
  ScoreWorker& worker = self.workers[0];
  const int n = static_cast<int>(prompt.size());
  const int soft = self.soft.length();
  TAILOR_CHECK(self.prepare(worker, {.cells = soft + n, .ubatch = n, .threads = self.threads}));
  worker.prefix_ready = false;
  llama_memory_clear(worker.memory(), false);
  TAILOR_CHECK(decode_soft_prompt(worker.context.get(), self.soft, worker.ubatch));
  TAILOR_CHECK(self.decode_quietly(worker, std::span(prompt).first(prompt.size() - 1), soft, 0));
  worker.batch.clear();
  worker.batch.add(prompt.back(), soft + n - 1, {0, 1}, true);
  TAILOR_CHECK(worker.batch.decode(worker.context.get(), self.model->name()));
  const float* logits = llama_get_logits_ith(worker.context.get(), 0);
  return std::vector<float>(logits, logits + self.vocabulary());
}

}  // namespace tailor
