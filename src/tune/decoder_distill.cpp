// Method distill on a decoder that answers with labels. Its scores z are the log-probabilities of the whole answers, of
// which the loss is tune/distillation_loss.h. With z_l = - sum of the losses of answer l's tokens, the gradient is that
// of the tokens' losses weighted by - dL/dz_l: one pass for the scores, one with those weights.

#include <ATen/ops/empty.h>

#include "tune/decoder_classifier.h"
#include "tune/distillation_loss.h"

namespace tailor::tune::decoder {
namespace {

constexpr std::int64_t kPassTokens = 768;  // about so many tokens pass the model at once

}  // namespace

LossSum DecoderClassifier::distil(RowSpan rows, const StepContext& context) {
  const auto labels = static_cast<std::size_t>(file_.n_labels);
  const auto answers = static_cast<std::int64_t>(file_.label_tokens.size());  // an upper bound of their tree
  LossSum sum;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    std::vector<Row> owned;
    std::int64_t tokens = 0;
    for (end = begin; end < rows.size() && (end == begin || tokens < kPassTokens); ++end) {
      const auto head = prompt(rows[end]);
      tokens += static_cast<std::int64_t>(head.size()) + answers / 2;
      sum.tokens += static_cast<std::int64_t>(head.size());
      for (std::size_t l = 0; l < labels; ++l) {
        const auto reply = file_.label(l);
        Row row{{head.begin(), head.end()}, std::vector<std::uint8_t>(head.size(), 0)};
        row.tokens.insert(row.tokens.end(), reply.begin(), reply.end());
        row.mask.resize(row.tokens.size(), 1);
        add_soft_prompt(row);
        owned.push_back(std::move(row));
      }
    }
    std::vector<SequenceView> views;
    for (const Row& r : owned) views.push_back({r.tokens, r.mask});
    const auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
    const std::vector<float> losses = decoder_.losses(tree);

    const RowSpan part = rows.subspan(begin, end - begin);
    at::Tensor scores =
        at::empty({static_cast<std::int64_t>(part.size()), static_cast<std::int64_t>(labels)}, at::kFloat).zero_();
    float* z = scores.data_ptr<float>();
    for (std::size_t t = 0; t < losses.size(); ++t) z[tree->targets[t].row] -= losses[t];
    const ClassificationLoss loss = distillation_loss(scores, file_, part, job_.settings.distill,
                                                      job_.settings.label_smoothing, context.denominator);
    sum.loss_sum += loss.loss_sum;
    sum.weight += static_cast<double>(part.size() - loss.bad_rows.size());
    sum.computed_tokens += tree->size();
    for (const std::size_t r : loss.bad_rows) sum.bad_rows.push_back(part[r]);
    if (!loss.bad_rows.empty()) continue;
    const float* dz = loss.d_logits.data_ptr<float>();
    std::vector<float> weights(losses.size());
    for (std::size_t t = 0; t < losses.size(); ++t) weights[t] = -dz[tree->targets[t].row];
    decoder_.losses_and_gradients(tree, weights, nullptr);
  }
  return sum;
}

}  // namespace tailor::tune::decoder
