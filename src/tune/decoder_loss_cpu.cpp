#include <ATen/ATen.h>

#include <algorithm>

#include "tune/decoder_backend.h"
#include "tune/decoder_kernels.h"
#include "tune/decoder_pointwise.h"
#include "tune/frozen_gemm.h"
#include "tune/profile.h"

namespace tailor::tune::decoder {
namespace {

/// normed W^T.
at::Tensor table_output(DecoderWeights& weights, const at::Tensor& normed) {
  const std::int64_t vocab = weights.config().vocab;
  if (const ProductPart part{weights.output_matrix()}; fast_gemm_suits(part.w)) {
    at::Tensor logits = at::empty({normed.size(0), vocab}, normed.options());
    frozen_product({&part, 1}, normed.data_ptr<float>(), normed.size(1), normed.size(0), nullptr, 0, 1, nullptr,
                   logits.data_ptr<float>(), vocab);
    return logits;
  }
  const std::int64_t chunk = weights.output_chunk();
  at::Tensor logits = at::empty({normed.size(0), vocab}, normed.options());
  for (std::int64_t begin = 0; begin < vocab; begin += chunk) {
    const std::int64_t end = std::min(vocab, begin + chunk);
    const ProfileScope scope = ProfileScope::product(Kernel::kProduct, normed.size(0), end - begin, normed.size(1));
    at::Tensor part = logits.narrow(1, begin, end - begin);
    at::mm_out(part, normed, weights.output_rows(begin, end).t());
  }
  return logits;
}

/// The same where some rows of W are trained apart from the others.
at::Tensor output(DecoderWeights& weights, const at::Tensor& normed) {
  at::Tensor logits = table_output(weights, normed);
  if (const DecoderWeights::TrainedRows& rows = weights.trained_rows(); rows.defined())
    logits.index_copy_(1, rows.index, at::mm(normed, rows.output.value.detach().t()));
  return logits;
}

at::Tensor table_output_backward(DecoderWeights& weights, const at::Tensor& dlogits) {
  const std::int64_t vocab = weights.config().vocab;
  if (const ProductPart part{weights.output_matrix()}; fast_gemm_suits(part.w)) {
    at::Tensor d = at::empty({dlogits.size(0), weights.config().hidden}, dlogits.options());
    frozen_product_backward({&part, 1}, dlogits.data_ptr<float>(), vocab, dlogits.size(0), nullptr, 0, nullptr,
                            d.data_ptr<float>(), d.size(1));
    return d;
  }
  const std::int64_t chunk = weights.output_chunk();
  at::Tensor d = at::zeros({dlogits.size(0), weights.config().hidden}, dlogits.options());
  for (std::int64_t begin = 0; begin < vocab; begin += chunk) {
    const std::int64_t end = std::min(vocab, begin + chunk);
    const ProfileScope scope =
        ProfileScope::product(Kernel::kProductBackward, dlogits.size(0), weights.config().hidden, end - begin);
    d.addmm_(dlogits.narrow(1, begin, end - begin), weights.output_rows(begin, end));
  }
  return d;
}

/// Gradient of what output() was given; those of trained rows on the way. Overwrites `dlogits`.
at::Tensor output_backward(DecoderWeights& weights, const at::Tensor& dlogits, const at::Tensor& normed) {
  const DecoderWeights::TrainedRows& rows = weights.trained_rows();
  if (!rows.defined()) return table_output_backward(weights, dlogits);
  const at::Tensor own = dlogits.index_select(1, rows.index);
  at::Tensor grad = rows.output.grad;
  grad.addmm_(own.t(), normed);
  dlogits.index_fill_(1, rows.index, 0);
  return table_output_backward(weights, dlogits).addmm_(own, rows.output.value.detach());
}

/// The final norm of some rows, forward and backward, outside autograd.
struct FinalNorm {
  const NormSpec& spec;
  at::Tensor mean, inverse;

  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = at::empty_like(x);
    inverse = at::empty({x.size(0)}, x.options());
    const float* w = spec.weights.gamma.value.data_ptr<float>();
    if (spec.kind == NormKind::kRms) {
      rms_norm(x.data_ptr<float>(), w, static_cast<float>(spec.eps), x.size(0), x.size(1), y.data_ptr<float>(),
               inverse.data_ptr<float>());
    } else {
      mean = at::empty({x.size(0)}, x.options());
      const Slot& beta = spec.weights.beta;
      layer_norm(x.data_ptr<float>(), w, beta.defined() ? beta.value.data_ptr<float>() : nullptr,
                 static_cast<float>(spec.eps), x.size(0), x.size(1), y.data_ptr<float>(), mean.data_ptr<float>(),
                 inverse.data_ptr<float>());
    }
    return y;
  }
  void backward(const at::Tensor& dy, const at::Tensor& x, float* dx) const {
    const float* w = spec.weights.gamma.value.data_ptr<float>();
    const auto grad = [](const Slot& slot) { return slot.trained() ? slot.grad.data_ptr<float>() : nullptr; };
    if (spec.kind == NormKind::kRms) {
      rms_norm_backward(dy.data_ptr<float>(), x.data_ptr<float>(), w, inverse.data_ptr<float>(), x.size(0), x.size(1),
                        dx, grad(spec.weights.gamma));
    } else {
      layer_norm_backward(dy.data_ptr<float>(), x.data_ptr<float>(), w, mean.data_ptr<float>(),
                          inverse.data_ptr<float>(), x.size(0), x.size(1), dx, grad(spec.weights.gamma),
                          grad(spec.weights.beta));
    }
  }
};

}  // namespace

at::Tensor cpu_logits(const LossHead& head, const at::Tensor& hidden) {
  at::Tensor logits = output(head.weights, FinalNorm{head.norm, {}, {}}.forward(hidden));
  if (const double cap = head.weights.config().logit_softcap; cap > 0)
    softcap(logits.data_ptr<float>(), logits.numel(), static_cast<float>(cap));
  return logits;
}

std::vector<float> cpu_losses(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                              std::span<const float> target_weights, at::Tensor* dhidden,
                              std::vector<std::uint8_t>* likeliest) {
  DecoderWeights& weights = head.weights;
  const DecoderConfig& c = weights.config();
  const auto cap = static_cast<float>(c.logit_softcap);
  std::vector<float> losses(tree.targets.size());
  if (dhidden != nullptr) *dhidden = at::empty_like(hidden);
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kLabelSlice) {
    const std::int64_t n = std::min(kLabelSlice, hidden.size(0) - begin);
    const at::Tensor x = hidden.narrow(0, begin, n);
    FinalNorm norm{head.norm, {}, {}};
    const at::Tensor normed = norm.forward(x);
    const at::Tensor logits = output(weights, normed);
    at::Tensor slope;  // of the cap
    if (cap > 0) {
      softcap(logits.data_ptr<float>(), logits.numel(), cap);
      if (dhidden != nullptr) slope = 1 - at::square(logits / cap);
    }
    cross_entropy(logits.data_ptr<float>(), n, c.vocab, tree.targets, begin, target_weights.data(), losses.data(),
                  likeliest != nullptr ? likeliest->data() : nullptr, dhidden != nullptr);
    if (dhidden == nullptr) continue;
    if (slope.defined()) logits.mul_(slope);
    if (at::Tensor grad = weights.output_grad(); grad.defined()) {
      const ProfileScope scope = ProfileScope::product(Kernel::kWeightGradient, c.vocab, c.hidden, n);
      grad.addmm_(logits.t(), normed);
    }
    norm.backward(output_backward(weights, logits, normed), x, dhidden->data_ptr<float>() + begin * c.hidden);
  }
  return losses;
}

}  // namespace tailor::tune::decoder
