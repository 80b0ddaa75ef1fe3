#pragma once
/// The encoder's steps as autograd functions. Weight gradients are added straight into the flat gradient (one matrix
/// product with beta = 1) instead of being made, returned and added; autograd sees only activations. Where our own
/// kernels do not serve (kernels.h), the same in plain ATen.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "tune/encoder_kernels.h"
#include "tune/slot.h"

namespace tailor::tune {

/// y[:, column : column + B rows] += scale * dropout(x) A^T B^T.  A is the `index`-th block of `rank` rows of the
/// stack.
struct LoraPart {
  Slot b;                   // [width, rank]
  std::int64_t column = 0;  // of the first output it acts on
  Slot magnitude;           // [width]; DoRA: length of each row of the updated weight. Undefined value: none
};

/// y = x W^T + bias (+ low-rank updates that read the same x: their A matrices are stacked into one).
/// LoRA: Hu et al., arXiv:2106.09685, section 4.1. With magnitudes m (DoRA: Liu et al., arXiv:2402.09353, equation 5)
/// the rows of the updated weight V are rescaled to length m: y = (x V^T) m / |V| + bias, |V| taken as a constant.
struct LinearSpec {
  Slot weight;                  // [out, in]; f32, where frozen also bf16
  Slot bias;                    // [out]; undefined value: none (a later step adds it)
  Slot lora_a;                  // [parts * rank, in]; undefined value: no adapter
  std::vector<LoraPart> parts;  // in the order of the stack
  double lora_scale = 1;        // alpha / rank
  double lora_dropout = 0;
};

struct NormSpec {
  Slot gamma, beta;  // [d]; an undefined beta: none
  Slot bias;         // [d] of the linear layer before; undefined value: none
  float eps = 1e-12f;
};

enum class Activation { kGelu, kRelu };

/// x + scale * act(x down^T + down_bias) up^T + scale * up_bias: a bottleneck adapter.
struct BottleneckSpec {
  LinearSpec down;  // [size, d], no bias
  Slot down_bias;   // [size]
  LinearSpec up;    // [d, size], with bias
  double scale = 1;
  Activation activation = Activation::kGelu;
};

/// AttentionView (encoder_kernels.h), with the table it shows.
struct AttentionSpec {
  std::int64_t reach = -1;
  at::Tensor rotary;  // [places, e]; undefined: nothing turns
};

struct PortableRows;  // what the portable formulation makes of rows

/// The rows of one pass, packed one after another without padding.
struct PackedRows {
  std::vector<std::int32_t> ids;                         // [T] row of the token table (which may be compacted)
  std::vector<std::int32_t> places;                      // [T] position inside the row
  std::vector<std::uint8_t> types;                       // [T] row of the table of token types; empty: all 0
  std::vector<std::int64_t> offsets;                     // [R + 1]
  mutable std::shared_ptr<const PortableRows> portable;  // made where it is needed, once
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  std::int64_t rows() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

struct EmbeddingSpec {
  Slot tokens, positions, types;  // [ids, d], [places, d], [types, d]; the last two may be undefined
};

// Specs, views and rows are borrowed until backward has run. Shapes as in encoder_kernels.h.
at::Tensor embed(const EmbeddingSpec& spec, const PackedRows& rows);
at::Tensor linear(const at::Tensor& x, const LinearSpec& spec, std::uint64_t dropout_seed);
at::Tensor attention(const at::Tensor& qkv, const PackedRows& rows, std::int64_t heads, const AttentionSpec& spec);
/// gelu(a) g of u = [a, g].
at::Tensor gated_gelu(const at::Tensor& u);
at::Tensor gelu(const at::Tensor& u, const Slot& bias);
at::Tensor relu(const at::Tensor& u, const Slot& bias);
/// base + what the adapter makes of x.
at::Tensor add_bottleneck(const at::Tensor& base, const at::Tensor& x, const BottleneckSpec& spec);
/// Columns [column, column + scale's length) of x times `scale`, the others as they are.
at::Tensor scale_columns(const at::Tensor& x, const Slot& scale, std::int64_t column);
/// norm(residual + dropout(h + bias)); residual may be undefined. h is consumed: its memory holds the normalised
/// values.
at::Tensor add_norm(at::Tensor h, const at::Tensor& residual, const NormSpec& spec, const DropoutSite& dropout);
/// norm(x), x as it was.
at::Tensor norm(const at::Tensor& x, const NormSpec& spec);
at::Tensor mean_pool(const at::Tensor& x, const PackedRows& rows);
at::Tensor first_token_pool(const at::Tensor& x, const PackedRows& rows);
at::Tensor dropout(const at::Tensor& x, const DropoutSite& site);

}  // namespace tailor::tune
