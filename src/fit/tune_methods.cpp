#include "fit/tune_methods.h"

#include <fmt/format.h>

#include "text/edit_distance.h"

namespace tailor {

const std::vector<TuneMethod>& tune_methods() {
  using enum ModelKind;
  static const std::vector<TuneMethod> kMethods{
      {"full", "every weight of the model and the head", true, true, kEncoder},
      {"upper-layers", "the uppermost layers and the head", true, true, kEncoder},
      {"head", "the output layer alone, on vectors computed once", true, false, kEncoder},
      {"features", "nothing but a logistic regression on vectors of the untouched model", true, false, kEncoder, false,
       true},
      {"bitfit", "biases and the head", true, true, kEncoder},
      {"layernorm", "normalisation layers and the head", true, true, kEncoder},
      {"lora", "low-rank updates of linear layers", true, true, kEncoder},
      {"rslora", "low-rank updates scaled for any rank", true, true, kEncoder},
      {"dora", "low-rank updates of directions, and lengths", true, true, kEncoder},
      {"lora-plus", "low-rank updates, B faster than A", true, true, kEncoder},
      {"pissa", "low-rank updates from the largest singular values", true, true, kEncoder},
      {"qlora", "low-rank updates on a base that stays in its quantised blocks", false, true, kDecoder, true},
      {"ia3", "a scale for every key, value and inner feature", true, true, kEncoder},
      {"adapter-houlsby", "bottlenecks after attention and feed-forward, and norms", true, true, kEncoder},
      {"adapter-pfeiffer", "bottlenecks after feed-forward", true, true, kEncoder},
      {"adapter-parallel", "bottlenecks beside feed-forward", true, true, kEncoder},
      {"prompt-tuning", "vectors of virtual tokens before the prompt", false, true, kDecoder},
      {"p-tuning", "a small network that makes those vectors", false, true, kDecoder},
      {"prefix-tuning", "keys and values of virtual tokens in every layer", false, true, kDecoder},
      {"contrastive", "every weight, so that texts of one label lie together, and the head", true, false, kEncoder,
       false, true},
      {"distill", "a small model learns a large one's answers (--teacher)", true, true, kEncoder, false, true},
  };
  return kMethods;
}

std::string uses_of(const TuneMethod& method) {
  std::string uses = method.encoders ? (method.one_label ? "encoders, one label" : "encoders, any task") : "";
  if (method.decoders) uses += uses.empty() ? "decoders" : "; decoders";
  return uses;
}

Result<TuneMethod> find_tune_method(const std::string& name) {
  std::vector<std::string> known;
  for (const TuneMethod& method : tune_methods()) {
    if (method.name == name) return method;
    known.emplace_back(method.name);
  }
  const std::string nearest = nearest_name(name, known);
  return Error{ErrorCode::kInvalidArgument, fmt::format("--method {}: there is no such method of tuning", name),
               (nearest.empty() ? std::string() : fmt::format("did you mean {}? ", nearest)) +
                   "`tailor tune --method list` shows them"};
}

}  // namespace tailor
