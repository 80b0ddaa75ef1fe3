#pragma once
/// The file of token ids that `tailor` writes and `tailor-tune` trains on: docs/TUNE_JOB.md, "Token file". It is a
/// safetensors file (any language reads it) with these tensors, n rows, T tokens in all, L labels:
///   tokens I32 [T]   offsets I64 [n + 1]   labels I32 [n] (-1: none)   parts U8 [n]   row_ids I64 [n]
///   loss_mask U8 [T]                                (causal tasks: 1 where the token is learnt; absent: no masks)
///   targets F32 [n, k]                              (regression: k = 1; multi-label: k = L, each 0 or 1)
///   types U8 [T]                                    (encoders: 1 in the second text of a pair; absent: all 0)
///   label_tokens I32 [M]   label_offsets I64 [L + 1] (causal-lm-labels: the answer's tokens of each label, EOS
///   included)
///   token_labels I32 [T]                            (token-classification: 0 to L - 1 where a token is answered, -1
///   where it is answered and nobody knows how, -100 elsewhere)
///   spans I32 [n, 2]                                 (span-extraction: first and last token of the answer by their
///   places in the row; 0 0: the row has none; -1 -1: nobody knows) soft_targets F32 [n, L]                         (a
///   teacher's probabilities of the labels; a row of zeros: none)
/// and the metadata format = "tailor-tokens", version, n_labels, vocab_size, and with token labels tags = "iob2"
/// (core/tag_spans.h) or "plain". The version is "1", or "2" where there are
/// soft targets: who does not know them must not train as if they were not there.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/result.h"

namespace tailor {

inline constexpr std::int32_t kNotAnswered = -100;  // of token_labels; what torch's losses ignore

enum class TokenPart : std::uint8_t { kTrain = 0, kValidation = 1, kTest = 2 };  // on disk: numbers never change

/// Ragged rows of token ids with their labels; owns its memory.
struct TokenFile {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> offsets = {0};  // row i is tokens[offsets[i], offsets[i + 1])
  std::vector<std::int32_t> labels;
  std::vector<TokenPart> parts;
  std::vector<std::int64_t> row_ids;        // where the row came from (line of the user's file); named in errors
  std::vector<std::uint8_t> loss_mask;      // empty, or one per token
  std::vector<std::uint8_t> types;          // empty, or one per token: 0, or 1 in the second text of a pair
  std::vector<std::int32_t> label_tokens;   // empty, or the answers of the labels
  std::vector<std::int64_t> label_offsets;  // empty, or n_labels + 1
  std::vector<float> targets;               // empty, or as many for every row: what regression and several labels learn
  std::vector<float> soft_targets;          // empty, or [rows, n_labels]: each row sums to 1, or is 0 throughout
  std::int32_t n_labels = 0;
  std::int32_t vocab_size = 0;             // ids are in [0, vocab_size)
  std::vector<std::int32_t> token_labels;  // empty, or one per token
  std::vector<std::int32_t> spans;         // empty, or two a row
  bool iob2 = false;                       // token labels mark spans: core/tag_spans.h

  std::size_t rows() const { return labels.size(); }
  std::span<const std::int32_t> row(std::size_t i) const {
    return {tokens.data() + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])};
  }
  std::span<const std::uint8_t> mask(std::size_t i) const {  // empty where there are no masks
    if (loss_mask.empty()) return {};
    return {loss_mask.data() + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])};
  }
  std::size_t target_width() const { return rows() == 0 ? 0 : targets.size() / rows(); }
  std::span<const float> targets_of(std::size_t i) const {
    return {targets.data() + i * target_width(), target_width()};
  }
  std::span<const std::uint8_t> types_of(std::size_t i) const {  // empty where there are no types
    if (types.empty()) return {};
    return {types.data() + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])};
  }
  std::span<const std::int32_t> token_labels_of(std::size_t i) const {  // empty where there are none
    if (token_labels.empty()) return {};
    return {token_labels.data() + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])};
  }
  std::span<const std::int32_t> label(std::size_t l) const {
    return {label_tokens.data() + label_offsets[l], static_cast<std::size_t>(label_offsets[l + 1] - label_offsets[l])};
  }
  /// A teacher's probabilities for row i; empty where there are none for it.
  std::span<const float> soft_target(std::size_t i) const;
  /// `mask` is empty or as long as `row`; masks are kept for all rows once one row has one (the others count as all 1).
  void add_row(std::span<const std::int32_t> row, std::int32_t label, TokenPart part, std::int64_t row_id,
               std::span<const std::uint8_t> mask = {});
  void add_label(std::span<const std::int32_t> answer);

  /// Everything the reader checks: shapes, offsets that rise, ids below vocab_size, labels in [-1, n_labels), soft
  /// targets that are probabilities.
  Status check(const std::filesystem::path& where) const;
};

Status write_token_file(const std::filesystem::path& file, const TokenFile& content);  // atomic
/// Untrusted bytes: sizes are checked against the file before anything is allocated.
Result<TokenFile> read_token_file(const std::filesystem::path& file);

}  // namespace tailor
