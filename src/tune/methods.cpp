#include "tune/methods.h"

#include <fmt/format.h>

#include "tune/encoder_classifier.h"
#include "tune/head_model.h"
#include "tune/job.h"
#include "tune/llama_trainable.h"

namespace tailor::tune {
namespace {

std::unique_ptr<TrainableModel> encoder_full(const ModelInput& in) {
  EncoderOptions options;
  options.trained = [](std::string_view) { return true; };
  options.hidden_dropout = in.job.settings.hidden_dropout;
  return std::make_unique<EncoderClassifier>(in.weights, in.file, in.job, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_lora(const ModelInput& in) {
  EncoderOptions options;
  options.lora = in.job.settings.lora;
  options.lora_targets = resolve_lora_targets(options.lora.target_modules);
  options.hidden_dropout = in.job.settings.hidden_dropout;
  return std::make_unique<EncoderClassifier>(in.weights, in.file, in.job, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_head(const ModelInput& in) {
  at::Tensor features = encode_rows(in.weights, in.file, in.job.settings.pooling, in.preparing);
  return std::make_unique<HeadModel>(std::move(features), in.file, in.job, in.weights.architecture());
}

void full_defaults(Settings& s, Task) {
  s.learning_rate = 2e-4;
  s.head_learning_rate = 2e-3;
  s.epochs = 4;
}
void lora_defaults(Settings& s, Task task) {
  s.learning_rate = task == Task::kSequenceClassification ? 1e-3 : 5e-4;
  s.head_learning_rate = 2e-3;
  s.epochs = task == Task::kSequenceClassification ? 4 : 1;
  if (task == Task::kCausalLmLabels) s.batch_size = 8;
}
void head_defaults(Settings& s, Task) {
  s.learning_rate = 1e-2;
  s.head_learning_rate = 0;
  s.epochs = 30;
  s.weight_decay = 0;
}

}  // namespace

const std::vector<Method>& methods() {
  static const std::vector<Method> kMethods = {
      {"full", "every weight of the model and the head", full_defaults, encoder_full, nullptr},
      {"lora", "low-rank updates of linear layers, and the head", lora_defaults, encoder_lora, llama::make_lora},
      {"qlora", "low-rank updates on a base that stays in its quantised blocks", lora_defaults, nullptr,
       llama::make_qlora},
      {"head", "the output layer alone, on vectors computed once", head_defaults, encoder_head, nullptr},
  };
  return kMethods;
}

const Method* find_method(std::string_view name) {
  for (const Method& method : methods()) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const Method& method : methods()) names.push_back(method.name);
  return names;
}

Result<std::unique_ptr<TrainableModel>> make_model(const ModelInput& in) {
  const Method* method = find_method(in.job.method);
  const bool encoder = in.weights.architecture() == "bert";
  const bool classify = in.job.task == Task::kSequenceClassification;
  const ModelBuilder build = method == nullptr       ? nullptr
                             : encoder && classify   ? method->encoder
                             : !encoder && !classify ? method->decoder
                                                     : nullptr;
  if (build == nullptr) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("method '{}' for task '{}' is not there for the architecture '{}' of {}", in.job.method,
                             to_string(in.job.task), in.weights.architecture(), in.weights.path().string()),
                 "sequence-classification works on 'bert', causal-lm-labels on the llama family"};
  }
  try {
    return build(in);
  } catch (const Exception& error) {
    return error.error();
  }
}

}  // namespace tailor::tune
