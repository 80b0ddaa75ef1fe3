#pragma once
/// A decoder's weights as the training kernels want them: most of them frozen, some of them parameters.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "tune/decoder_config.h"
#include "tune/frozen_gemm.h"
#include "tune/parameters.h"
#include "tune/slot.h"
#include "tune/slot_bindings.h"
#include "tune/weights.h"

namespace tailor::tune::decoder {

inline constexpr const char* kWordRows = "token_embd.rows";  // parameters of DecoderWeights::train_rows()
inline constexpr const char* kOutputRows = "output.rows";

/// How the frozen base is kept in memory.
enum class WeightStorage : std::uint8_t {
  kFloat,   // dequantised once: 4 bytes a weight
  kBf16,    // matrices rounded to bf16 once: 2 bytes a weight; vectors and learned positions stay f32
  kBlocks,  // left in the file's blocks and dequantised a group at a time, in the forward and again in the backward
            // pass
};

/// A norm's weights, [width]; undefined: the model has none there. RMS norms have no beta.
struct Norm {
  Slot gamma, beta;
  bool defined() const { return gamma.defined(); }
};

struct LayerNorms {
  Norm attention, feed_forward;            // before
  Norm post_attention, post_feed_forward;  // behind
  Norm q, k;                               // of each head, [head_dim]
};

/// Says of a tensor, by its GGUF name, whether it is trained.
using TensorFilter = std::function<bool(std::string_view tensor)>;

/// Threads: one caller at a time (kBlocks shares a scratch buffer).
class DecoderWeights {
 public:
  /// Borrows `base`. Tensors that `trained` names are added to `parameters` under their names; call bind() after
  /// flatten(). Modules of a group are trained together or not at all. Errors: another architecture (the message names
  /// it), an impossible shape, a tensor missing, of another shape or not known.
  static Result<std::unique_ptr<DecoderWeights>> open(const BaseWeights& base, WeightStorage storage,
                                                      const TensorFilter& trained = {},
                                                      ParameterSet* parameters = nullptr,
                                                      const at::Device& device = at::kCPU);
  /// Rows of these tokens in the table of words, and in an output layer of its own, are trained while all others stay:
  /// parameters "token_embd.rows" and "output.rows", [ids, hidden]. Before flatten(). Errors: an id beyond the
  /// vocabulary, a table that is trained whole.
  Status train_rows(std::vector<std::int32_t> ids, ParameterSet& parameters);
  void bind(const ParameterSet& parameters);

  const DecoderConfig& config() const { return config_; }
  const std::filesystem::path& path() const { return base_.path(); }
  const BaseWeights& base() const { return base_; }
  WeightStorage storage() const { return storage_; }
  const at::Device& device() const { return device_; }  // of all tensors; blocks stay in the file

  /// A tensor of the file as a pass through the model sees it where it is frozen: with kBf16 a rounded matrix.
  at::Tensor as_kept(const std::string& name) const;

  /// One module's weights where they lie: the copy in the processor's memory, or the file's blocks.
  FrozenMatrix matrix(std::int64_t layer, std::size_t module) const;
  FrozenMatrix output_matrix() const;  // [vocab, hidden]

  /// [out, in], f32; where not kept so, valid until the next call of group() or output_rows().
  at::Tensor group(std::int64_t layer, LinearGroup group);
  /// [out, in] where the group is trained, else undefined.
  at::Tensor group_grad(std::int64_t layer, LinearGroup group) const;
  /// [out] of the whole group; undefined: none.
  const Slot& bias(std::int64_t layer, LinearGroup group) const {
    return biases_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)];
  }
  /// A leaf to come back to where the group's weight is trained, else undefined.
  const at::Tensor& group_leaf(std::int64_t layer, LinearGroup group) const {
    return leaves_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)].value;
  }
  const LayerNorms& norms(std::int64_t layer) const { return norms_[static_cast<std::size_t>(layer)]; }
  const Norm& final_norm() const { return final_norm_; }
  const Norm& embedding_norm() const { return embedding_norm_; }

  /// Rows of the table of words, as stored, [n, hidden].
  at::Tensor embed(std::span<const std::int32_t> tokens) const;
  const Slot& embedding() const { return embedding_; }  // kBlocks, frozen: undefined; kBf16, frozen: bf16
  struct TrainedRows {
    std::vector<std::int32_t> ids;
    at::Tensor index;        // the same, I64
    Slot embedding, output;  // [ids, hidden]; the same where tied
    bool defined() const { return !ids.empty(); }
  };
  const TrainedRows& trained_rows() const { return rows_; }
  const Slot& positions() const { return positions_; }  // [context, hidden]; undefined: none
  const at::Tensor& output_grad() const { return output_.grad; }
  /// Rows [begin, end) of the output layer, as group(). Ask for output_chunk() rows at a time.
  at::Tensor output_rows(std::int64_t begin, std::int64_t end);
  std::int64_t output_chunk() const;

  /// cos and sin of every position below `positions` (grown as needed): [positions + 1, rotary], cos at 2i, sin at 2i +
  /// 1, as the layer turns. Row p + 1 is position p; row 0 leaves a vector as it is (a prefix's keys).
  const at::Tensor& rope_table(std::int64_t positions, bool local);

 private:
  struct RopeTable {
    at::Tensor values;
    double base = 10000, scale = 1;
  };

  DecoderWeights(const BaseWeights& base, const at::Device& device) : base_(base), device_(device) {}
  Status read_tensors(const TensorFilter& trained, ParameterSet* parameters);
  Result<const StoredTensor*> tensor(const std::string& name, std::vector<std::int64_t> shape) const;
  Status fill_vectors(Slot& slot, const std::vector<std::string>& names, const std::vector<std::int64_t>& widths,
                      const TensorFilter& trained, ParameterSet* parameters);
  Status fill_norm(Norm& norm, const std::string& name, std::int64_t width, bool needed, const TensorFilter& trained,
                   ParameterSet* parameters);
  Status fill_table(Slot& slot, const std::string& name, const TensorFilter& trained, ParameterSet* parameters);
  Status fill_group(std::int64_t layer, LinearGroup group, const TensorFilter& trained, ParameterSet* parameters);
  at::Tensor scratch(std::int64_t rows, std::int64_t columns);

  const BaseWeights& base_;
  const at::Device device_;
  DecoderConfig config_;
  WeightStorage storage_ = WeightStorage::kFloat;
  std::vector<std::vector<const StoredTensor*>> sources_;  // [layer][module]
  std::vector<std::array<Slot, kLinearGroups>> leaves_;    // groups, f32 or bf16; an undefined value: in blocks
  std::vector<std::array<Slot, kLinearGroups>> biases_;
  std::vector<LayerNorms> norms_;
  Norm final_norm_, embedding_norm_;
  const StoredTensor* embedding_source_ = nullptr;
  const StoredTensor* output_source_ = nullptr;
  Slot embedding_, output_, positions_;  // the first two are the same where tied
  TrainedRows rows_;
  SlotBindings bindings_;
  std::vector<std::string> known_;
  at::Tensor scratch_;
  std::vector<double> rope_factors_;  // empty, or what each pair's frequency is divided by
  std::array<RopeTable, 2> rope_;     // all, local
};

/// "blk.3.attn_q.weight".
std::string block_name(std::int64_t layer, std::string_view what, std::string_view kind = "weight");

}  // namespace tailor::tune::decoder
