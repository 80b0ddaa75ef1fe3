#include "tune/methods.h"

#include <fmt/format.h>

#include "tune/contrastive_model.h"
#include "tune/decoder_classifier.h"
#include "tune/encoder_classifier.h"
#include "tune/head_model.h"
#include "tune/job.h"
#include "tune/objective.h"
#include "tune/tensor_filters.h"

namespace tailor::tune {
namespace {

EncoderOptions encoder_options(const ModelInput& in) {
  EncoderOptions options;
  options.hidden_dropout = in.job.settings.hidden_dropout;
  options.dtype = in.job.settings.dtype;
  options.device = in.device;
  options.checkpointing = in.job.settings.activation_checkpointing;
  return options;
}

std::unique_ptr<TrainableModel> encoder_classifier(const ModelInput& in, EncoderOptions options) {
  return std::make_unique<EncoderClassifier>(in.weights, in.file, in.job, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_full(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.trained = [](std::string_view) { return true; };
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_upper_layers(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.trained = upper_layers_filter(EncoderConfig::read(in.weights).layers, in.job.settings);
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_bitfit(const ModelInput& in) {
  if (EncoderConfig::read(in.weights).modern) {
    throw Exception({ErrorCode::kInvalidArgument, "method 'bitfit' trains biases, and ModernBERT has none",
                     "use layernorm, ia3 or lora"});
  }
  EncoderOptions options = encoder_options(in);
  options.trained = [](std::string_view tensor) { return tensor.ends_with(".bias"); };
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_layernorm(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.trained = is_norm_tensor;
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_lora(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.lora = in.job.settings.lora;
  for (const std::string& name : options.lora.modules_to_save) {
    if (name == "classifier" || name == "score") continue;  // the head
    throw Exception(
        {ErrorCode::kInvalidArgument,
         fmt::format("lora.modules_to_save: '{}' cannot be trained whole beside an encoder's adapter", name),
         "the head always is; method full trains every module"});
  }
  if (!options.lora.trained_tokens.empty()) {
    throw Exception({ErrorCode::kInvalidArgument, "lora.trained_tokens is for decoders", "leave it out"});
  }
  const EncoderConfig config = EncoderConfig::read(in.weights);
  if (in.job.adapter.empty()) {
    options.lora_targets = resolve_lora_targets(options.lora.target_modules, config.model_type, config.layers);
  } else {
    options.lora_start = encoder_start(in.job, in.weights).value();
    options.lora_targets = resolve_lora_targets({"all-linear"}, config.model_type, config.layers);
    std::erase_if(options.lora_targets,
                  [&](const std::string& name) { return !options.lora_start->modules.contains(name); });
  }
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_ia3(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.ia3 = true;
  return encoder_classifier(in, std::move(options));
}

template <AdapterPlace place>
std::unique_ptr<TrainableModel> encoder_adapter(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.adapter = EncoderAdapters{place, in.job.settings.adapter};
  if (place == AdapterPlace::kHoulsby) options.trained = is_norm_tensor;
  return encoder_classifier(in, std::move(options));
}

std::unique_ptr<TrainableModel> encoder_contrastive(const ModelInput& in) {
  EncoderOptions options = encoder_options(in);
  options.trained = [](std::string_view) { return true; };
  return std::make_unique<ContrastiveModel>(in.weights, in.file, in.job, std::move(options));
}

/// A student: everything is trained, by the loss that the classifier takes from the job's method.
std::unique_ptr<TrainableModel> encoder_distill(const ModelInput& in) {
  return encoder_full(in);
}

std::unique_ptr<TrainableModel> encoder_head(const ModelInput& in) {
  const auto objective = make_objective(in.job, in.file);
  at::Tensor features = encode_rows(in, *objective);
  return std::make_unique<HeadModel>(std::move(features), in.file, in.job, in.weights.architecture());
}

/// First values by what a method moves: whole weights a little, few numbers much.
void encoder_defaults(Settings& s, double rate) {
  s.learning_rate = rate;
  s.head_learning_rate = 2e-3;
  s.epochs = 4;
}
void defaults_by_task(Settings& s, Task task, double encoder_rate, double decoder_rate) {
  encoder_defaults(s, for_encoders(task) ? encoder_rate : decoder_rate);
  if (for_encoders(task)) return;
  s.epochs = task == Task::kCausalLm ? 3 : 1;
  s.batch_size = 8;
}
void full_defaults(Settings& s, Task task) {
  defaults_by_task(s, task, 2e-4, 5e-5);
}
void vectors_defaults(Settings& s, Task task) {  // biases, norms, scales
  defaults_by_task(s, task, 5e-3, 5e-3);
  s.weight_decay = 0;
}
void adapter_defaults(Settings& s, Task task) {
  defaults_by_task(s, task, 2e-3, 1e-3);
}
void parallel_defaults(Settings& s, Task task) {
  defaults_by_task(s, task, 1e-3, 1e-3);
  s.adapter.scale = 4;
}
void lora_defaults(Settings& s, Task task) {
  defaults_by_task(s, task, 1e-3, 5e-4);
}
void rslora_defaults(Settings& s, Task task) {
  lora_defaults(s, task);
  s.lora.rslora = true;
  s.lora.alpha = 8;  // alpha / sqrt(16) is what alpha 32 / 16 is
}
void dora_defaults(Settings& s, Task task) {
  lora_defaults(s, task);
  s.lora.dora = true;
}
void lora_plus_defaults(Settings& s, Task task) {
  lora_defaults(s, task);
  s.learning_rate /= 4;
  s.lora.b_rate_scale = 16;
}
void pissa_defaults(Settings& s, Task task) {
  lora_defaults(s, task);
  s.learning_rate /= 5;
  s.lora.pissa = true;
  s.lora.alpha = 16;
}
void soft_prompt_defaults(Settings& s, Task) {
  s.learning_rate = 1e-2;
  s.epochs = 2;
  s.batch_size = 8;
  s.weight_decay = 0;
}
void p_tuning_defaults(Settings& s, Task task) {
  soft_prompt_defaults(s, task);
  s.learning_rate = 1e-3;
}
void prefix_defaults(Settings& s, Task task) {
  soft_prompt_defaults(s, task);
  s.learning_rate = 5e-3;
}
void head_defaults(Settings& s, Task) {
  s.learning_rate = 1e-2;
  s.head_learning_rate = 0;
  s.epochs = 30;
  s.weight_decay = 0;
}
void contrastive_defaults(Settings& s, Task) {
  encoder_defaults(s, 1e-4);
  s.head_learning_rate = 1e-3;  // of weights that read vectors of length 1
  s.hidden_dropout = 0.2;       // rows are few and seen often
  s.epochs = 3;
}
void distill_defaults(Settings& s, Task task) {
  if (task == Task::kSequenceClassification)
    full_defaults(s, task);
  else
    lora_defaults(s, task);
}
void features_defaults(Settings& s, Task task) {
  head_defaults(s, task);
  s.epochs = 0;
}

}  // namespace

const std::vector<Method>& methods() {
  constexpr auto kLora = MethodFamily::kLora;
  constexpr auto kAdapter = MethodFamily::kAdapter;
  constexpr auto kSoftPrompt = MethodFamily::kSoftPrompt;
  static const std::vector<Method> kMethods = {
      {"full", "every weight of the model and the head", full_defaults, encoder_full, decoder::make_full},
      {"upper-layers", "the uppermost layers and the head", full_defaults, encoder_upper_layers,
       decoder::make_upper_layers},
      {"head", "the output layer alone, on vectors computed once", head_defaults, encoder_head, nullptr},
      {"features", "nothing: the head that is given, on vectors of the untouched model", features_defaults,
       encoder_head, nullptr},
      {"bitfit", "biases and the head", vectors_defaults, encoder_bitfit, decoder::make_bitfit},
      {"layernorm", "normalisation layers and the head", vectors_defaults, encoder_layernorm, decoder::make_layernorm},
      {"lora", "low-rank updates of linear layers, and the head", lora_defaults, encoder_lora, decoder::make_lora,
       kLora},
      {"rslora", "low-rank updates scaled for any rank", rslora_defaults, encoder_lora, decoder::make_lora, kLora},
      {"dora", "low-rank updates of directions, and lengths", dora_defaults, encoder_lora, decoder::make_lora, kLora},
      {"lora-plus", "low-rank updates, B faster than A", lora_plus_defaults, encoder_lora, decoder::make_lora, kLora},
      {"pissa", "low-rank updates from the largest singular values", pissa_defaults, encoder_lora, decoder::make_lora,
       kLora},
      {"qlora", "low-rank updates on a base that stays in its quantised blocks", lora_defaults, nullptr,
       decoder::make_qlora, kLora},
      {"ia3", "a scale for every key, value and inner feature, and the head", vectors_defaults, encoder_ia3,
       decoder::make_ia3},
      {"adapter-houlsby", "bottlenecks after attention and feed-forward, and norms", adapter_defaults,
       encoder_adapter<AdapterPlace::kHoulsby>, decoder::make_houlsby, kAdapter},
      {"adapter-pfeiffer", "bottlenecks after feed-forward", adapter_defaults, encoder_adapter<AdapterPlace::kPfeiffer>,
       decoder::make_pfeiffer, kAdapter},
      {"adapter-parallel", "bottlenecks beside feed-forward", parallel_defaults,
       encoder_adapter<AdapterPlace::kParallel>, decoder::make_parallel, kAdapter},
      {"prompt-tuning", "vectors of virtual tokens before the prompt", soft_prompt_defaults, nullptr,
       decoder::make_prompt_tuning, kSoftPrompt},
      {"p-tuning", "a small network that makes those vectors", p_tuning_defaults, nullptr, decoder::make_p_tuning,
       kSoftPrompt},
      {"prefix-tuning", "keys and values of virtual tokens in every layer", prefix_defaults, nullptr,
       decoder::make_prefix_tuning, kSoftPrompt},
      {"contrastive", "every weight, so that texts of one label lie together, and the head", contrastive_defaults,
       encoder_contrastive, nullptr},
      {"distill", "a student learns a teacher's answers", distill_defaults, encoder_distill, decoder::make_lora},
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
  if (in.weights.text("general.type") == "adapter") {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is an adapter, not a model", in.weights.path().string()),
                 "name the model that it was trained on as the base, and this file as the adapter"};
  }
  const Method* method = find_method(in.job.method);
  const bool encoder = is_encoder_architecture(in.weights.architecture());
  const bool with_head = for_encoders(in.job.task);
  const ModelBuilder build = method == nullptr        ? nullptr
                             : encoder && with_head   ? method->encoder
                             : !encoder && !with_head ? method->decoder
                                                      : nullptr;
  if (build == nullptr) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("method '{}' for task '{}' is not there for the architecture '{}' of {}", in.job.method,
                             to_string(in.job.task), in.weights.architecture(), in.weights.path().string()),
                 "sequence-classification, regression, multi-label, token-classification and span-extraction work on "
                 "'bert' and 'modern-bert', causal-lm-labels and "
                 "causal-lm on decoders"};
  }
  try {
    return build(in);
  } catch (const Exception& error) {
    return error.error();
  }
}

}  // namespace tailor::tune
