#pragma once
/// Scores of labels as continuations of a prompt:  log p(label | prompt) = sum_t log p(label_t | prompt, label_<t).
///
/// The usual way decodes prompt + label once per label. Here the prompts' common beginning is decoded once, a prompt's
/// own tokens once, and all labels together as a token trie in one call (tree attention by sequence ids), each shared
/// beginning of labels once. best() looks for the best label alone by best-first search and computes a part of the
/// trie.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "infer/torch_worker.h"
#include "model/tokenizer.h"

namespace tailor {

struct LabelScorerOptions {
  int threads = 0;                // >= 1; 0: all cores. One single-threaded context each where there are prompts enough
  bool f32_cache = false;         // key-value cache in f32 (twice the memory); only without flash attention
  bool flash_attention = true;    // faster; keys and values are rounded to f16. Parity tests turn it off
  int max_context = 0;            // tokens of prefix + prompt + label; 0: as the model was trained
  std::filesystem::path adapter;  // GGUF LoRA adapter; empty: none
  std::filesystem::path soft_prompt;  // virtual tokens before every prompt (infer/soft_prompt.h); empty: none
  TorchWorkerFiles worker;            // where it names bottlenecks, tailor-tune computes instead of llama.cpp
};

/// calibrated score = (log p - bias[label]) / norm[label]; both empty: log p itself. norm > 0.
struct ScoreCalibration {
  std::vector<double> bias;
  std::vector<double> norm;
};

struct BestLabel {
  std::int32_t label = -1;
  double score = 0;        // calibrated
  std::int32_t nodes = 0;  // trie nodes on which the model was run, the root (the prompt) not counted
};

using LabelScores = std::vector<double>;  // log p of each label; -infinity for labels that were not asked for

/// Threads: one call at a time an object; it uses `threads` threads of its own.
class LabelScorer {
 public:
  /// kInvalidArgument among others: the soft prompt leaves no room for a prompt and a label of one token each.
  static Result<LabelScorer> load(const std::filesystem::path& gguf, const LabelScorerOptions& options = {});
  LabelScorer(LabelScorer&&) noexcept;
  LabelScorer& operator=(LabelScorer&&) noexcept;
  ~LabelScorer();

  /// Tokens with which every prompt begins; decoded once and kept. Empty: none. A prompt must be longer than it.
  Status set_prefix(TokenList prefix);
  /// At least one; errors as LabelTrie::build. `names` are for errors only and may be empty.
  Status set_labels(std::vector<TokenList> labels, std::vector<std::string> names = {});

  /// Whole prompts, prefix included, each at least one token beyond it. `subsets`: empty, or for each prompt the labels
  /// to score (empty: all).
  Result<std::vector<LabelScores>> score_all(std::span<const TokenList> prompts, const ProgressFn& progress,
                                             const CancelToken& cancel,
                                             std::span<const std::vector<std::int32_t>> subsets = {});

  /// The label of the highest calibrated score; of equal ones the first. Exact up to rounding: log p only falls along a
  /// branch, so max over the labels below a node of (log p(node) - bias) / norm bounds them all.
  Result<std::vector<BestLabel>> best(std::span<const TokenList> prompts, const ScoreCalibration& calibration,
                                      const ProgressFn& progress, const CancelToken& cancel,
                                      std::span<const std::vector<std::int32_t>> subsets = {});

  /// Prompt + label decoded once per label from nothing: slow, the reference of tests and benchmarks.
  Result<LabelScores> score_one_at_a_time(const TokenList& prompt);
  /// Logits of the next token, all of the vocabulary; for parity tests.
  Result<std::vector<float>> next_token_logits(const TokenList& prompt);

  /// The model's chat template, for ChatTemplate::make(); empty: it has none.
  std::string chat_template() const;
  int max_context() const;  // tokens of prompt and label, a soft prompt not counted; at least 2
  int vocabulary() const;
  const Tokenizer& tokenizer() const;  // lives as long as the scorer
  std::int32_t trie_nodes() const;     // internal nodes of all labels, the root not counted

  struct Impl;  // label_scorer_impl.h

 private:
  explicit LabelScorer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
