/// What the estimates of several methods share.

#include <algorithm>

#include "fit/methods.h"

namespace tailor {

double mean_tokens(const TrialContext& context) {
  // Subword vocabularies split English into pieces of about four bytes; two special tokens.
  const auto& texts = context.data.dataset.texts;
  const std::size_t step = std::max<std::size_t>(1, texts.size() / 2000);
  double bytes = 0, n = 0;
  for (std::size_t i = 0; i < texts.size(); i += step) {
    bytes += static_cast<double>(texts[i].size());
    n += 1;
  }
  return n == 0 ? 2 : bytes / n / 4.2 + 2;
}

double embedding_tokens_per_second(const TrialContext& context) {
  const ModelInfo& model = context.model->info;
  const bool encoder = model.kind == ModelKind::kEncoder;
  const double rate = encoder ? context.speed.encoder_tokens_per_second : context.speed.decoder_tokens_per_second;
  const double parameters = encoder ? context.speed.encoder_parameters : context.speed.decoder_parameters;
  return rate * parameters / std::max<double>(1, static_cast<double>(model.parameters));
}

double prompting_tokens_per_second(const TrialContext& context) {
  const MachineSpeed& speed = context.speed;
  return speed.prompting_tokens_per_second * speed.decoder_parameters /
         std::max<double>(1, static_cast<double>(context.model->info.parameters));
}

}  // namespace tailor
