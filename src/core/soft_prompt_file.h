#pragma once
/// The file of what a soft prompt learnt, written by tailor-tune and read where the decoder is served: safetensors,
/// F32, n virtual tokens, with either
///   "embeddings" [n, width]                      the tokens as vectors (prompt tuning, P-tuning), or
///   "blk.L.keys", "blk.L.values" [n, kv heads * head width]   what layer L has in their places (prefix tuning), keys
///   as
///                                                the cache holds them: nothing is rotated for a position
/// and the metadata format = "tailor-soft-prompt", version = "1". Real tokens stand at positions n and on.

namespace tailor {

inline constexpr const char* kSoftPromptFile = "soft_prompt.safetensors";
inline constexpr const char* kSoftPromptFormat = "tailor-soft-prompt";
inline constexpr const char* kSoftPromptEmbeddings = "embeddings";

}  // namespace tailor
