#pragma once
/// The frozen base model of the llama family: its shape, and its weights as the training kernels want them.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "tune/llama_gemm.h"
#include "tune/weights.h"

namespace tailor::tune::llama {

struct LlamaConfig {
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary = 0;  // dimensions of a head that turn; the rest stay
  std::int64_t ffn = 0;
  std::int64_t context = 0;  // longest sequence the model was made for
  double rope_base = 10000;
  double rope_scale = 1;  // positions are divided by it (linear scaling)
  double rms_eps = 1e-5;
  bool tied = false;  // the output layer is the embedding
};

/// The seven linear layers of a block, in the order of their numbers in the adapter's random streams.
enum class LlamaModule : std::uint8_t { kQ = 0, kK, kV, kOutput, kGate, kUp, kDown };
constexpr std::size_t kLlamaModules = 7;
struct LlamaModuleName {
  std::string_view gguf;     // in "blk.N.<gguf>.weight"
  std::string_view hf;       // "q_proj"
  std::string_view hf_path;  // "self_attn.q_proj", in "model.layers.N.<hf_path>.weight"
};
const LlamaModuleName& name_of(LlamaModule module);

/// Modules that read the same input and are computed as one product.
enum class LinearGroup : std::uint8_t { kQkv = 0, kOutput, kGateUp, kDown };
constexpr std::size_t kLinearGroups = 4;
std::span<const LlamaModule> modules_of(LinearGroup group);
/// [out, in] of a module; of a group: the sum of its out.
std::int64_t out_features(const LlamaConfig& config, LlamaModule module);
std::int64_t in_features(const LlamaConfig& config, LlamaModule module);

/// How the base is kept in memory.
enum class WeightStorage : std::uint8_t {
  kFloat,   // dequantised once: 4 bytes a weight
  kBlocks,  // left in the file's blocks and dequantised a group at a time, in the forward and again in the backward
            // pass
};

/// Rotary embedding pairs are (2i, 2i + 1), the layout in which GGUF stores q and k of this family.
/// Threads: one caller at a time (kBlocks shares a scratch buffer).
class LlamaWeights {
 public:
  /// Borrows `base`. Errors: another architecture (the message names it), an impossible shape, a tensor missing, of
  /// another shape or not known.
  static Result<std::unique_ptr<LlamaWeights>> open(const BaseWeights& base, WeightStorage storage);

  const LlamaConfig& config() const { return config_; }
  const std::filesystem::path& path() const { return base_.path(); }
  WeightStorage storage() const { return storage_; }

  /// One module's weights where they lie: the f32 copy, or the file's blocks.
  FrozenMatrix matrix(std::int64_t layer, LlamaModule module) const;
  FrozenMatrix output_matrix() const;  // [vocab, hidden]

  /// [out, in]; with kBlocks valid until the next call of group() or output_rows().
  at::Tensor group(std::int64_t layer, LinearGroup group);
  at::Tensor attention_norm(std::int64_t layer) const { return norms_[static_cast<std::size_t>(2 * layer)]; }
  at::Tensor ffn_norm(std::int64_t layer) const { return norms_[static_cast<std::size_t>(2 * layer + 1)]; }
  at::Tensor final_norm() const { return norms_.back(); }

  at::Tensor embed(std::span<const std::int32_t> tokens) const;  // [n, hidden]
  /// Rows [begin, end) of the output layer, as group(). Ask for output_chunk() rows at a time.
  at::Tensor output_rows(std::int64_t begin, std::int64_t end);
  std::int64_t output_chunk() const;

  /// cos and sin of every position below `positions` (grown as needed): [positions, rotary], cos at 2i, sin at 2i + 1.
  const float* rope_table(std::int64_t positions);

 private:
  explicit LlamaWeights(const BaseWeights& base) : base_(base) {}
  Status read_config();
  Status read_tensors();
  Result<const StoredTensor*> tensor(const std::string& name, std::vector<std::int64_t> shape) const;
  Result<std::int64_t> integer(const std::string& key, std::optional<std::int64_t> fallback = {}) const;
  at::Tensor scratch(std::int64_t rows, std::int64_t columns);

  const BaseWeights& base_;
  LlamaConfig config_;
  WeightStorage storage_ = WeightStorage::kFloat;
  std::vector<std::array<const StoredTensor*, kLlamaModules>> sources_;
  std::vector<std::array<at::Tensor, kLinearGroups>> groups_;  // kFloat
  std::vector<at::Tensor> norms_;
  const StoredTensor* embedding_source_ = nullptr;
  const StoredTensor* output_source_ = nullptr;
  at::Tensor embedding_, output_;  // kFloat; the same tensor where tied
  at::Tensor scratch_;
  std::vector<double> rope_factors_;  // empty, or what each pair's frequency is divided by
  at::Tensor rope_table_;
};

}  // namespace tailor::tune::llama
