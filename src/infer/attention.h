#pragma once
/// Attention of many tokens over one key-value cache that several sequences share, on processors.
///
/// Tokens that attend to the same cells (a system prompt of many chats, what stands before a chunk of a prompt) are
/// computed together: a cell is read once and multiplied with the queries of all of them. What only one token attends
/// to is computed for it alone, and cells that none attends to are not read at all; llama.cpp's kernels do one or the
/// other. Softmax in one pass as in Milakov and Gimelshein, arXiv:1805.02867, and Dao et al., arXiv:2205.14135; shared
/// beginnings as in Ye et al., ChunkAttention, arXiv:2402.15220. Sums are of 32-bit floats.
///
/// What is summed with what then depends on the tokens beside a token, and on where its cells lie, and so do a result's
/// last digits. Where they must not (AttentionCall::shared_cells), the cells that may be read together are named
/// beforehand, and the others are summed for each token alone in 64-bit floats, whose order does not show in 32 bits.

#include <cstddef>
#include <cstdint>

namespace tailor {

/// Strides are in bytes. Keys, values and mask are 16-bit floats, rows of them without gaps.
struct AttentionCall {
  int tokens = 0, cells = 0;
  int heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads
  int key_width = 0, value_width = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  // > 0: scores are softcap * tanh(score / softcap)

  const char* queries = nullptr;  // float [heads][tokens][key_width]
  std::size_t query_token = 0, query_head = 0;
  const char* keys = nullptr;  // [kv_heads][cells][key_width]
  std::size_t key_cell = 0, key_head = 0;
  const char* values = nullptr;  // [kv_heads][cells][value_width]
  std::size_t value_cell = 0, value_head = 0;
  const char* mask = nullptr;  // [tokens][cells]: added to the scores; -inf: not attended to
  std::size_t mask_token = 0;

  /// >= 0: only cells before this one are read together, which all tokens must attend to; a token's result is then
  /// the same beside any other tokens. Negative: whatever tokens have in common.
  int shared_cells = -1;

  float* out = nullptr;  // [tokens][heads][value_width]
};

/// Whether attend() takes rows of this width.
bool attention_width(std::int64_t width);

/// A token that attends to nothing gets zeros.
void attend(const AttentionCall& call, int threads);

}  // namespace tailor
