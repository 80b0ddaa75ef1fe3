#pragma once
/// Shared by label_scorer.cpp (full scores) and best_first.cpp. Internal to this module.

#include <algorithm>
#include <functional>
#include <optional>

#include "infer/ggml_device.h"
#include "infer/label_scorer.h"
#include "infer/label_trie.h"
#include "infer/llama_context.h"
#include "infer/soft_prompt.h"

namespace tailor {

/// One prompt to score: its own tokens (after the prefix) and the labels in question.
struct ScoreTask {
  std::size_t prompt = 0;
  std::span<const std::int32_t> tokens;
  const LabelTrie* trie = nullptr;
};

/// While it lives, attention of the contexts that this thread calls is ours: with hundreds of sequences in a context it
/// takes half of the time or less. A score does not depend on what is scored beside it: quantized weights round to
/// bytes, which makes visible what differs in the last digit.
struct OwnAttention {
  explicit OwnAttention(int shared_cells) { set_own_attention(true, shared_cells); }
  OwnAttention(const OwnAttention&) = delete;
  OwnAttention& operator=(const OwnAttention&) = delete;
  ~OwnAttention() { set_own_attention(false); }
};

/// A context with the prefix in all of its sequences. Sequence 0 is never written after that.
struct ScoreWorker {
  LlamaContextPtr context;
  int cells = 0;
  int ubatch = 0;
  int threads = 0;
  bool prefix_ready = false;
  DecodeBatch batch;

  llama_memory_t memory() const { return llama_get_memory(context.get()); }
};

/// What a call needs of its contexts.
struct ContextNeed {
  int cells = 0;   // key-value cells at once, prefix included
  int ubatch = 0;  // tokens computed together
  int threads = 1;
};

struct LabelScorer::Impl {
  std::shared_ptr<const LoadedModel> model;
  LabelScorerOptions options;
  int threads = 1;
  int max_context = 0;
  SoftPrompt soft;   // at positions 0 … n-1
  TokenList prefix;  // after it
  std::vector<TokenList> labels;
  std::vector<std::string> names;
  LabelTrie trie;
  std::vector<ScoreWorker> workers;
  std::unique_ptr<TorchWorker> torch;  // computes instead of the workers, where there is one

  int prefix_length() const { return soft.length() + static_cast<int>(prefix.size()); }
  int vocabulary() const { return model->vocabulary(); }
  /// Of `usual` cells beside the prefix, as many as keep a context in the reach of the first rotary factors.
  std::size_t cells_beside_prefix(std::size_t usual) const {
    const int limit = model->short_context();
    return limit == 0 ? usual : std::min(usual, static_cast<std::size_t>(std::max(1, limit - prefix_length())));
  }
  /// Checks prompts, cuts the prefix off and builds the tries of subsets into `owned`.
  Result<std::vector<ScoreTask>> tasks(std::span<const TokenList> prompts,
                                       std::span<const std::vector<std::int32_t>> subsets,
                                       std::vector<std::unique_ptr<LabelTrie>>& owned) const;
  /// All scores by `torch`; labels that a subset leaves out have -infinity.
  Result<std::vector<LabelScores>> score_by_torch(std::span<const TokenList> prompts,
                                                  std::span<const std::vector<std::int32_t>> subsets,
                                                  const ProgressFn& progress, const CancelToken& cancel);
  /// Makes or keeps a context that is large enough, and decodes the prefix into it.
  Status prepare(ScoreWorker& worker, const ContextNeed& need);
  /// Decodes tokens into one sequence without output, in calls that fit.
  Status decode_quietly(ScoreWorker& worker, std::span<const std::int32_t> tokens, int first_position, int sequence);
  /// Full scores of a few tasks whose sequences fit together; out[i] belongs to tasks[i].
  Status score_pack(ScoreWorker& worker, std::span<const ScoreTask> pack, std::vector<LabelScores>& out);
};

/// Prompts longer than this are decoded in one sequence first and then shared by copying: a token in many sequences
/// costs bookkeeping for each.
constexpr std::size_t kLongPrompt = 96;

/// Adds log p(child | node) to each child's running sum.
Status read_children(const LabelTrie& trie, std::int32_t node, std::span<const float> logits,
                     std::vector<double>& log_p);

}  // namespace tailor
